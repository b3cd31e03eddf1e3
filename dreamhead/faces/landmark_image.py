"""Draw landmarks as a picture: anti-aliased contours, one colour a feature."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology

CONTOURS: tuple[tuple[tuple[int, ...], bool, tuple[int, int, int]], ...] = (
    (topology.JAW, False, (255, 255, 255)),
    (topology.LEFT_EYEBROW, False, (255, 128, 0)),
    (topology.RIGHT_EYEBROW, False, (255, 128, 0)),
    (topology.LEFT_EYE, True, (0, 255, 255)),
    (topology.RIGHT_EYE, True, (0, 255, 255)),
    (topology.NOSE_BRIDGE, False, (255, 0, 255)),
    (topology.NOSE_BASE, False, (255, 0, 255)),
    (topology.OUTER_UPPER_LIP, False, (255, 0, 0)),
    (topology.OUTER_LOWER_LIP, False, (255, 255, 0)),
    (topology.INNER_UPPER_LIP, False, (0, 255, 0)),
    (topology.INNER_LOWER_LIP, False, (0, 0, 255)),
)
"""(landmarks in order, closed or not, RGB)."""


def draw(landmarks: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """(S, S, 3) RGB picture of (478, 2 or 3) landmarks in pixels of the crop."""
    image = np.zeros((size, size, 3), np.uint8)
    points = np.round(landmarks[:, :2] * 16).astype(np.int32)
    thickness = max(1, size // 128)
    for indices, closed, colour in CONTOURS:
        cv2.polylines(image, [points[list(indices)]], closed, colour, thickness, cv2.LINE_AA, shift=4)
    return image
