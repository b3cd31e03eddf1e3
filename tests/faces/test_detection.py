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
from dreamhead.faces.detection import LANDMARKS, FaceDetector, _steps, _without_doubles, face_center, face_size
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
