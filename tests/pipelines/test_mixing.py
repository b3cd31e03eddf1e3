"""The mixer at work: each reference is encoded once a shot, and shares say what is seen."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dreamhead.faces import geometry
from dreamhead.faces.crop import apply_transform, extract, pose_mask
from dreamhead.faces.mesh_index import triangle_index, vertices
from dreamhead.models.reference_mixer import Mixture, shown
from dreamhead.pipelines.example import Reference
from dreamhead.pipelines.mixing import TRACE, Face, ShotMixer, _without_traces
from dreamhead.records import ShotAnalysis
from tests import tiny
from tests.toy_faces import toy_shot

SIZE, WINDOW = tiny.CROP_SIZE, 48


@pytest.fixture(scope="module")
def shot() -> tuple[list[NDArray[np.uint8]], ShotAnalysis]:
    return toy_shot((0.0, 0.1, 0.2, 0.3), SIZE)


def mixer_of(shot: ShotAnalysis, model: Any) -> ShotMixer:
    pairs = zip(shot.reference_crops, shot.reference_landmarks, strict=True)
    return ShotMixer(model, False, [Reference(*pair) for pair in pairs])


def face(frames: list[NDArray[np.uint8]], shot: ShotAnalysis, number: int, like: int, references: list[int]) -> Face:
    """A frame whose mouth shall be that of another one."""
    transform = shot.crops[number]
    pose = geometry.fit_pose(shot.landmarks[number][None])
    own = pose.to_canonical(shot.landmarks[number][None])[0]
    wanted = geometry.fit_pose(shot.landmarks[like][None]).to_canonical(shot.landmarks[like][None])[0]
    here, there = (apply_transform(transform, pose.to_pixels(points[None])[0]) for points in (own, wanted))
    resting = apply_transform(transform, pose.to_pixels(shot.neutral[None])[0])
    mask = pose_mask(shot.neutral, pose, transform, SIZE, 0.06)
    crop = extract(frames[number], transform, SIZE)
    index = triangle_index(vertices(there), SIZE)
    return Face(crop, here, there, resting, mask, wanted, own, np.array(references), index)


def test_each_reference_is_encoded_once(
    shot: tuple[list[NDArray[np.uint8]], ShotAnalysis], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, analysis = shot
    model, encoded = tiny.reference_mixer(), []
    encode = model.encode

    def counting(pictures: torch.Tensor, drawn: torch.Tensor) -> Any:
        encoded.append(len(pictures))
        return encode(pictures, drawn)

    monkeypatch.setattr(model, "encode", counting)
    mixer = mixer_of(analysis, model)
    first = mixer([face(frames, analysis, 0, 3, [3, 2]), face(frames, analysis, 1, 2, [2, 3])])
    # Two references, then the two frames themselves.
    assert encoded == [2, 2]
    again = mixer([face(frames, analysis, 0, 3, [3, 2]), face(frames, analysis, 1, 2, [2, 3])])
    assert encoded == [2, 2, 2]
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours.shares, theirs.shares)
    mixer([face(frames, analysis, 2, 0, [0, 3])])
    assert encoded == [2, 2, 2, 1, 1]


def test_shares_sum_to_one_and_the_frame_itself_can_be_left_out(
    shot: tuple[list[NDArray[np.uint8]], ShotAnalysis],
) -> None:
    frames, analysis = shot
    mixer = mixer_of(analysis, tiny.reference_mixer())
    wanted = face(frames, analysis, 0, 0, [3, 2, 1])
    for own in (True, False):
        (mouth,) = mixer([wanted], own)
        assert mouth.shares.shape == (4, WINDOW, WINDOW)
        assert mouth.sources.shape == (4, WINDOW, WINDOW, 2)
        assert mouth.change.shape == (WINDOW, WINDOW, 3)
        np.testing.assert_allclose(mouth.shares.sum(axis=0), 1, atol=1e-5)
        assert mouth.shares[-1].any() == own


def test_shares_that_nobody_sees_go_to_the_others() -> None:
    assert TRACE == 0.05
    fine, coarse = torch.tensor([0.9, 0.06, 0.04]), torch.tensor([0.2, 0.3, 0.5])
    tones = torch.tensor([-0.8, 0.1, 0.9])
    pictures = tones.view(1, 3, 1, 1, 1).expand(1, 3, 3, 2, 2)
    shares = [part.view(1, 3, 1, 1).expand(1, 3, 2, 2) for part in (coarse, fine)]
    slow = ((shares[0] - shares[1])[:, :, None] * pictures).sum(dim=1)
    found = _without_traces(Mixture(shares[0], shares[1], slow, torch.zeros(1, 3, 4, 4)), pictures)
    torch.testing.assert_close(found.fine[0, :, 0, 0], torch.tensor([0.9375, 0.0625, 0.0]))
    # Flat pictures have no details: what is seen of them is what it was, their mean by the coarse shares.
    pixels = tones.view(1, 3, 1, 1, 1).expand(1, 3, 3, 4, 4)
    torch.testing.assert_close(shown(found, pixels), torch.full((1, 3, 4, 4), float((coarse * tones).sum())))
