"""Move a picture along its landmarks: what stood at one face's points comes to stand at another's."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology

# Points around the face that stay where they are, as multiples of the oval's distance from the face's middle.
RIM = 1.35
STRETCH_LIMIT = 3.0


class Displacement(NamedTuple):
    """Where each pixel of the warped picture comes from."""

    source: NDArray[np.float32]
    """(S, S, 2) x, y in pixels of the picture that is warped."""
    stretch: NDArray[np.float32]
    """(S, S) log2 of how much larger the pixel's triangle became, limited to +-3; 0 where nothing moves."""


def displacement(source: NDArray[np.float32], target: NDArray[np.float32], size: int) -> Displacement:
    """Field that is linear over each triangle of the face's mesh and fades to zero outside the face.

    Args:
        source: (478, 3) landmarks of the picture to be warped, pixels of the crop.
        target: (478, 3) landmarks that it shall have.
        size: S, side of the crop.
    """
    triangles = mesh()
    start, end = _with_rim(source, target)
    moved = np.abs(start - end).max(axis=1)[triangles].max(axis=1) > 1e-3
    # Far triangles first: where the turned cheek folds over itself, the near side is what is seen.
    depth = end[triangles, 2].mean(axis=1)
    order = np.argsort(-depth)
    order = order[moved[order]]
    chosen = triangles[order]
    affine, growth = _affine(start[chosen, :2], end[chosen, :2])
    index = _rasterise(end[chosen, :2], size)
    return _field(affine, growth, index, size)


def warp(image: NDArray[np.uint8], field: Displacement) -> NDArray[np.uint8]:
    """The (S, S, 3) picture moved along the field."""
    x, y = field.source[..., 0], field.source[..., 1]
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def mesh() -> NDArray[np.int64]:
    """Triangles of the face and of the ring from its oval to the rim, whose points are numbered from 478."""
    oval = np.array(topology.FACE_OVAL)
    count = len(oval)
    here, there = np.arange(count), (np.arange(count) + 1) % count
    ring = np.concatenate(
        [
            np.stack([oval[here], oval[there], 478 + here], axis=1),
            np.stack([oval[there], 478 + there, 478 + here], axis=1),
        ]
    )
    return np.concatenate([topology.face_model().triangles.astype(np.int64), ring])


def _with_rim(
    source: NDArray[np.float32], target: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both point sets with the rim's points added, which are the same in both."""
    first, second = (points[list(topology.FACE_OVAL)].astype(np.float64) for points in (source, target))
    middle = (first.mean(axis=0) + second.mean(axis=0)) / 2
    reach = np.maximum.reduce([np.linalg.norm(points[:, :2] - middle[:2], axis=1) for points in (first, second)])
    direction = second[:, :2] - middle[:2]
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-6)
    rim = np.concatenate([middle[:2] + direction * (RIM * reach)[:, None], second[:, 2:]], axis=1)
    return np.concatenate([source, rim]), np.concatenate([target, rim])


def _affine(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(F, 2, 3) maps from target to source triangles (F, 3, 2), and (F,) log2 growth of their areas."""
    corners = np.concatenate([target, np.ones((*target.shape[:2], 1))], axis=2)
    area, source_area = _area(target), _area(source)
    flat = np.abs(area) < 1e-3
    corners[flat] = np.eye(3)
    affine = np.linalg.solve(corners, source).transpose(0, 2, 1)
    growth = np.log2(np.maximum(np.abs(area), 1e-3) / np.maximum(np.abs(source_area), 1e-3))
    # A triangle that turned its back shows what can't be seen: distrust it like the furthest stretch.
    growth[np.sign(area) != np.sign(source_area)] = STRETCH_LIMIT
    return affine.astype(np.float32), np.clip(growth, -STRETCH_LIMIT, STRETCH_LIMIT).astype(np.float32)


def _area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) signed area of (F, 3, 2) triangles."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area: NDArray[np.float64] = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return area


def _rasterise(corners: NDArray[np.float64], size: int) -> NDArray[np.int32]:
    """(S, S) number of the triangle that covers each pixel, -1 where none does."""
    index = np.full((size, size), -1, np.int32)
    fixed = np.round(corners * 16).astype(np.int32)
    for number, triangle in enumerate(fixed):
        cv2.fillConvexPoly(index, triangle, number, lineType=cv2.LINE_4, shift=4)
    return index


def _field(
    affine: NDArray[np.float32], growth: NDArray[np.float32], index: NDArray[np.int32], size: int
) -> Displacement:
    # Pixels outside every triangle are numbered -1: the last row, which moves nothing.
    still = np.array([[1, 0, 0, 0, 1, 0]], np.float32)
    ways = np.concatenate([affine.reshape(-1, 6), still]).T
    a, b, c, d, e, f = (np.ascontiguousarray(way)[index] for way in ways)
    columns = np.arange(size, dtype=np.float32)
    rows = columns[:, None]
    source = np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=-1)
    stretch = np.append(growth, np.float32(0))[index]
    return Displacement(source, stretch)
