"""Follow one chosen face through a shot."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamhead.errors import InputError
from dreamhead.faces.detection import FaceDetector, face_center, face_size

NUMBER = r"(\d+(?:\.\d+)?)"
POINT = re.compile(rf"point:{NUMBER},{NUMBER}@{NUMBER}")
BOX = re.compile(rf"box:{NUMBER},{NUMBER},{NUMBER},{NUMBER}@{NUMBER}")
# While nobody is there the whole picture is searched again only every so many frames: a search costs many detections.
SEARCH_EVERY = 5
# The detector misses a face now and then: so long after the time that was named the place is looked at.
LOOK_S = 0.5


@dataclass(frozen=True)
class FaceChoice:
    """Which face to dub: the largest, or the one at a place at a time."""

    place: tuple[float, float] | None = None
    """x, y in square pixels of the frame as shown."""
    time_s: float = 0.0
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom, where the place is the middle of a box."""

    @classmethod
    def parse(cls, text: str) -> "FaceChoice":
        """Read `largest`, `point:x,y@t` or `box:x0,y0,x1,y1@t`; raises InputError."""
        if text in ("", "largest"):
            return cls()
        if match := POINT.fullmatch(text):
            x, y, time_s = map(float, match.groups())
            return cls((x, y), time_s)
        if match := BOX.fullmatch(text):
            left, top, right, bottom, time_s = map(float, match.groups())
            if left >= right or top >= bottom:
                raise InputError(f"face: {text!r} is an empty box; x0 < x1 and y0 < y1 are needed")
            return cls(((left + right) / 2, (top + bottom) / 2), time_s, (left, top, right, bottom))
        raise InputError(
            f"face: {text!r} is not allowed; use largest, point:x,y@seconds or box:x0,y0,x1,y1@seconds, "
            "in pixels as shown, no number below 0"
        )


class FaceTracker:
    """Walks frames in order and gives the chosen face of each, or None.

    The face is chosen when it first shows in a shot and followed from there. A place is looked at when its time
    comes: the tracker then switches to the face nearest to it, and keeps looking for that face's place.

    Args:
        times_s: (T,) when each of the frames that come is shown; the place must be found where its time is among them.
    """

    def __init__(self, detector: FaceDetector, choice: FaceChoice, times_s: NDArray[np.float64]) -> None:
        self._detector = detector
        self._choice = choice
        self._previous: NDArray[np.float32] | None = None
        self._missing = 0
        self._chosen = choice.place is None
        # A picture is there at any time.
        self._time_s = min(choice.time_s, float(times_s[0])) if len(times_s) == 1 else choice.time_s
        self._must_find = _falls_among(self._time_s, times_s)
        self._is_looking = False
        self._elsewhere: list[NDArray[np.float32]] = []

    def start_shot(self) -> None:
        """Forget the face: after a cut it may be anywhere."""
        self._previous = None
        self._missing = 0

    def __call__(self, image: NDArray[np.uint8], time_s: float) -> NDArray[np.float32] | None:
        """Landmarks (478, 3) in pixels of the chosen face in this frame, or None.

        Args:
            image: uint8 (H, W, 3) RGB.
            time_s: when the frame is shown.

        Raises:
            InputError: nobody was at the place that was named, for `LOOK_S` from its time on.
        """
        if not self._chosen and time_s >= self._time_s:
            self._chosen = True
            self._is_looking = self._must_find
            self.start_shot()
        if self._is_looking and time_s > self._time_s + LOOK_S:
            self.finish()
        face = self._follow(image) if self._previous is not None else None
        if face is None and (self._is_looking or self._missing % SEARCH_EVERY == 0):
            faces = self._detector.find(image)
            face = self._pick(faces)
            if self._is_looking and face is None:
                self._elsewhere = self._elsewhere or faces
        self._is_looking = self._is_looking and face is None
        self._missing = 0 if face is not None else self._missing + 1
        self._previous = face
        return face

    def finish(self) -> None:
        """Say that no more frames come; raises InputError where the place is still being looked for."""
        if self._is_looking:
            assert self._choice.place is not None
            place, time_s = _as_place(self._choice.place), self._choice.time_s
            where = ", ".join(_as_place(face_center(face)) for face in self._elsewhere)
            others = f"faces are at {where}" if where else f"nor anywhere else from then to {time_s + LOOK_S:g} s"
            raise InputError(f"face: there is no face at {place} at {time_s:g} s; {others}")

    def _follow(self, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        assert self._previous is not None
        return self._detector.follow(image, self._previous)

    def _pick(self, faces: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        if not faces:
            return None
        place = self._choice.place
        if place is None:
            return faces[0]
        nearest = min(faces, key=lambda face: float(np.linalg.norm(face_center(face) - place)))
        # Somebody else far from the place that was named must not be dubbed in the chosen one's stead.
        return nearest if np.linalg.norm(face_center(nearest) - place) < face_size(nearest) else None


def _falls_among(time_s: float, times_s: NDArray[np.float64]) -> bool:
    """Whether a time is that of one of the frames, or lies between two of them or just before the first."""
    if not len(times_s):
        return False
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else np.inf
    return bool(times_s[0] - 0.99 * step < time_s <= times_s[-1])


def _as_place(place: "tuple[float, float] | NDArray[np.float64]") -> str:
    return f"({round(float(place[0]))}, {round(float(place[1]))})"
