"""The loose crop around a face that SyncNet is shown: not aligned, no larger than its authors cut it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces.pixel_aspect import from_stored

STEADY_FRAMES = 13
"""Place and size of the face are medians over so many frames."""
ABOVE, BELOW = 1.0, 1.8
"""The square reaches from the face's middle so many halves of the face's size up and down."""
BORDER = 110
"""Grey of what lies outside the frame."""


def loose_crop(
    frame: NDArray[np.uint8], place: NDArray[np.float64], side: int, pixel_aspect: float = 1.0
) -> NDArray[np.uint8]:
    """(side, side, 3) blue, green, red of the (H, W, 3) RGB frame at (3,) `place`: x, y and half the face's size.

    Places are in square pixels, `pixel_aspect` is the frame's.
    """
    x, y, half = (float(value) for value in place)
    width = (ABOVE + BELOW) * half
    scale = side / width
    transform = np.array([[scale, 0, scale * (width / 2 - x)], [0, scale, scale * (ABOVE * half - y)]])
    stored = from_stored(transform, pixel_aspect)
    crop = cv2.warpAffine(frame, stored, (side, side), flags=cv2.INTER_LINEAR, borderValue=(BORDER,) * 3)
    return np.ascontiguousarray(crop[..., ::-1]).astype(np.uint8, copy=False)


def steady(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, D) medians over time, held at the ends."""
    half = STEADY_FRAMES // 2
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, STEADY_FRAMES, axis=0)
    return np.asarray(np.median(windows, axis=-1), np.float64)
