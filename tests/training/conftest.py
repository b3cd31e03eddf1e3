"""A shard of generated clips: a drawn face that talks, and speech that says how wide the mouth is open."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dreamhead.faces import geometry
from dreamhead.faces.crop import crop_transforms, extract
from dreamhead.training.dataset import Clip, read_clips, write_clips
from tests import tiny
from tests.toy_faces import canonical_face, posed, texture, turn

SIZE = tiny.CROP_SIZE
FRAMES = 50
FEATURES = tiny.SPEECH_SIZE // 2


def clip_row(clip_id: str, seed: int, *, variants: int = 2, frames: int = FRAMES) -> dict[str, object]:
    """A row of a shard at 25 frames a second: two seconds unless told otherwise."""
    opening = 0.15 * (1 + np.sin(np.arange(frames) / 3 + seed))
    landmarks = np.stack(
        [posed(canonical_face(gap), 40, (100 + 0.2 * t, 70), turn(0.3 * t)) for t, gap in enumerate(opening)]
    )
    transforms = crop_transforms(geometry.fit_pose(landmarks), SIZE)
    picture = texture(160, 200, seed)
    pictures = [np.roll(picture, round(20 * gap), axis=0) for gap in opening]
    crops = [extract(frame, way, SIZE) for frame, way in zip(pictures, transforms, strict=True)]
    heard = np.interp(np.arange(2 * frames) / 2, np.arange(frames), opening)[:, None] * np.linspace(-5, 5, FEATURES)
    return {
        "clip_id": clip_id,
        "speaker": f"speaker {seed}",
        "frame_rate": 25.0,
        "crop_size": SIZE,
        "landmarks": landmarks.astype(np.float32).tobytes(),
        "transforms": transforms.astype(np.float32).tobytes(),
        "crops": [cv2.imencode(".jpg", crop[..., ::-1])[1].tobytes() for crop in crops],
        "speech_encoder": "log_mel",
        "features": [(heard + variant).astype(np.float16).tobytes() for variant in range(variants)],
        "feature_size": FEATURES,
        "feature_rate": 50.0,
        "speech_lag_s": 0.0,
    }


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two shards of three clips."""
    folder = tmp_path_factory.mktemp("shards")
    write_clips(folder / "b.parquet", [clip_row("third", 2)])
    write_clips(folder / "a.parquet", [clip_row("first", 0), clip_row("second", 1, variants=0, frames=12)])
    return folder


@pytest.fixture(scope="session")
def toy_clips(shards: Path) -> list[Clip]:
    """The clips of the shards."""
    return read_clips(shards)
