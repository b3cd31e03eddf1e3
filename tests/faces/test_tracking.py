"""Which face is followed: chosen once a shot, lost and found again, or pointed at."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.errors import InputError
from dreamhead.faces.detection import face_center
from dreamhead.faces.tracking import SEARCH_EVERY, FaceChoice, FaceTracker
from tests.toy_faces import canonical_face, posed

Faces = list[NDArray[np.float32]]


class Detector:
    """A stand-in that is told what is in each frame: an image is its number."""

    def __init__(self, faces_at: Callable[[int], Faces]) -> None:
        self._faces_at = faces_at
        self.searched: list[int] = []
        self.followed: list[int] = []

    def find(self, image: NDArray[np.uint8]) -> Faces:
        self.searched.append(int(image[0]))
        return self._faces_at(int(image[0]))

    def follow(self, image: NDArray[np.uint8], previous: NDArray[np.float32]) -> NDArray[np.float32] | None:
        self.followed.append(int(image[0]))
        near = [
            face
            for face in self._faces_at(int(image[0]))
            if np.linalg.norm(face_center(face) - face_center(previous)) < 20
        ]
        return near[0] if near else None


def face_at(x: float, size: float = 30) -> NDArray[np.float32]:
    return posed(canonical_face(), size, (x, 100))


def walk(tracker: FaceTracker, frames: range, rate: float = 10) -> list[float | None]:
    """x of the face that is given in each frame."""
    found: list[float | None] = []
    for number in frames:
        face = tracker(np.array([number], np.uint8), number / rate)
        found.append(None if face is None else round(float(face_center(face)[0])))
    return found


def tracker_of(faces_at: Callable[[int], Faces], choice: str = "largest") -> tuple[FaceTracker, Any]:
    detector = Detector(faces_at)
    return FaceTracker(detector, FaceChoice.parse(choice)), detector  # type: ignore[arg-type]


def test_one_search_then_the_face_is_followed() -> None:
    tracker, detector = tracker_of(lambda frame: [face_at(100 + 5 * frame), face_at(400)])
    assert walk(tracker, range(4)) == [100, 105, 110, 115]
    assert (detector.searched, detector.followed) == ([0], [1, 2, 3])


def test_the_chosen_face_is_kept_though_another_grows_larger() -> None:
    tracker, _ = tracker_of(lambda frame: [face_at(100), face_at(400)][:: 1 if frame < 4 else -1])
    assert walk(tracker, range(8)) == [100] * 8


def test_a_cut_begins_anew() -> None:
    tracker, detector = tracker_of(lambda frame: [face_at(100 if frame < 3 else 300)])
    assert walk(tracker, range(3)) == [100] * 3
    tracker.start_shot()
    assert walk(tracker, range(3, 5)) == [300, 300]
    assert detector.searched == [0, 3]


def test_a_face_that_is_lost_is_searched_for_at_once_and_then_now_and_again() -> None:
    tracker, detector = tracker_of(lambda frame: [face_at(100)] if frame < 2 or frame > 9 else [])
    found = walk(tracker, range(16))
    assert found[:2] == [100, 100]
    assert found[2:10] == [None] * 8
    assert detector.searched == [0, 2, 2 + SEARCH_EVERY, 2 + 2 * SEARCH_EVERY]
    assert found[12:] == [100] * 4


def test_a_face_that_jumps_is_found_in_the_same_frame() -> None:
    tracker, _ = tracker_of(lambda frame: [face_at(100 if frame < 3 else 300)])
    assert walk(tracker, range(5)) == [100, 100, 100, 300, 300]


def test_a_point_at_a_time_switches_the_face() -> None:
    both = [face_at(100, 40), face_at(400)]
    tracker, detector = tracker_of(lambda frame: both, f"point:400,{face_center(both[1])[1]:.0f}@0.3")
    assert walk(tracker, range(6))[3:] == [400] * 3
    assert 3 in detector.searched


def test_only_a_face_near_the_place_will_do() -> None:
    tracker, _ = tracker_of(lambda frame: [face_at(100)], "point:400,100@0")
    assert walk(tracker, range(3)) == [None] * 3


def test_a_box_means_its_middle() -> None:
    assert FaceChoice.parse("box:10,20,30,60@1.5") == FaceChoice((20.0, 40.0), 1.5, (10.0, 20.0, 30.0, 60.0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", FaceChoice()),
        ("largest", FaceChoice()),
        ("point:12,34.5@0", FaceChoice((12.0, 34.5), 0.0)),
        ("point:0.5,7@12.25", FaceChoice((0.5, 7.0), 12.25)),
    ],
)
def test_choices_are_read(text: str, expected: FaceChoice) -> None:
    assert FaceChoice.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["smallest", "point:1,2", "point:1@2", "point:-1,2@0", "box:1,2,3@4", "point:1,2@3 ", "box:1,2,3,4,5@6"]
)
def test_other_choices_are_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="largest, point:x,y@seconds or box:x0,y0,x1,y1@seconds") as error:
        FaceChoice.parse(text)
    assert repr(text) in str(error.value)
