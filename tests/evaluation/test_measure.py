"""What is measured of a clip's pixels: flicker and not motion, and detail at the frame's own resolution."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.evaluation.measure import Pair, PixelMeter, close_up, mouth_window
from dreamhead.evaluation.metrics import fine_detail
from dreamhead.faces import topology
from dreamhead.faces.detection import FaceDetector
from dreamhead.pipelines.example import mouth_region
from tests.toy_faces import canonical_face, posed, texture

Picture = NDArray[np.uint8]
OUTER_LIPS = list(topology.OUTER_LOWER_LIP + topology.OUTER_UPPER_LIP)


@pytest.fixture(scope="module")
def landmarks(speaking_frames: list[Picture]) -> list[NDArray[np.float32]]:
    """(478, 3) of each of the clip's frames."""
    with FaceDetector(pretrained.face_landmarker()) as detector:
        return [detector.find(frame)[0] for frame in speaking_frames]


def pair(ours: Picture, truth: Picture, landmarks: NDArray[np.float32], frame: int, begins: bool = False) -> Pair:
    """A frame that is its own aligned crop."""
    mouth = mouth_region(landmarks, len(truth))
    mask = np.zeros((256, 256), np.float32)
    cv2.circle(mask, (128, 160), 70, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 3) * (mask > 0)
    return Pair(
        frame=frame,
        our_frame=ours,
        true_frame=truth,
        ours=ours,
        truth=truth,
        ours_mouth=mouth,
        true_mouth=mouth,
        mask=mask,
        ours_close=close_up(ours, landmarks),
        true_close=close_up(truth, landmarks),
        begins=begins,
    )


def figures(
    ours: Sequence[Picture], truth: Sequence[Picture], landmarks: Sequence[NDArray[np.float32]], cut: int = -1
) -> dict[str, float]:
    meter = PixelMeter(has_truth=False)
    for frame, parts in enumerate(zip(ours, truth, landmarks, strict=True)):
        meter.add(pair(*parts, frame, begins=frame == cut))
    return meter.figures()


def with_noise(frames: Sequence[Picture], level: float, is_fresh: bool) -> list[Picture]:
    """A clip under grain, which is another in each frame, or the same in all."""
    found = []
    for number, frame in enumerate(frames):
        noise = np.random.default_rng(number if is_fresh else 0).normal(size=(256, 256, 1)).astype(np.float32)
        soft = cv2.GaussianBlur(noise, (0, 0), 3)[..., None]
        found.append(np.clip(frame + level * soft / soft.std(), 0, 255).astype(np.uint8))
    return found


def test_flicker_that_is_added_to_a_clip_is_seen(
    speaking_frames: list[Picture], landmarks: list[NDArray[np.float32]]
) -> None:
    assert figures(speaking_frames, speaking_frames, landmarks)["flicker"] == 1
    brighter = [np.clip(frame + 4.0 * (t % 2), 0, 255).astype(np.uint8) for t, frame in enumerate(speaking_frames)]
    assert figures(brighter, speaking_frames, landmarks)["flicker"] > 1.5
    little, much = (
        figures(with_noise(speaking_frames, level, is_fresh=True), speaking_frames, landmarks)["flicker"]
        for level in (2, 6)
    )
    assert 1.2 < little < much - 0.5
    # Grain that stays where it is doesn't flicker.
    still = figures(with_noise(speaking_frames, 6, is_fresh=False), speaking_frames, landmarks)["flicker"]
    assert still < little


def test_a_still_picture_that_moves_smoothly_doesnt_flicker(
    speaking_frames: list[Picture], landmarks: list[NDArray[np.float32]]
) -> None:
    still = [speaking_frames[0]] * 20
    ways = [np.float32([[1, 0, 1.2 * t], [0, 1, 3 * np.sin(t / 4)]]) for t in range(20)]
    moved = [cv2.warpAffine(still[0], way, (256, 256), borderMode=cv2.BORDER_REFLECT) for way in ways]
    flickering = [np.clip(frame + 4.0 * (t % 2), 0, 255).astype(np.uint8) for t, frame in enumerate(moved)]
    points = [
        np.concatenate([landmarks[0][:, :2] @ way[:, :2].T + way[:, 2], landmarks[0][:, 2:]], axis=1) for way in ways
    ]
    smooth, flicker = (figures(shown, speaking_frames[:20], points)["flicker"] for shown in (moved, flickering))
    unmoved = figures(still, speaking_frames[:20], points)["flicker"]
    assert unmoved < 1e-3
    assert smooth < 0.5 * flicker
    # Without the motion taken out it would be this much.
    raw = np.mean([np.abs(one.astype(float) - other).mean() for one, other in pairwise(moved)])
    assert raw > 4


def test_a_cut_is_no_flicker(speaking_frames: list[Picture], landmarks: list[NDArray[np.float32]]) -> None:
    dark = [frame // 2 if t >= 10 else frame for t, frame in enumerate(speaking_frames)]
    seen = figures(dark, speaking_frames, landmarks)["flicker"]
    known = figures(dark, speaking_frames, landmarks, cut=10)["flicker"]
    assert seen > known + 0.3
    assert known < 1


def test_sharpness_is_that_of_the_frames_own_pixels(
    speaking_frames: list[Picture], landmarks: list[NDArray[np.float32]]
) -> None:
    soft = [cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in speaking_frames]
    assert figures(speaking_frames, speaking_frames, landmarks)["sharpness"] == 1
    assert figures(soft, speaking_frames, landmarks)["sharpness"] < 0.3
    mixed = [cv2.addWeighted(sharp, 0.5, blurred, 0.5, 0) for sharp, blurred in zip(speaking_frames, soft, strict=True)]
    assert 0.3 < figures(mixed, speaking_frames, landmarks)["sharpness"] < 0.8


def test_a_close_up_is_cut_from_the_frame_and_not_scaled() -> None:
    face, frame = posed(canonical_face(0.1)), texture(160, 200)
    picture, mouth = close_up(frame, face)
    outline = face[OUTER_LIPS, :2]
    width = np.ptp(outline[:, 0])
    assert picture.shape == (*mouth.shape, 3) == (*[int(np.ceil(1.5 * width))] * 2, 3)
    columns = np.nonzero(mouth > 0.5)[1]
    left, top = np.floor((outline.min(axis=0) + outline.max(axis=0) - len(mouth)) / 2)
    assert columns.mean() + left == pytest.approx((outline[:, 0].min() + outline[:, 0].max()) / 2, abs=1.5)
    assert np.array_equal(picture, frame[int(top) : int(top) + len(mouth), int(left) : int(left) + len(mouth)])
    large = close_up(np.zeros((480, 600, 3), np.uint8), 3 * face)
    assert len(large.mouth) == pytest.approx(3 * len(mouth), abs=3)


@pytest.mark.parametrize("middle", [(2.0, 80.0), (198.0, 80.0), (100.0, 130.0), (100.0, -40.0)])
def test_a_mouth_at_the_frames_edge_is_seen_as_far_as_it_goes(middle: tuple[float, float]) -> None:
    face, frame = posed(canonical_face(), middle=middle), texture(160, 200)
    picture, mouth = close_up(frame, face)
    assert picture.shape[:2] == mouth.shape
    assert 0 < picture.size < 3 * (1.5 * np.ptp(face[OUTER_LIPS, 0]) + 1) ** 2
    beyond = close_up(frame, posed(canonical_face(), middle=(900.0, 900.0)))
    assert beyond.picture.size == beyond.mouth.size == 0
    assert np.isnan(fine_detail(*beyond))


def test_the_window_is_half_of_the_crop_around_the_mouth() -> None:
    mouth = np.zeros((256, 256), np.float32)
    mouth[170:190, 100:140] = 1
    rows, columns = mouth_window(mouth)
    assert (rows, columns) == (slice(116, 244), slice(56, 184))
    low = np.zeros((256, 256), np.float32)
    low[240:256, 0:20] = 1
    assert mouth_window(low) == (slice(128, 256), slice(0, 128))
