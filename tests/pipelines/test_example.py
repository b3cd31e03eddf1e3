"""The first guess is the frame outside the mask, and inside it the references, moved to the wanted mouth."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dreamhead.faces.crop import pose_mask
from dreamhead.faces.geometry import fit_pose
from dreamhead.pipelines.example import (
    Example,
    Reference,
    Told,
    darkened,
    make_example,
    merge,
    mouth_region,
    painted_rows,
    tell,
    unseen_mouth,
    with_skin,
)
from dreamhead.pipelines.landmarks_to_frames import hide
from dreamhead.records import ShotAnalysis
from tests import tiny
from tests.toy_faces import toy_shot

SIZE = tiny.CROP_SIZE
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def shot() -> tuple[list[Picture], ShotAnalysis]:
    return toy_shot((0.0, 0.1, 0.2, 0.3, 0.1), SIZE, start=40)


def example_of(shot: tuple[list[Picture], ShotAnalysis], noise: int = 0) -> tuple[Example, Picture]:
    _, analysis = shot
    landmarks = analysis.reference_landmarks
    mask = pose_mask(
        analysis.neutral, fit_pose(analysis.landmarks[:1]), analysis.crops[0].astype(np.float32), SIZE, 0.06
    )
    crop = analysis.reference_crops[0].copy()
    crop[mask >= 1] = noise
    references = [Reference(analysis.reference_crops[number], landmarks[number]) for number in (3, 2)]
    return make_example(crop, references, landmarks[0], mask), crop


def test_what_the_mask_hides_is_not_looked_at(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    (black, _), (white, _) = example_of(shot, 0), example_of(shot, 255)
    deep = black.mask >= 1
    np.testing.assert_array_equal(black.warped[deep], white.warped[deep])
    np.testing.assert_array_equal(black.target_image, white.target_image)


def test_outside_the_mask_the_first_guess_is_the_frame(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    example, crop = example_of(shot)
    np.testing.assert_array_equal(example.warped[example.mask == 0], crop[example.mask == 0])


def test_skin_comes_from_the_picture_that_is_given(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    example, _ = example_of(shot)
    skin = np.full((SIZE, SIZE, 3), 77, np.uint8)
    other = with_skin(example, skin)
    assert (other.warped[example.mouth == 0] == 77).all()
    assert (other.warped[example.mouth > 0.99] != 77).any()
    assert (other.stretch[example.mouth == 0] == 0).all()
    assert other.mask is example.mask


def test_what_the_network_is_told(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    example, _ = example_of(shot)
    told: Told = tell([example, example])
    rows = SIZE - SIZE // 4
    assert painted_rows(SIZE) == slice(SIZE // 4, SIZE)
    assert told.warped.shape == (2, 3, rows, SIZE)
    assert told.mask.shape == (2, 1, rows, SIZE)
    assert told.guides.shape == (2, 8, rows, SIZE)
    assert told.guides.abs().max() <= 1
    np.testing.assert_allclose(
        (told.warped[0].permute(1, 2, 0).numpy() + 1) * 127.5, example.warped[SIZE // 4 :], atol=1e-3
    )
    torch.testing.assert_close(told.guides[:, 7:], told.mask * 2 - 1)
    hidden = hide(told.warped, told.mask)
    assert (hidden[(told.mask > 0).expand_as(hidden)] == 0).all()
    assert torch.equal(hidden[(told.mask == 0).expand_as(hidden)], told.warped[(told.mask == 0).expand_as(hidden)])


def test_the_mouths_region_follows_the_lips() -> None:
    landmarks = toy_shot((0.0, 0.3), 128)[1].reference_landmarks
    shut, wide = (mouth_region(points, 128) for points in landmarks)
    assert 0 < shut.sum() < wide.sum()
    middle = landmarks[1][[13, 14], :2].mean(axis=0).astype(int)
    assert wide[middle[1], middle[0]] == pytest.approx(1, abs=1e-3)
    assert wide.max() <= 1 + 1e-6
    assert (wide[:32] == 0).all()


def test_one_reference_is_shown_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(merge([picture]), picture)
    # Colour matching leaves the range of pixels, and must not come round at its other end.
    assert merge([np.full((8, 8, 3), -7.0, np.float32)]).max() == 0
    assert merge([np.full((8, 8, 3), 262.0, np.float32)]).min() == 255


def test_references_share_what_is_coarse_and_the_first_keeps_its_details() -> None:
    rng = np.random.default_rng(0)
    details = rng.integers(-20, 21, (256, 256, 1))
    first = np.clip(100 + details + np.zeros(3, int), 0, 255).astype(np.uint8)
    second = np.full((256, 256, 3), 130, np.uint8)
    merged = merge([first, second]).astype(int)
    assert merged.mean() == pytest.approx(115, abs=0.5)
    # Noise of single pixels is finer than the two pixels that are shared.
    kept = np.corrcoef((merged - 115)[..., 0].ravel(), details[..., 0].ravel())[0, 1]
    assert kept > 0.95
    assert np.std(merged[..., 0]) > 0.85 * details.std()


def opened_onto(face: Picture, references: list[Reference], target: NDArray[np.float32]) -> Picture:
    return darkened(face, unseen_mouth(references, target, len(face)), target)


def test_a_mouth_that_was_never_open_opens_onto_dark() -> None:
    landmarks = toy_shot((0.0, 0.3), 128)[1].reference_landmarks
    face = np.full((128, 128, 3), (200, 150, 120), np.uint8)
    shut, wide = (Reference(face, points) for points in landmarks)
    opened = opened_onto(face, [shut], landmarks[1])
    middle = landmarks[1][[13, 14], :2].mean(axis=0).astype(int)
    assert (opened[middle[1], middle[0]] < 80).all()
    chin = landmarks[1][152, :2].astype(int)
    np.testing.assert_array_equal(opened[chin[1], chin[0]], face[0, 0])
    np.testing.assert_array_equal(opened_onto(face, [shut, wide], landmarks[1]), face)
    np.testing.assert_array_equal(opened_onto(face, [shut], landmarks[0]), face)
