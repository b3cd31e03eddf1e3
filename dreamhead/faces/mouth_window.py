"""The square of the crop in which the mouth is painted: placed by the head's pose, never by what the mouth does."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology

BELOW = 0.1
"""The window reaches further down than up, by this share of its side: the jaw drops."""


def window_corner(resting: NDArray[np.floating[Any]], size: int, window: int) -> tuple[int, int]:
    """(x, y) of the window's upper left pixel, so that it holds the lips and the chin, also of an open mouth.

    Args:
        resting: (478, 3) the speaker's resting face in the frame's pose, pixels of the crop.
        size: side of the crop.
        window: side of the window, at most `size`.
    """
    middle = (resting[topology.NOSE_BASE[2], :2] + resting[topology.CHIN, :2]) / 2
    corner = np.round(middle - window / 2 + [0, BELOW * window]).astype(int)
    x, y = np.clip(corner, 0, size - window)
    return int(x), int(y)
