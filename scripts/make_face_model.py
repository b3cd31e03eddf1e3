"""Make dreamhead/faces/face_model.npz: mean face, mesh triangles and left-right pairs.

    python scripts/make_face_model.py LANDMARKS.npz ...

Each input holds `landmarks`, float32 (T, 478, 3) in pixels, of one clip. The mean face is the generalised Procrustes
mean of the clips' resting shapes, made symmetric, with the irises one unit apart.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarksConnections
from numpy.typing import NDArray

from dreamhead.faces import geometry, topology

TARGET = Path(topology.__file__).with_name("face_model.npz")


def mesh_triangles() -> NDArray[np.uint16]:
    """(F, 3) cliques of MediaPipe's tessellation, which leaves the mouth open."""
    neighbours: dict[int, set[int]] = {}
    for edge in FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION:
        neighbours.setdefault(edge.start, set()).add(edge.end)
        neighbours.setdefault(edge.end, set()).add(edge.start)
    found = {
        tuple(sorted((corner, first, second)))
        for corner, near in neighbours.items()
        for first, second in combinations(near, 2)
        if second in neighbours[first]
    }
    return np.array(sorted(found), np.uint16)


def resting_shape(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """(478, 3) mean of the clip's frames with the mouth most shut, each fitted to the first of them."""
    landmarks = landmarks[~np.isnan(landmarks[:, 0, 0])].astype(np.float64)
    opening = np.linalg.norm(landmarks[:, 13] - landmarks[:, 14], axis=-1)
    shut = landmarks[opening <= np.quantile(opening, 0.2)]
    return geometry.align(shut, shut[0], topology.RIGID).mean(axis=0)


def flip_pairs(face: NDArray[np.float64]) -> NDArray[np.uint16]:
    """(478,) index of each point's mirror image on a nearly symmetric face."""
    mirrored = face * [-1, 1, 1]
    distance = np.linalg.norm(mirrored[:, None] - face[None], axis=-1)
    pairs = distance.argmin(axis=1)
    if not np.array_equal(pairs[pairs], np.arange(len(face))):
        raise SystemExit("the mean face isn't symmetric enough to pair its points")
    return pairs.astype(np.uint16)


def unit(face: NDArray[np.float64]) -> NDArray[np.float64]:
    """The face upright, centred between its irises, one unit apart: x to the picture's right, y down."""
    right, left = face[468], face[473]
    x = (left - right) / np.linalg.norm(left - right)
    down = face[152] - face[10]
    y = down - x * (down @ x)
    y /= np.linalg.norm(y)
    axes = np.stack([x, y, np.cross(x, y)])
    return (face - (right + left) / 2) @ axes.T / np.linalg.norm(left - right)


def main(paths: list[str]) -> None:
    """Write the model from the clips' landmarks."""
    shapes = np.stack([resting_shape(np.load(path)["landmarks"]) for path in paths])
    mean = unit(shapes[0])
    for _ in range(10):
        mean = unit(geometry.align(shapes, mean, np.arange(468)).mean(axis=0))
    pairs = flip_pairs(mean)
    mean = unit((mean + (mean * [-1, 1, 1])[pairs]) / 2)
    np.savez(TARGET, canonical=mean.astype(np.float32), triangles=mesh_triangles(), flip=pairs)


if __name__ == "__main__":
    main(sys.argv[1:])
