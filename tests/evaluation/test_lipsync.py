"""SyncNet's figures with a network whose answer is known: it hears loudness, and sees brightness."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamhead.errors import CheckpointError
from dreamhead.evaluation.conditions import Take
from dreamhead.evaluation.lipsync import LipSync, face_pictures
from dreamhead.evaluation.settings import JudgeSettings
from dreamhead.media.video import probe
from tests.toy_faces import canonical_face, posed

# PyTorch wants another format for new networks; this is what the library reads.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

FRAMES = 60
LIGHTS = np.random.default_rng(0).integers(0, 2, FRAMES)


class Eye(nn.Module):
    """Brightness of each of five pictures, and loudness of each of five fifths of the sound: 0 or 1."""

    @torch.jit.export
    def forward_lip(self, pictures: Tensor) -> Tensor:
        return (pictures.mean(dim=(1, 3, 4)) > 100).float()

    @torch.jit.export
    def forward_aud(self, cepstra: Tensor) -> Tensor:
        energy = cepstra[:, 0, 0].reshape(-1, 5, 4)
        return (energy[:, :, 1] > 5).float()


@pytest.fixture
def judge(tmp_path: Path) -> LipSync:
    path = tmp_path / "syncnet.pt"
    torch.jit.save(torch.jit.script(Eye()), str(path))  # type: ignore[no-untyped-call]
    return LipSync(str(path))


@pytest.fixture
def take(make_video: Callable[..., str]) -> Take:
    frames = [np.full((160, 200, 3), 40 + 160 * int(light), np.uint8) for light in LIGHTS]
    info = probe(make_video("lights.mp4", frames))
    return Take(info=info, first=0, frame_count=FRAMES)


def landmarks() -> NDArray[np.float32]:
    found = np.stack([posed(canonical_face())] * FRAMES)
    found[10:20] = np.nan
    return found


def sound(late_frames: int) -> NDArray[np.float32]:
    """Loud where the picture is bright, some frames later."""
    loud = np.repeat(LIGHTS, 640)
    tone = np.sin(np.arange(len(loud)) * 0.3) * loud * 0.5
    return np.roll(tone, 640 * late_frames).astype(np.float32)


@pytest.mark.parametrize(("late", "offset"), [(0, 0), (3, -3), (-2, 2)])
def test_the_offset_is_that_of_the_sound(judge: LipSync, take: Take, late: int, offset: int) -> None:
    found = judge(take, landmarks(), sound(late))
    assert found["av_offset_frames"] == offset
    assert found["lse_d"] < 0.5
    assert found["lse_c"] > 0.8


def test_a_face_that_isnt_there_has_no_figures(judge: LipSync, take: Take) -> None:
    assert judge(take, np.full((FRAMES, 478, 3), np.nan, np.float32), sound(0)) == {}


def test_the_crop_holds_the_face_at_25_pictures_a_second(take: Take) -> None:
    pictures = face_pictures(take, landmarks(), 40)
    assert pictures.shape == (40, 224, 224, 3)
    np.testing.assert_array_equal(pictures[:, 112, 112].mean(axis=1) > 100, LIGHTS[:40] == 1)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.model").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"bad.model: not SyncNet's weights"):
        LipSync(JudgeSettings(syncnet=str(tmp_path / "bad.model")).syncnet)
