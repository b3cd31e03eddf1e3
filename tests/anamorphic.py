"""Pictures stored in pixels that aren't square, as HDV, DV and anamorphic recordings are."""

from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

ASPECTS = tuple(Fraction(text) for text in ("4/3", "1/2", "2", "16/15", "64/45", "8/9"))
"""HDV; a field's lines; widescreen at half width; PAL DV, plain and widescreen; NTSC DV."""


def stored(picture: Picture, aspect: Fraction) -> Picture:
    """The (H, W, 3) picture of square pixels as (H, W / aspect, 3)."""
    height, width = picture.shape[:2]
    return resized(picture, round(width / aspect), height)


def resized(picture: Picture, width: int, height: int) -> Picture:
    """The picture at another size."""
    way = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=way), np.uint8)
