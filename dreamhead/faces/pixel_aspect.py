"""Pixels as a file stores them, and the square ones in which faces are measured.

A displayed pixel's width over its height is its aspect; HDV stores 1440 of 4:3 for 1920 square ones. Landmarks, poses,
crops and masks are all in square pixels. Frames stay as they are stored, so that what isn't dubbed keeps its bits:
whoever reads or writes a frame's pixels does so through `from_stored`.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def square_pixels(frame: NDArray[np.uint8], pixel_aspect: float) -> NDArray[np.uint8]:
    """The (H, W, 3) frame as a player shows it, (H, W * aspect, 3), to look at; the very same where nothing changes."""
    height, width = frame.shape[:2]
    shown = max(1, round(width * pixel_aspect))
    if shown == width:
        return frame
    way = cv2.INTER_AREA if shown < width else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (shown, height), interpolation=way), np.uint8)


def from_stored(transform: Floats, pixel_aspect: float) -> Floats:
    """The (2, 3) map from a frame's stored pixels to where `transform` takes its square ones.

    Whole numbers are pixels' centres, so that a stored x is shown at aspect * (x + 1/2) - 1/2.
    """
    composed: Floats = transform.copy()
    composed[:, 0] *= pixel_aspect
    composed[:, 2] += transform[:, 0] * ((pixel_aspect - 1) / 2)
    return composed


def to_stored(points: NDArray[np.float32], pixel_aspect: float) -> NDArray[np.float32]:
    """(K, 2 or 3) points of the picture as shown, in a frame's stored pixels; the very same where nothing changes."""
    if pixel_aspect == 1:
        return points
    stored: NDArray[np.float32] = points.copy()
    stored[:, 0] = (points[:, 0] + 0.5) / pixel_aspect - 0.5
    return stored
