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

if TYPE_CHECKING:
    from mediapipe.tasks.python import vision

LANDMARKS = 478
MOST_FACES = 8
# The detector looks at 128x128 pixels: a face smaller than about a tenth of what it is shown is not seen.
TILE_SHARES = (1.0, 0.5, 0.3)


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
        """All faces of the coarsest scale that shows any, largest first.

        Small faces in large, tall or wide pictures are looked for in square tiles.

        Args:
            image: uint8 (H, W, 3) RGB.

        Returns:
            float32 (478, 3) each: x, y in pixels, z in the same scale, smaller is nearer.
        """
        height, width = image.shape[:2]
        faces = _detect(self._many, image, 0, 0)
        for share in TILE_SHARES:
            if faces:
                break
            for left, top, side in _tiles(width, height, share):
                faces += _detect(self._many, image[top : top + side, left : left + side], left, top)
        return _without_doubles(sorted(faces, key=face_size, reverse=True))

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
        found = _detect(self._one, image[top:bottom, left:right], left, top)
        if not found or np.linalg.norm(face_center(found[0]) - center) > 0.5 * face_size(previous):
            return None
        return found[0]

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
