"""A portrait stored in pixels that aren't square is found, measured, cut out and painted as the same in square ones.

Tolerances: the detector sees a picture that was resized there and back, which moves its landmarks by some tenths of a
pixel of 256. Measured in stored pixels the lips' opening would be off by a quarter at 4:3, and by a seventh at 8:9.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import AnalysisSettings, RenderSettings, WeightsSettings
from dreamhead.faces import geometry, topology
from dreamhead.faces.crop import apply_transform
from dreamhead.media.video import probe, read_frames
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.pipelines.landmarks_to_frames import LandmarksToFrames
from dreamhead.records import Route, ShotAnalysis
from tests import tiny
from tests.anamorphic import ASPECTS, resized, stored

FRAMES, SIDE, CROP = 6, 256, 128
TIMES_S = np.arange(FRAMES) / 25
LANDMARK_PX, CROP_PX = 0.5, 0.5
"""Mean distance of landmarks; furthest place, in the crop, of the same point."""
OPENING, ENCODED_OPENING = 0.008, 0.02
"""Differences of lip openings that are 0.18 eye distances, in pictures as they are and in encoded ones."""

Picture = NDArray[np.uint8]
Analyse = Callable[..., ShotAnalysis]


@pytest.fixture(scope="module")
def analyser() -> Iterator[VideoAnalyser]:
    analyser = VideoAnalyser(AnalysisSettings(crop_size=CROP, reference_frames=4), WeightsSettings())
    yield analyser
    analyser.close()


@pytest.fixture(scope="module")
def frames(face_frames: list[Picture]) -> list[Picture]:
    return face_frames[:FRAMES]


@pytest.fixture(scope="module")
def square(analyser: VideoAnalyser, frames: list[Picture]) -> ShotAnalysis:
    (shot,) = analyser(frames, 0, TIMES_S, "largest")
    return shot


def opening(shot: ShotAnalysis) -> NDArray[np.floating[Any]]:
    return geometry.lip_opening(geometry.fit_pose(shot.landmarks).to_canonical(shot.landmarks))


def agree(shot: ShotAnalysis, square: ShotAnalysis, within: float = OPENING) -> None:
    """Everything that is measured of the one is what is measured of the other."""
    assert (shot.routes == Route.DUB).all()
    apart = np.linalg.norm((shot.landmarks - square.landmarks)[..., :2], axis=-1)
    assert apart.mean() < LANDMARK_PX
    np.testing.assert_allclose(opening(shot), opening(square), atol=within)
    np.testing.assert_allclose(shot.neutral, square.neutral, atol=0.03)
    for ours, theirs, points in zip(shot.crops, square.crops, square.landmarks, strict=True):
        np.testing.assert_allclose(apply_transform(ours, points), apply_transform(theirs, points), atol=CROP_PX)
        # A similarity: nothing is stretched on its way to the crop.
        np.testing.assert_allclose(ours[:, :2] @ ours[:, :2].T, np.eye(2) * np.hypot(*ours[:, 0]) ** 2, atol=1e-4)
    assert shot.reference_frames[0] == square.reference_frames[0]
    np.testing.assert_allclose(shot.reference_landmarks[0], square.reference_landmarks[0], atol=3 * CROP_PX)
    difference = np.abs(shot.reference_crops[0].astype(int) - square.reference_crops[0])
    assert difference.mean() < 4


@pytest.mark.parametrize("aspect", ASPECTS)
def test_a_face_is_measured_in_square_pixels(
    analyser: VideoAnalyser, frames: list[Picture], square: ShotAnalysis, aspect: Fraction
) -> None:
    squeezed = [stored(frame, aspect) for frame in frames]
    (shot,) = analyser(squeezed, 0, TIMES_S, "largest", float(aspect))
    assert shot.pixel_aspect == float(aspect)
    agree(shot, square)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_picture_has_its_pixels_turned_too(
    analyser: VideoAnalyser, frames: list[Picture], square: ShotAnalysis, make_video: Any, rotation: int
) -> None:
    # The picture's sides change places, so that what was coded as 1:2 is 2:1 when it is upright.
    upright = Fraction(1, 2) if rotation == 180 else Fraction(2)
    coded = [np.rot90(stored(frame, upright), -(rotation // 90)) for frame in frames]
    info = probe(make_video(frames=coded, aspect=Fraction(1, 2), rotation=rotation))
    assert info.pixel_aspect == pytest.approx(float(upright))
    (shot,) = analyser(read_frames(info, range(FRAMES)), 0, TIMES_S, "largest", info.pixel_aspect)
    agree(shot, square, ENCODED_OPENING)


def test_a_face_of_few_square_pixels_is_small_however_it_is_stored(frames: list[Picture], square: ShotAnalysis) -> None:
    height = 2.2 / float(geometry.fit_pose(square.landmarks).scale.mean())
    for limit, route in ((0.95 * height, Route.DUB), (1.05 * height, Route.FACE_TOO_SMALL)):
        picky = VideoAnalyser(AnalysisSettings(crop_size=CROP, min_face_px=limit), WeightsSettings())
        for aspect in (Fraction(1, 2), Fraction(2)):
            (shot,) = picky([stored(frame, aspect) for frame in frames[:1]], 0, TIMES_S[:1], "largest", float(aspect))
            assert shot.routes.tolist() == [route]
        picky.close()


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2)])
def test_a_point_is_in_pixels_as_shown(analyser: VideoAnalyser, frames: list[Picture], aspect: Fraction) -> None:
    two = np.concatenate([frames[0], frames[0][:, ::-1]], axis=1)
    picture = stored(two, aspect)
    # In stored pixels the first would be right of the other face at 2:1, and the second left of the first at 1:2.
    for x, left in ((200, True), (330, False)):
        (shot,) = analyser([picture], 0, TIMES_S[:1], f"point:{x},120@0", float(aspect))
        assert shot.routes.tolist() == [Route.DUB]
        assert (shot.landmarks[0, :, 0].mean() < SIDE) == left
        box = f"box:{x - 10},110,{x + 10},130@0"
        (boxed,) = analyser([picture], 0, TIMES_S[:1], box, float(aspect))
        np.testing.assert_array_equal(boxed.landmarks, shot.landmarks)


def dubbed(frames: list[Picture], shot: ShotAnalysis, renderer: str, gap: float) -> tuple[list[Picture], Any]:
    """The frames with a mouth that is opened further by `gap`, and the opacities of the crops."""
    mixer = tiny.reference_mixer() if renderer == "mixer" else None
    values = RenderSettings.model_validate({"precision": "float32", "renderer": renderer})
    pipeline = LandmarksToFrames(tiny.latent_denoiser(), tiny.autoencoder(), values, CROP, mixer=mixer)
    canonical = geometry.fit_pose(shot.landmarks).to_canonical(shot.landmarks)
    lower = topology.lower_face()
    targets = canonical[:, lower].astype(np.float32)
    moving = (canonical[:, lower, 1] > canonical[:, [topology.LOWER_LIP_MIDDLE], 1] - 0.02)[..., None]
    targets = targets + np.float32(gap) * moving * np.array([0, 1, 0], np.float32)
    every = range(len(frames))
    painted = list(pipeline(frames, every, np.ones(len(frames), np.float32), shot, targets, 0))
    return painted, [pipeline.mask(shot, number) for number in every]


@pytest.mark.parametrize("renderer", ["warp", "diffusion", "mixer"])
@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(1, 2), Fraction(64, 45), Fraction(2)])
def test_the_dub_is_shown_as_that_of_square_pixels(
    analyser: VideoAnalyser, frames: list[Picture], square: ShotAnalysis, aspect: Fraction, renderer: str
) -> None:
    squeezed = [stored(frame, aspect) for frame in frames]
    (shot,) = analyser(squeezed, 0, TIMES_S, "largest", float(aspect))
    ours, masks = dubbed(squeezed, shot, renderer, 0.1)
    theirs, _ = dubbed(frames, square, renderer, 0.1)
    rows, columns = np.mgrid[:SIDE, : squeezed[0].shape[1]]
    shown = np.stack([float(aspect) * (columns + 0.5) - 0.5, rows], axis=-1).reshape(-1, 2).astype(np.float32)
    for number in range(FRAMES):
        changed = (ours[number] != squeezed[number]).any(axis=2)
        x, y = np.floor(apply_transform(shot.crops[number], shown)).astype(int).T
        opaque = np.pad(masks[number] > 0, 2)
        near = [
            opaque[(y + j).clip(-2, CROP) + 2, (x + i).clip(-2, CROP) + 2] for j in (-1, 0, 1, 2) for i in (-1, 0, 1, 2)
        ]
        inside = np.any(near, axis=0).reshape(rows.shape)
        # To the bit: no pixel differs from the source's but where the mask lies as a player shows it.
        assert not changed[~inside].any()
        assert changed[inside].mean() > 0.3
        there = (theirs[number] != frames[number]).any(axis=2)
        picture = resized(ours[number], SIDE, SIDE).astype(int)
        plain = np.abs(resized(squeezed[number], SIDE, SIDE).astype(int) - frames[number])[there].mean()
        # What resizing loses anyway, and little more; what the mouth's opening changes is 12 levels and more.
        assert np.abs(picture - theirs[number])[there].mean() < plain + 2.5
