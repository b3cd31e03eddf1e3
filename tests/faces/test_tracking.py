"""Which face is followed: chosen once a shot, lost and found again, or pointed at."""

import re
from collections.abc import Callable
from contextlib import nullcontext
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


def tracker_of(
    faces_at: Callable[[int], Faces], choice: str = "largest", frames: range = range(100), rate: float = 10
) -> tuple[FaceTracker, Any]:
    detector = Detector(faces_at)
    return FaceTracker(detector, FaceChoice.parse(choice), np.array(frames) / rate), detector  # type: ignore[arg-type]


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


@pytest.mark.parametrize("choice", ["point:700,100@0.3", "box:690,90,710,110@0.3"])
def test_a_place_where_nobody_is_ends_with_where_faces_are(choice: str) -> None:
    tracker, _ = tracker_of(lambda frame: [face_at(100), face_at(400)], choice)
    # From 0.3 s on it is looked for; a frame half a second later is the last of them.
    assert walk(tracker, range(9)) == [None] * 9
    places = ", ".join(f"({x:.0f}, {y:.0f})" for x, y in map(face_center, (face_at(100), face_at(400))))
    text = f"face: there is no face at (700, 100) at 0.3 s; faces are at {places}"
    with pytest.raises(InputError, match=re.escape(text) + "$") as error:
        walk(tracker, range(9, 10))
    assert type(error.value) is InputError


def test_a_place_without_any_face_around_says_that() -> None:
    tracker, detector = tracker_of(lambda frame: [], "point:700,100@0.3")
    walk(tracker, range(9))
    with pytest.raises(InputError, match=r"no face at \(700, 100\) at 0.3 s; nor anywhere else from then to 0.8 s$"):
        walk(tracker, range(9, 10))
    assert detector.searched[-6:] == [3, 4, 5, 6, 7, 8]


def test_a_face_that_the_detector_misses_for_a_moment_is_the_one() -> None:
    tracker, _ = tracker_of(
        lambda frame: [face_at(100)] if frame < 6 else [face_at(100), face_at(400)], "point:400,90@0.3"
    )
    assert walk(tracker, range(20)) == [None] * 6 + [400] * 14


def test_the_end_comes_before_the_place_was_looked_at_for_long() -> None:
    tracker, _ = tracker_of(lambda frame: [face_at(100)], "point:400,100@0.3", range(5))
    walk(tracker, range(5))
    with pytest.raises(InputError, match="there is no face at"):
        tracker.finish()


def test_a_place_of_another_stretch_is_not_missed() -> None:
    for choice in ("point:400,100@9", "point:400,100@0.85"):
        tracker, _ = tracker_of(lambda frame: [face_at(100)], choice, range(10, 20))
        assert walk(tracker, range(10, 20)) == [None] * 10
        tracker.finish()


def test_a_time_between_two_stretches_is_the_later_ones() -> None:
    for frames, misses in ((range(10), False), (range(10, 20), True)):
        tracker, _ = tracker_of(lambda frame: [face_at(100)], "point:400,100@0.95", frames)
        with pytest.raises(InputError) if misses else nullcontext():
            walk(tracker, frames)


def test_a_picture_is_there_at_any_time() -> None:
    tracker, _ = tracker_of(lambda frame: [face_at(100)], "point:400,100@3", range(1))
    walk(tracker, range(1))
    with pytest.raises(InputError, match="there is no face at"):
        tracker.finish()


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
