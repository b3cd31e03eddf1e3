"""Which triangle of the face's mesh covers each pixel: found once for a target, it serves all pictures moved to it."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology

POINTS = 478
VERTICES = POINTS + len(topology.FACE_OVAL)
"""Landmarks, then the points of the rim around the face, which stay where they are."""
RIM = 1.35
"""The rim lies so many times as far from the face's middle as its oval."""


@lru_cache(maxsize=1)
def mesh() -> NDArray[np.int64]:
    """(F, 3) triangles of the face, and of the ring from its oval to the rim, whose points are numbered from 478."""
    oval = np.array(topology.FACE_OVAL)
    count = len(oval)
    here, there = np.arange(count), (np.arange(count) + 1) % count
    ring = np.concatenate(
        [
            np.stack([oval[here], oval[there], POINTS + here], axis=1),
            np.stack([oval[there], POINTS + there, POINTS + here], axis=1),
        ]
    )
    return np.concatenate([topology.face_model().triangles.astype(np.int64), ring])


def vertices(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(478, 3) landmarks and the rim around them: (VERTICES, 3)."""
    oval = landmarks[list(topology.FACE_OVAL)]
    middle = oval.mean(axis=0)
    rim = oval.copy()
    rim[:, :2] = middle[:2] + RIM * (oval[:, :2] - middle[:2])
    return np.concatenate([landmarks, rim]).astype(np.float32)


def triangle_index(corners: NDArray[np.float32], size: int) -> NDArray[np.int16]:
    """(S, S) number of the triangle of `mesh()` seen at each pixel, -1 outside the rim.

    Args:
        corners: (VERTICES, 3) of the target, pixels; see `vertices`.
        size: S.
    """
    triangles = mesh()
    # Far triangles first: where the turned cheek folds over itself, the near side is what is seen.
    order = np.argsort(-corners[triangles, 2].mean(axis=1), kind="stable")
    fixed = np.round(corners[triangles, :2] * 16).astype(np.int32)
    ends = fixed.max(axis=1), fixed.min(axis=1)
    seen = ((ends[0] >= 0) & (ends[1] <= 16 * (size - 1))).all(axis=1)
    index = np.full((size, size), -1, np.int16)
    for number in order[seen[order]].tolist():
        cv2.fillConvexPoly(index, fixed[number], number, lineType=cv2.LINE_4, shift=4)
    return index
