"""Metrics on landmarks and pixels, always next to what the trivial alternatives reach."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class LagCorrelation(NamedTuple):
    """How well two curves go together when one may be shifted."""

    at_zero: float
    best: float
    lag: int
    """Frames by which the first is late where the correlation is best."""


def lag_correlation(first: Floats, second: Floats, most: int = 5) -> LagCorrelation:
    """Pearson correlation of (T,) curves at shifts of up to `most` frames."""
    found = {
        lag: float(np.corrcoef(first[max(lag, 0) : len(first) + min(lag, 0)], _other(second, lag))[0, 1])
        for lag in range(-most, most + 1)
    }
    lag = max(found, key=lambda shift: found[shift])
    return LagCorrelation(found[0], found[lag], lag)


def weighted_psnr(picture: Floats, truth: Floats, weight: Floats) -> float:
    """Peak signal-to-noise ratio in dB of (H, W, 3) pictures, 0 to 255, where (H, W) `weight` is."""
    error = ((picture.astype(np.float64) - truth) ** 2).mean(axis=-1)
    mean = float((error * weight).sum() / weight.sum())
    return float(10 * np.log10(255**2 / max(mean, 1e-9)))


def jitter(points: Floats) -> float:
    """Mean length of the second difference over time of (T, K, D) points."""
    return float(np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1).mean())


def _other(curve: Floats, lag: int) -> Floats:
    return curve[max(-lag, 0) : len(curve) + min(-lag, 0)]
