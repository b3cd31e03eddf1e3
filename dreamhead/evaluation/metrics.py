"""Metrics on landmarks and pixels, always next to what the trivial alternatives reach.

Shapes: T frames, K landmarks, H x W pixels. Frames without a face are NaN, and count nowhere.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8] | Floats

# Wang et al. 2004, section III-C: an 11x11 Gaussian window of 1.5 pixels, K1 = 0.01, K2 = 0.03, L = 255.
SSIM_WINDOW, SSIM_SIGMA = (11, 11), 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
DETAIL_SIGMA = 1.0
"""Pixels: what a Gaussian this wide takes away is the finest that a picture can hold."""
FEWEST = 3
"""Fewest pairs of values that a correlation is computed from."""


class LagCorrelation(NamedTuple):
    """How well two curves go together when one may be shifted; NaN where one of them is flat or unknown."""

    at_zero: float
    best: float
    lag: int
    """Frames by which the first is late where the correlation is best."""


def lag_correlation(first: Floats, second: Floats, most: int = 5) -> LagCorrelation:
    """Pearson correlation of (T,) curves at shifts of up to `most` frames."""
    found = {
        lag: correlation(first[max(lag, 0) : max(0, len(first) + min(lag, 0))], _other(second, lag))
        for lag in range(-most, most + 1)
    }
    known = [lag for lag in found if np.isfinite(found[lag])]
    lag = max(known, key=lambda shift: (found[shift], -abs(shift)), default=0)
    return LagCorrelation(found[0], found[lag], lag)


def correlation(first: Floats, second: Floats) -> float:
    """Pearson correlation of (T,) curves where both are known; NaN where one is flat, or hardly anything is known."""
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < FEWEST or np.ptp(first[both]) < 1e-9 or np.ptp(second[both]) < 1e-9:
        return float("nan")
    return float(np.corrcoef(first[both], second[both])[0, 1])


def concordance(first: Floats, second: Floats) -> float:
    """Lin's concordance of (T,) curves where both are known; NaN where hardly anything is, or both are flat.

    Lin 1989, Eq. 1: unlike Pearson's it falls when one curve is wider than the other, or lies higher.
    """
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < FEWEST:
        return float("nan")
    one, other = first[both].astype(np.float64), second[both].astype(np.float64)
    apart = one.var() + other.var() + (one.mean() - other.mean()) ** 2
    if apart < 1e-12:
        return float("nan")
    return float(2 * ((one - one.mean()) * (other - other.mean())).mean() / apart)


class Closure(NamedTuple):
    """How well our lips shut when the real ones do; shares are NaN where there is nothing to have a share of."""

    met: float
    """Share of the real lips' shut moments in which ours are shut too."""
    false: float
    """Share of our shut moments in which the real lips are open."""
    moments: int
    """Of the real lips."""


def closure(ours: Floats, truth: Floats, limit: float, slack: int = 1) -> Closure:
    """Compare the moments in which two mouths are shut.

    A moment is a run of frames below the limit. It is matched where the other mouth is shut in at least half of its
    frames, or within `slack` frames of them: a lip sound lasts two or three.

    Args:
        ours: (T,) lip opening; NaN where it isn't known.
        truth: (T,) that of the real lips.
        limit: what counts as shut for this speaker; see `shut_limit`.
        slack: frames by which a closure may be early or late.
    """
    both = np.isfinite(ours) & np.isfinite(truth)
    our_shut, true_shut = both & (ours < limit), both & (truth < limit)
    met = _matched(true_shut, our_shut, slack)
    kept = _matched(our_shut, true_shut, slack)
    return Closure(
        float(np.mean(met)) if met else float("nan"), 1 - float(np.mean(kept)) if kept else float("nan"), len(met)
    )


def weighted_psnr(picture: Pixels, truth: Pixels, weight: Floats) -> float:
    """Peak signal-to-noise ratio in dB of (H, W, 3) pictures, 0 to 255, where (H, W) `weight` is; at most 138.1."""
    error = ((picture.astype(np.float64) - truth) ** 2).mean(axis=-1)
    mean = float((error * weight).sum() / weight.sum())
    return float(10 * np.log10(255**2 / max(mean, 1e-9)))


def ssim_map(picture: Pixels, truth: Pixels) -> NDArray[np.float32]:
    """(H, W) structural similarity of the luma of (H, W, 3) pictures, 0 to 255. Wang et al. 2004, Eq. 13."""
    x, y = luma(picture), luma(truth)
    mean_x, mean_y = _window(x), _window(y)
    variance_x, variance_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return np.asarray(top / ((mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)), np.float32)


def luma(picture: Pixels) -> NDArray[np.float32]:
    """(H, W) ITU-R BT.601 luma of an (H, W, 3) RGB picture, in its own range."""
    return np.asarray(picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def weighted_mean(values: Floats, weight: Floats) -> float:
    """Mean of (H, W) values where (H, W) `weight` is; NaN where it is nowhere."""
    total = float(weight.sum())
    return float((values * weight).sum() / total) if total > 0 else float("nan")


def laplacian_energy(picture: Pixels, weight: Floats) -> float:
    """Mean square of the luma's Laplacian where `weight` is: how much fine detail there is."""
    return weighted_mean(np.asarray(cv2.Laplacian(luma(picture), cv2.CV_32F), np.float32) ** 2, weight)


def fine_detail(picture: Pixels, weight: Floats) -> float:
    """Variance of what a Gaussian of one pixel takes from an (H, W, 3) picture's luma, where (H, W) `weight` is.

    NaN where it is nowhere.
    """
    if not weight.size:
        return float("nan")
    bright = luma(picture)
    fine = bright - np.asarray(cv2.GaussianBlur(bright, (0, 0), DETAIL_SIGMA), np.float32)
    return weighted_mean(fine**2, weight) - weighted_mean(fine, weight) ** 2


def unexplained_change(before: Pixels, now: Pixels, weight: Floats) -> float:
    """Mean change of luma from one (H, W, 3) picture to the next that no motion explains, where (H, W) `weight` is.

    The motion is found by optical flow (DIS, Kroeger et al. 2016) and taken out: the warping error of Lai et al. 2018,
    section 4.1, without its mask of what is hidden. Of the two pictures alone: landmarks would bring their own jitter,
    and forgive a renderer that moves pixels along the very same landmarks.
    """
    first, second = (np.clip(np.rint(luma(picture)), 0, 255).astype(np.uint8) for picture in (before, now))
    still = np.zeros((*first.shape, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(second, first, still)
    rows, columns = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
    moved = cv2.remap(
        first, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return weighted_mean(np.abs(moved.astype(np.float32) - second), weight)


def edge_step(picture: Pixels, opacity: Floats) -> NDArray[np.float32]:
    """(N, 3) change of colour across the edge of a mask, at each of its N pixels that are half transparent.

    At such a pixel it is the mean colour of the opaque pixels nearby minus that of the untouched ones nearby, both
    weighted by a Gaussian of 1/32 of the picture's side.
    """
    sigma = picture.shape[0] / 32
    inside, outside = opacity > 0.95, opacity <= 0
    near_inside, weight_inside = _nearby(picture, inside, sigma)
    near_outside, weight_outside = _nearby(picture, outside, sigma)
    edge = ~inside & ~outside & (weight_inside > 1e-2) & (weight_outside > 1e-2)
    return np.asarray(near_inside[edge] - near_outside[edge], np.float32)


def colour_step(steps: Floats, true_steps: Floats) -> float:
    """Root mean square over the channels of by how much (N, 3) changes of colour from `edge_step` differ, averaged."""
    return float(np.linalg.norm(steps - true_steps, axis=1).mean() / np.sqrt(3)) if len(steps) else float("nan")


def jitter(points: Floats) -> float:
    """Mean length of the second difference over time of (T, K, D) points; NaN without three known frames in a row."""
    lengths = np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1)
    known = np.isfinite(lengths).all(axis=-1)
    return float(lengths[known].mean()) if known.any() else float("nan")


def landmark_distance(points: Floats, truth: Floats) -> NDArray[np.float64]:
    """(T,) mean distance of (T, K, D) points from the true ones."""
    distance: NDArray[np.float64] = np.linalg.norm(points - truth, axis=-1).mean(axis=-1)
    return distance


def spread(curve: Floats) -> float:
    """Standard deviation of a (T,) curve where it is known; NaN where it isn't anywhere."""
    known = curve[np.isfinite(curve)]
    return float(known.std()) if len(known) else float("nan")


def shut_limit(opening: Floats, share: float) -> float:
    """The lip opening below which this speaker's mouth is shut: `share` of the way from the 5th to the 95th percentile.

    `opening` (T,) is the speaker's own, while speaking.
    """
    known = opening[np.isfinite(opening)]
    if not len(known):
        return float("nan")
    low, high = np.percentile(known, [5, 95])
    return float(low + share * (high - low))


def frechet_distance(first: Floats, second: Floats) -> float:
    """Distance of the Gaussians fitted to two sets (N, C) of features. Heusel et al. 2017, Eq. 6."""
    difference = first.mean(axis=0) - second.mean(axis=0)
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # The trace of the square root of the product is the sum of the square roots of its eigenvalues.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(one @ other).real, 0)).sum()
    return float(difference @ difference + np.trace(one) + np.trace(other) - 2 * roots)


def delay(heard: Floats, given: Floats, most: int) -> int:
    """Samples by which (N,) `heard` comes later than (N,) `given`, at most `most` either way, where they agree best."""
    size = 1 << (len(heard) + len(given)).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(given, size))
    agreement = np.fft.irfft(spectrum, size)
    shifts = np.arange(-most, most + 1)
    return int(shifts[agreement[shifts].argmax()])


def _matched(shut: NDArray[np.bool_], other: NDArray[np.bool_], slack: int) -> list[bool]:
    """Of each run of (T,) `shut`: whether `other` is shut, within `slack` frames, in at least half of it."""
    near = np.convolve(other, np.ones(2 * slack + 1), "same") > 0 if len(other) > 2 * slack else other
    edges = np.flatnonzero(np.diff(shut, prepend=False, append=False))
    return [bool(near[start:stop].mean() >= 0.5) for start, stop in edges.reshape(-1, 2)]


def _other(curve: Floats, lag: int) -> Floats:
    return curve[max(-lag, 0) : max(0, len(curve) - max(lag, 0))]


def _window(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(values, SSIM_WINDOW, SSIM_SIGMA), np.float32)


def _nearby(
    picture: Pixels, chosen: NDArray[np.bool_], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(H, W, 3) mean colour of the chosen pixels around each, and (H, W) how much of them there is."""
    weight = chosen.astype(np.float32)
    chosen_only = np.dstack([picture.astype(np.float32) * weight[..., None], weight])
    height, width = weight.shape
    # What is blurred this much needs no more than every other pixel.
    half = cv2.resize(chosen_only, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(half, (0, 0), sigma / 2)
    known = np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    weights = known[..., 3:]
    return np.asarray(known[..., :3] / np.maximum(weights, 1e-6), np.float32), weights[..., 0]
