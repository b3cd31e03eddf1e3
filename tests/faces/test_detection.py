"""The real detector on a real portrait: found as it is, small in a tall frame, and again a frame later."""

import gc
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.faces import geometry
from dreamhead.faces.detection import (
    LANDMARKS,
    FaceDetector,
    _detect,
    _detect_turned,
    _steps,
    _without_doubles,
    face_center,
    face_size,
    roll_deg,
)
from tests.toy_faces import astronaut, canonical_face, posed


@pytest.fixture(scope="module")
def detector() -> Iterator[FaceDetector]:
    with FaceDetector(pretrained.face_landmarker()) as detector:
        yield detector


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    return astronaut()


def test_a_portrait_is_found(detector: FaceDetector, portrait: NDArray[np.uint8]) -> None:
    (face,) = detector.find(portrait)
    assert face.shape == (LANDMARKS, 3)
    assert face.dtype == np.float32
    np.testing.assert_allclose(face_center(face), (225, 125), atol=5)
    assert face_size(face) == pytest.approx(105, rel=0.05)
    # Held against the mean face it is a face, not a cloud: the rigid points agree to a few hundredths.
    pose = geometry.fit_pose(face[None])
    rest = pose.to_canonical(face[None])[0] - canonical_face()
    assert np.sqrt((rest[:468] ** 2).sum(axis=1)).mean() < 0.2
    assert abs(pose.yaw_deg()[0]) < 30


def test_an_empty_picture_has_no_face(detector: FaceDetector) -> None:
    assert detector.find(np.full((200, 160, 3), 90, np.uint8)) == []


def test_a_small_face_in_a_tall_frame_is_found_in_tiles(detector: FaceDetector, portrait: NDArray[np.uint8]) -> None:
    tall = np.full((1920, 1080, 3), 128, np.uint8)
    tall[1000:1480, 300:780] = cv2.resize(portrait, (480, 480), interpolation=cv2.INTER_AREA)
    (alone,) = detector.find(portrait)
    (face,) = detector.find(tall)
    scale = 480 / 512
    np.testing.assert_allclose(face_center(face), face_center(alone) * scale + (300, 1000), atol=4)
    assert face_size(face) == pytest.approx(face_size(alone) * scale, rel=0.06)
    moved = detector.follow(np.roll(tall, (4, -6), (0, 1)), face)
    assert moved is not None
    np.testing.assert_allclose(face_center(moved) - face_center(face), (-6, 4), atol=2)


def test_two_faces_come_largest_first(detector: FaceDetector, portrait: NDArray[np.uint8]) -> None:
    head = portrait[:260, 90:350]
    pair = np.full((300, 640, 3), 128, np.uint8)
    pair[20:220, 20:220] = cv2.resize(head, (200, 200), interpolation=cv2.INTER_AREA)
    pair[20:280, 340:600] = head
    faces = detector.find(pair)
    assert [face_center(face)[0] > 300 for face in faces] == [True, False]


def test_following_gives_up_where_nobody_is(detector: FaceDetector, portrait: NDArray[np.uint8]) -> None:
    (face,) = detector.find(portrait)
    assert detector.follow(np.full_like(portrait, 128), face) is None
    assert detector.follow(portrait, face + np.array([5000, 0, 0], np.float32)) is None


def test_tiles_cover_and_overlap_by_half() -> None:
    steps = _steps(1920, 540)
    assert steps[0] == 0
    assert steps[-1] == 1920 - 540
    assert np.diff(steps).max() <= 270
    assert _steps(100, 100) == [0]


def test_a_face_in_two_tiles_is_one() -> None:
    face = posed(canonical_face())
    other = face + np.array([300, 0, 0], np.float32)
    assert len(_without_doubles([face, face + np.float32(2), other])) == 2


def test_one_that_nobody_closed_holds_nobody_up_when_it_is_collected() -> None:
    forgotten = FaceDetector(pretrained.face_landmarker())
    # Only the garbage collector frees what refers to itself.
    forgotten.itself = forgotten  # type: ignore[attr-defined]
    del forgotten
    collecting = threading.Thread(target=gc.collect, daemon=True)
    collecting.start()
    collecting.join(20)
    assert not collecting.is_alive()


def turned(image: NDArray[np.uint8], degrees: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A picture turned clockwise about its middle on a grey square that holds all of it, and the (2, 3) that did it."""
    height, width = image.shape[:2]
    side = int(np.hypot(height, width)) + 2
    way = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    way[:, 2] += (side - width) / 2, (side - height) / 2
    return np.asarray(cv2.warpAffine(image, way, (side, side), borderValue=(110, 110, 110)), np.uint8), way


@pytest.mark.parametrize("degrees", range(-165, 181, 15))
def test_a_face_is_the_right_way_up_at_any_roll(
    detector: FaceDetector, portrait: NDArray[np.uint8], degrees: int
) -> None:
    (upright,) = detector.find(portrait)
    picture, way = turned(portrait, degrees)
    expected = upright[:, :2] @ way[:, :2].T + way[:, 2]
    (face,) = detector.find(picture)
    assert np.linalg.norm(face[:, :2] - expected, axis=1).mean() < 0.06 * face_size(upright)
    assert abs((roll_deg(face) - roll_deg(upright) - degrees + 180) % 360 - 180) < 12
    followed = detector.follow(np.roll(picture, (3, -4), (0, 1)), face)
    assert followed is not None
    assert np.linalg.norm(followed[:, :2] - expected - (-4, 3), axis=1).mean() < 0.06 * face_size(upright)
    # Depth stays in the scale of x: the head is turned in the picture's plane only.
    assert np.ptp(followed[:, 2]) == pytest.approx(np.ptp(upright[:, 2]), rel=0.3)


def test_a_head_that_turns_all_the_way_is_followed(detector: FaceDetector, portrait: NDArray[np.uint8]) -> None:
    (face,) = detector.find(turned(portrait, 0)[0])
    for degrees in range(0, 361, 20):
        moved = detector.follow(turned(portrait, degrees)[0], face)
        assert moved is not None
        assert abs((roll_deg(moved) - degrees + 180) % 360 - 180) < 15
        face = moved


def test_a_mesh_that_turns_over_from_one_frame_to_the_next_is_not_believed(
    detector: FaceDetector, portrait: NDArray[np.uint8]
) -> None:
    (face,) = detector.find(portrait)
    over = (2 * face_center(face)).astype(np.float32)
    upside_down = np.concatenate([over - face[:, :2], face[:, 2:]], axis=1)
    found = detector.follow(portrait, upside_down)
    assert found is None or abs(abs(roll_deg(found)) - 180) < 60


def test_of_upright_faces_nothing_changes_on_the_way(detector: FaceDetector, portrait: NDArray[np.uint8]) -> None:
    (face,) = detector.find(portrait)
    (as_seen,) = _detect(detector._many, portrait, 0, 0)
    np.testing.assert_array_equal(face, as_seen)


@pytest.mark.parametrize("turns", range(-4, 8))
def test_what_is_found_after_quarter_turns_is_turned_back(
    detector: FaceDetector, portrait: NDArray[np.uint8], turns: int
) -> None:
    wide = portrait[20:320, 40:480]
    (straight,) = _detect_turned(detector._one, wide, 40, 20, 0)
    (back,) = _detect_turned(detector._one, np.ascontiguousarray(np.rot90(wide, -turns)), 0, 0, turns)
    height, width = wide.shape[:2]
    x, y = back[:, 0], back[:, 1]
    # In the picture that was turned clockwise, a point lies where that turn has moved it.
    expected = {
        0: (straight[:, 0] - 40, straight[:, 1] - 20),
        1: (height - (straight[:, 1] - 20), straight[:, 0] - 40),
        2: (width - (straight[:, 0] - 40), height - (straight[:, 1] - 20)),
        3: (straight[:, 1] - 20, width - (straight[:, 0] - 40)),
    }[turns % 4]
    np.testing.assert_allclose(np.stack([x, y]), np.stack(expected), atol=1e-3)
    np.testing.assert_allclose(back[:, 2], straight[:, 2], atol=1e-3)
