"""Find faces in a picture: 478 dense landmarks each, by MediaPipe's Face Landmarker."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from dreamhead.faces import geometry, topology

if TYPE_CHECKING:
    from mediapipe.tasks.python import vision

LANDMARKS = 478
MOST_FACES = 8
# The detector looks at 128x128 pixels: a face smaller than about a tenth of what it is shown is not seen.
TILE_SHARES = (1.0, 0.5, 0.3)
UPSIDE_DOWN_SHARES = (1.0, 0.5)
# A face is looked at again in a grey square so many times its size: the detector needs something around a face, and a
# mesh that was laid upright over an upside-down one, on the forehead, still has the whole face within it.
DOUBT_SHARE = 2.5
# Two meshes whose points are this share of their size apart on average are the same face seen twice.
SAME_FACE = 0.09
# A face that is seen in one quarter turn only, in sunglasses say, is believed where its rigid points fit this well.
LONE_MISFIT = 0.08
SAME_ROLL_DEG = 30.0
# No head turns this far from one frame to the next; a mesh that does has been laid upside down.
MOST_ROLL_DEG = 60.0


class FaceDetector:
    """MediaPipe's Face Landmarker on still pictures; close it when done, or use it in a `with`.

    Args:
        model: path of `face_landmarker.task`.
    """

    def __init__(self, model: Path) -> None:
        with _quiet_start():
            self._many = _landmarker(model, MOST_FACES)
            self._one = _landmarker(model, 1)
            for landmarker in (self._many, self._one):
                _detect(landmarker, np.zeros((64, 64, 3), np.uint8), 0, 0)

    def find(self, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """All faces of the coarsest scale that shows any, largest first, each the right way up whatever its roll.

        Small faces in large, tall or wide pictures are looked for in square tiles. A face whose way up is in doubt
        is none.

        Args:
            image: uint8 (H, W, 3) RGB.

        Returns:
            float32 (478, 3) each: x, y in pixels, z in the same scale, smaller is nearer.
        """
        for turns, faces in self._looks(image):
            once = _without_doubles(sorted(faces, key=face_size, reverse=True))
            believed = [face for face in (self._believed(image, face, turns) for face in once) if face is not None]
            if believed:
                return _without_doubles(sorted(believed, key=face_size, reverse=True))
        return []

    def follow(self, image: NDArray[np.uint8], previous: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The face that was at `previous` one frame ago, or None.

        Args:
            image: uint8 (H, W, 3) RGB.
            previous: float32 (478, 3) in pixels.
        """
        height, width = image.shape[:2]
        center, side = face_center(previous), 2.0 * face_size(previous)
        left, top = (int(max(0, value - side / 2)) for value in center)
        right, bottom = int(min(width, center[0] + side / 2)), int(min(height, center[1] + side / 2))
        if right - left < 16 or bottom - top < 16:
            return None
        before = roll_deg(previous)
        # Quarter turns keep the pixels as they are, and bring the face to within what the detector tells upright from
        # upside down.
        found = _detect_turned(self._one, image[top:bottom, left:right], left, top, round(before / 90))
        if not found or np.linalg.norm(face_center(found[0]) - center) > 0.5 * face_size(previous):
            return None
        if abs(_turned_by(before, roll_deg(found[0]))) > MOST_ROLL_DEG:
            return None
        return found[0]

    def _looks(self, image: NDArray[np.uint8]) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
        """What is seen at each scale from the coarsest on, then likewise after two quarter turns; and the turns."""
        height, width = image.shape[:2]
        for turns, shares in ((0, TILE_SHARES), (2, UPSIDE_DOWN_SHARES)):
            yield turns, _detect_turned(self._many, image, 0, 0, turns)
            for share in shares:
                faces = []
                for left, top, side in _tiles(width, height, share):
                    tile = image[top : top + side, left : left + side]
                    faces += _detect_turned(self._many, tile, left, top, turns)
                yield turns, faces

    def _believed(self, image: NDArray[np.uint8], face: NDArray[np.float32], turns: int) -> NDArray[np.float32] | None:
        """A face that was seen after so many quarter turns, the right way up; None where that is in doubt.

        The detector lays an upright mesh over many an upside-down face. It does so in one or two of the four turns
        and fits such a mesh worse; what is seen in most turns is believed.
        """
        around, left, top = _around(image, face)

        def again(more: int) -> list[NDArray[np.float32]]:
            return _detect_turned(self._one, around, left, top, turns + more)

        seen = again(2)
        is_doubted = bool(seen) and _misfit(seen[0]) < _misfit(face)
        is_lone = not seen and _misfit(face) < LONE_MISFIT
        for more in (1, 3):
            found = again(more)
            if found and not is_doubted and _is_same(face, found[0]):
                return face
            seen += found
        best = _elected([face, *seen])
        if best is None:
            return face if is_lone else None
        return face if abs(_turned_by(roll_deg(face), roll_deg(best))) < SAME_ROLL_DEG else best

    def close(self) -> None:
        """Free the graphs; nothing else does."""
        self._many.close()
        self._one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Hold back what MediaPipe's C++ writes to stderr at start, which no variable or flag of its turns off.

    When the start fails, all that was held back is shown.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except RuntimeError:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def face_center(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """(2,) middle of the face's box, in pixels."""
    points = landmarks[:, :2].astype(np.float64)
    middle: NDArray[np.float64] = (points.min(axis=0) + points.max(axis=0)) / 2
    return middle


def face_size(landmarks: NDArray[np.float32]) -> float:
    """Longer side of the face's box, in pixels."""
    return float(np.ptp(landmarks[:, :2], axis=0).max())


def roll_deg(landmarks: NDArray[np.float32]) -> float:
    """How far a face is turned in the picture's plane, -180 to 180 degrees, clockwise as seen; 0 is upright."""
    rotation = geometry.fit_pose(landmarks[None]).rotation[0]
    return float(np.degrees(np.arctan2(rotation[0, 1] - rotation[1, 0], rotation[0, 0] + rotation[1, 1])))


def _turned_by(before_deg: float, after_deg: float) -> float:
    """Degrees from one roll to another, the short way."""
    return (after_deg - before_deg + 180) % 360 - 180


def _around(image: NDArray[np.uint8], face: NDArray[np.float32]) -> tuple[NDArray[np.uint8], int, int]:
    """The square around a face, grey beyond the picture's edge; and its left and top."""
    height, width = image.shape[:2]
    side = int(DOUBT_SHARE * face_size(face))
    left, top = (int(value - side / 2) for value in face_center(face))
    square = np.full((side, side, 3), 128, np.uint8)
    rows, columns = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    part = image[rows, columns]
    square[rows.start - top :, columns.start - left :][: part.shape[0], : part.shape[1]] = part
    return square, left, top


def _misfit(face: NDArray[np.float32]) -> float:
    """How far, in eye distances, a face's rigid points are from the mean face's."""
    rigid = list(topology.RIGID)
    there = geometry.fit_pose(face[None]).to_canonical(face[None])[0, rigid]
    off: NDArray[np.float64] = ((there - topology.face_model().canonical[rigid]) ** 2).sum(axis=1)
    return float(np.sqrt(off.mean()))


def _is_same(face: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    apart = np.linalg.norm(face[:, :2] - other[:, :2], axis=1).mean()
    return bool(apart < SAME_FACE * (face_size(face) + face_size(other)) / 2)


def _elected(faces: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    """The face that most agree on, of two that as many do the better fitting; None where no two agree."""
    groups: list[list[NDArray[np.float32]]] = []
    for face in faces:
        group = next((group for group in groups if _is_same(group[0], face)), None)
        if group is None:
            groups.append([face])
        else:
            group.append(face)
    best = min(groups, key=lambda group: (-len(group), np.mean([_misfit(face) for face in group])))
    return min(best, key=_misfit) if len(best) > 1 else None


@lru_cache
def _landmarker_class() -> type[Any]:
    """MediaPipe's without its destructor.

    That one waits for a thread of its own, which has ended by the time that the garbage collector calls it: whatever
    thread happened to collect would hang for ever.
    """
    from mediapipe.tasks.python import vision

    class Landmarker(vision.FaceLandmarker):  # type: ignore[misc]
        def __del__(self) -> None:
            """Leave the graph: `close` frees it."""

    return Landmarker


def _landmarker(model: Path, faces: int) -> "vision.FaceLandmarker":
    # MediaPipe is there where faces are looked for, and nowhere else.
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(model)), num_faces=faces)
    landmarker = vision.FaceLandmarker.create_from_options(options)
    # Its factory makes none of a subclass.
    landmarker.__class__ = _landmarker_class()
    return landmarker


def _detect(
    landmarker: "vision.FaceLandmarker", image: NDArray[np.uint8], left: int, top: int
) -> list[NDArray[np.float32]]:
    import mediapipe as mp

    height, width = image.shape[:2]
    result = landmarker.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image)))
    # MediaPipe gives x and z as shares of the width and y as a share of the height.
    scale, offset = np.array([width, height, width], np.float32), np.array([left, top, 0], np.float32)
    return [
        np.array([(point.x, point.y, point.z) for point in face], np.float32) * scale + offset
        for face in result.face_landmarks
    ]


def _detect_turned(
    landmarker: "vision.FaceLandmarker", image: NDArray[np.uint8], left: int, top: int, turns: int
) -> list[NDArray[np.float32]]:
    """As `_detect`, on the picture after so many quarter turns counter-clockwise."""
    height, width = image.shape[:2]
    if turns % 4 == 0:
        return _detect(landmarker, image, left, top)
    found = _detect(landmarker, np.rot90(image, turns), 0, 0)
    for face in found:
        x, y = face[:, 0].copy(), face[:, 1].copy()
        back = {1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[turns % 4]
        face[:, 0], face[:, 1] = back[0] + left, back[1] + top
    return found


def _tiles(width: int, height: int, share: float) -> Iterator[tuple[int, int, int]]:
    """(left, top, side) of square tiles that overlap by half and cover the picture."""
    side = max(16, int(min(width, height) * share))
    for top in _steps(height, side):
        for left in _steps(width, side):
            yield left, top, side


def _steps(length: int, side: int) -> list[int]:
    count = max(1, int(np.ceil((length - side) / (side / 2))) + 1)
    return sorted({int(value) for value in np.linspace(0, length - side, count)})


def _without_doubles(faces: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Overlapping tiles see a face twice: keep the first of those whose centres nearly coincide."""
    kept: list[NDArray[np.float32]] = []
    for face in faces:
        if all(np.linalg.norm(face_center(face) - face_center(other)) > 0.4 * face_size(other) for other in kept):
            kept.append(face)
    return kept
