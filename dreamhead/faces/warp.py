"""Move a picture along its landmarks: what stood at one face's points comes to stand at another's."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces.mesh_index import mesh, triangle_index, vertices

STRETCH_LIMIT = 3.0


class Displacement(NamedTuple):
    """Where each pixel of the warped picture comes from."""

    source: NDArray[np.float32]
    """(S, S, 2) x, y in pixels of the picture that is warped."""
    stretch: NDArray[np.float32]
    """(S, S) log2 of how much larger the pixel's triangle became, limited to +-3; 0 where nothing moves."""


def displacement(
    source: NDArray[np.float32],
    target: NDArray[np.float32],
    size: int,
    index: NDArray[np.int16] | None = None,
) -> Displacement:
    """Field that is linear over each triangle of the face's mesh and fades to zero outside the target's face.

    Args:
        source: (478, 3) landmarks of the picture to be warped, pixels of its crop.
        target: (478, 3) landmarks that it shall have.
        size: S, side of the crop.
        index: (S, S) the target's `triangle_index`, if it is known: it serves all sources.
    """
    end = vertices(target)
    if index is None:
        index = triangle_index(end, size)
    affine, growth = _affine(np.concatenate([source, end[len(source) :]]), end)
    return _field(affine, growth, index, size)


def warp(image: NDArray[np.uint8], field: Displacement) -> NDArray[np.uint8]:
    """The (S, S, 3) picture moved along the field."""
    x, y = field.source[..., 0], field.source[..., 1]
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _affine(
    source: NDArray[np.float32], target: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(F, 2, 3) maps from target to source triangles of (V, 3) vertices, and (F,) log2 growth of their areas."""
    triangles = mesh()
    start, end = (points[triangles, :2].astype(np.float64) for points in (source, target))
    area, source_area = _area(end), _area(start)
    flat = np.abs(area) < 1e-3
    edges = np.stack([end[:, 1] - end[:, 0], end[:, 2] - end[:, 0]], axis=2)
    edges[flat] = np.eye(2)
    linear = np.stack([start[:, 1] - start[:, 0], start[:, 2] - start[:, 0]], axis=2) @ np.linalg.inv(edges)
    # What doesn't move keeps its pixels to the bit.
    still = np.abs(start - end).max(axis=(1, 2)) <= 1e-3
    linear[still], start[still] = np.eye(2), end[still]
    offset = start[:, 0] - np.einsum("fij,fj->fi", linear, end[:, 0])
    offset[still] = 0
    growth = np.log2(np.maximum(np.abs(area), 1e-3) / np.maximum(np.abs(source_area), 1e-3))
    # A triangle that turned its back shows what can't be seen: distrust it like the furthest stretch.
    growth[np.sign(area) != np.sign(source_area)] = STRETCH_LIMIT
    growth[still] = 0
    affine = np.concatenate([linear, offset[..., None]], axis=2)
    return affine.astype(np.float32), np.clip(growth, -STRETCH_LIMIT, STRETCH_LIMIT).astype(np.float32)


def _area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) signed area of (F, 3, 2) triangles."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area: NDArray[np.float64] = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return area


def _field(
    affine: NDArray[np.float32], growth: NDArray[np.float32], index: NDArray[np.int16], size: int
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
