"""How much fine detail a clip's mouth has: soft pictures teach a network to paint softly."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology
from dreamhead.faces.crop import apply_transform
from dreamhead.training.dataset import Clip, ClipInfo, read_clip

FINE_SIGMA, COARSE_SIGMA = 1.0, 4.0
"""Detail is what the first Gaussian takes away, contrast what the second does; pixels of the crop."""
AROUND_SIGMA = 3.0
"""Detail is looked at over so much of the picture at once."""
NOISE_SHARE = 0.1
"""Of the mouth's pixels so many are taken to show nothing but noise: those with the least detail around them."""
FAINT = 8.0
"""A mouth of less contrast, levels squared, is blurred all over: its share would be that of rounding errors."""
MARGIN = 0.18
"""The mouth reaches so far beyond the lips, in widths of the mouth: skin, moustache and beard count too."""
LEAST_PIXELS = 100
FRAMES = 8
LIPS = (*topology.OUTER_LOWER_LIP, *topology.OUTER_UPPER_LIP)


def measure(infos: Sequence[ClipInfo]) -> list[float]:
    """`clip_detail` of each clip, in their order."""
    # Packed pictures are decoded once, before the threads part.
    read_clip(infos[0])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda info: clip_detail(read_clip(info)), infos))


def clip_detail(clip: Clip) -> float:
    """Median of `mouth_detail` over frames spread over a clip; 0 where no mouth is in the crop."""
    places = np.linspace(0, len(clip.crops) - 1, FRAMES + 2)[1:-1]
    frames = sorted(set(places.round().astype(int).tolist()))
    points = [apply_transform(clip.transforms[frame], clip.landmarks[frame]) for frame in frames]
    return float(np.median([mouth_detail(clip.crop(frame), its) for frame, its in zip(frames, points, strict=True)]))


def mouth_detail(crop: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> float:
    """Fine detail as a share of the contrast at the mouth: about 0.12 in a sharp crop, 0.01 in a blurred one.

    A share changes neither with the skin nor with the light. The detail that even the smoothest tenth of the mouth has
    is noise, and is taken off everywhere.

    Args:
        crop: uint8 (H, W, 3) RGB.
        landmarks: (478, 2 or more) pixels of the crop.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mouth = _mouth(landmarks, grey.shape)
    if mouth.sum() < LEAST_PIXELS:
        return 0.0
    detail, contrast = (_around((grey - _blurred(grey, sigma)) ** 2)[mouth] for sigma in (FINE_SIGMA, COARSE_SIGMA))
    noise = np.quantile(detail, NOISE_SHARE)
    return float(np.maximum(detail - noise, 0).mean() / max(contrast.mean(), FAINT))


def _mouth(landmarks: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    lips = landmarks[list(LIPS), :2].astype(np.float32)
    filled = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(lips).astype(np.int32), 1)
    side = 2 * max(1, round(MARGIN * float(np.ptp(lips[:, 0])))) + 1
    grown = cv2.dilate(filled, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return np.asarray(grown > 0)


def _blurred(grey: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma), np.float32)


def _around(energy: NDArray[np.float32]) -> NDArray[np.float32]:
    return _blurred(energy, AROUND_SIGMA)
