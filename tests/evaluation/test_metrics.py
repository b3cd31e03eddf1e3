"""Metrics against answers that are known."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from dreamhead.evaluation import metrics
from tests.toy_faces import texture

RNG = np.random.default_rng(0)
WAVE = np.sin(np.arange(120) / 5) + 0.3 * np.sin(np.arange(120) / 1.7)
ALL = np.ones((64, 64))


@pytest.mark.parametrize("late", [-4, 0, 3])
def test_the_lag_of_a_shifted_curve_is_found(late: int) -> None:
    found = metrics.lag_correlation(np.roll(WAVE, late)[10:110], WAVE[10:110])
    assert found.lag == late
    assert found.best == pytest.approx(1.0)
    assert found.at_zero == pytest.approx(np.corrcoef(np.roll(WAVE, late)[10:110], WAVE[10:110])[0, 1])


def test_frames_without_a_face_count_nowhere() -> None:
    holes = WAVE.copy()
    holes[[3, 50, 51, 52, 90]] = np.nan
    assert metrics.lag_correlation(np.roll(holes, 2), WAVE)[1:] == pytest.approx((1.0, 2), abs=2e-2)


def test_a_flat_curve_has_no_correlation_and_no_warning() -> None:
    found = metrics.lag_correlation(np.zeros(50), WAVE[:50])
    assert np.isnan(found.at_zero)
    assert np.isnan(found.best)
    assert np.isnan(metrics.lag_correlation(WAVE[:2], WAVE[:2]).best)


def test_concordance_falls_with_width_and_height_and_correlation_doesnt() -> None:
    assert metrics.concordance(WAVE, WAVE) == pytest.approx(1)
    assert metrics.concordance(-WAVE, WAVE) < 0
    centred = WAVE - WAVE.mean()
    # Twice as wide: 2 * 2 / (4 + 1).
    assert metrics.concordance(2 * centred, centred) == pytest.approx(0.8)
    # Higher by one standard deviation: 2 / (1 + 1 + 1).
    assert metrics.concordance(WAVE + WAVE.std(), WAVE) == pytest.approx(2 / 3)
    assert metrics.correlation(2 * WAVE + 1, WAVE) == pytest.approx(1)
    holes = WAVE.copy()
    holes[[4, 50]] = np.nan
    assert metrics.concordance(holes, WAVE) == pytest.approx(1)
    assert metrics.concordance(np.zeros(120), WAVE) == pytest.approx(0)
    assert np.isnan(metrics.concordance(np.zeros(120), np.zeros(120)))
    assert np.isnan(metrics.concordance(WAVE[:2], WAVE[:2]))


def lips(*shut: int, frames: int = 30) -> np.ndarray:
    """(T,) an opening of 0.3, and 0 in these frames."""
    opening = np.full(frames, 0.3)
    opening[list(shut)] = 0
    return opening


def test_closures_are_counted_by_moments() -> None:
    truth = lips(5, 6, 15, 24, 25)
    assert metrics.closure(truth, truth, 0.1) == (1, 0, 3)
    assert metrics.closure(lips(), truth, 0.1)[::2] == (0, 3)
    assert np.isnan(metrics.closure(lips(), truth, 0.1).false)
    # One frame early, one frame late, and one where nobody shuts their mouth.
    found = metrics.closure(lips(4, 16, 20), truth, 0.1)
    assert (found.met, found.false) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert metrics.closure(lips(3, 17), truth, 0.1) == (0, 1, 3)
    assert metrics.closure(lips(3, 17), truth, 0.1, slack=2).met == pytest.approx(2 / 3)


def test_a_long_closure_needs_half_of_its_frames() -> None:
    truth = lips(*range(10, 20))
    assert metrics.closure(lips(12), truth, 0.1).met == 0
    assert metrics.closure(lips(12, 13, 14), truth, 0.1).met == 1
    assert metrics.closure(truth, lips(12), 0.1).false == 1


def test_closures_of_frames_without_a_face_count_nowhere() -> None:
    truth, ours = lips(5, 15), lips(15)
    ours[3:8] = np.nan
    assert metrics.closure(ours, truth, 0.1) == (1, 0, 1)
    unknown = metrics.closure(np.full(30, np.nan), truth, 0.1)
    assert np.isnan(unknown.met)
    assert unknown.moments == 0


def test_a_picture_is_like_itself() -> None:
    picture = texture(64, 64)
    assert metrics.weighted_psnr(picture, picture, ALL) == pytest.approx(10 * np.log10(255**2 / 1e-9))
    np.testing.assert_allclose(metrics.ssim_map(picture, picture), 1.0, atol=1e-5)


def test_psnr_counts_where_the_weight_is() -> None:
    truth = np.full((64, 64, 3), 100, np.uint8)
    other = truth.copy()
    other[:32] += 10
    weight = np.zeros((64, 64))
    weight[:32] = 1
    assert metrics.weighted_psnr(other, truth, weight) == pytest.approx(20 * np.log10(255 / 10))
    assert metrics.weighted_psnr(other, truth, ALL) == pytest.approx(20 * np.log10(255 / 10) + 10 * np.log10(2))


def test_ssim_of_flat_pictures_is_its_term_of_brightness() -> None:
    dark, bright = np.full((32, 32, 3), 60, np.uint8), np.full((32, 32, 3), 120, np.uint8)
    expected = (2 * 60 * 120 + metrics.C1) / (60**2 + 120**2 + metrics.C1)
    np.testing.assert_allclose(metrics.ssim_map(dark, bright), expected, rtol=1e-4)


def test_ssim_agrees_with_another_implementation() -> None:
    measure = pytest.importorskip("skimage.metrics")
    first, second = texture(64, 64, 1), texture(64, 64, 2)
    _, theirs = measure.structural_similarity(
        *(metrics.luma(picture).astype(np.float64) for picture in (first, second)),
        data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(metrics.ssim_map(first, second)[6:-6, 6:-6], theirs[6:-6, 6:-6], atol=2e-4)


def soft_disc(size: int = 96) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2
    return np.clip((30 - np.hypot(x, y)) / 6, 0, 1).astype(np.float32)


def test_the_step_across_a_mask_is_what_was_put_there() -> None:
    opacity = soft_disc()
    picture = np.full((96, 96, 3), 90, np.float32)
    assert np.abs(metrics.edge_step(picture, opacity)).max() < 1e-3
    picture += opacity[..., None] * np.array([12.0, 0.0, -7.0], np.float32)
    steps = metrics.edge_step(picture, opacity)
    assert len(steps) > 100
    # Pixels at more than 95 % of the way count as inside.
    np.testing.assert_allclose(steps.mean(axis=0), [12, 0, -7], rtol=0.02, atol=1e-3)


def test_blur_takes_detail() -> None:
    picture = RNG.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    sharp, soft = (metrics.laplacian_energy(part, ALL) for part in (picture, cv2.GaussianBlur(picture, (0, 0), 1.5)))
    assert 0 < soft < 0.05 * sharp
    assert np.isnan(metrics.laplacian_energy(picture, np.zeros((64, 64))))


def test_fine_detail_is_the_variance_of_what_a_pixel_of_blur_takes() -> None:
    x = np.mgrid[:64, :64][1]
    # Stripes four pixels apart: a Gaussian of one pixel leaves exp(-(pi / 2) ** 2 / 2) of their wave, nearly.
    stripes = np.repeat((100 + 20 * np.cos(np.pi / 2 * x))[..., None], 3, axis=2).astype(np.float32)
    left = np.exp(-((np.pi / 2) ** 2) / 2)
    middle = np.zeros((64, 64))
    middle[8:56, 8:56] = 1
    assert metrics.fine_detail(stripes, middle) == pytest.approx(200 * (1 - left) ** 2, rel=0.02)
    half = (stripes - 100) / 2 + 100
    assert metrics.fine_detail(half, middle) == pytest.approx(metrics.fine_detail(stripes, middle) / 4, rel=1e-3)
    slope = np.repeat((2.0 * x)[..., None], 3, axis=2).astype(np.float32)
    assert metrics.fine_detail(slope, middle) == pytest.approx(0, abs=1e-6)
    picture = RNG.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(picture, (0, 0), 1.0)
    assert metrics.fine_detail(soft, middle) < 0.1 * metrics.fine_detail(picture, middle)


def test_motion_alone_is_explained_and_flicker_isnt() -> None:
    wide = texture(96, 96, 3).astype(np.float32)
    pictures = [np.clip(cv2.GaussianBlur(wide, (0, 0), 1)[16:80, 10 + 2 * t : 74 + 2 * t], 0, 255) for t in range(5)]
    inner = np.zeros((64, 64))
    inner[12:52, 12:52] = 1

    def change(shown: list[np.ndarray]) -> float:
        return float(np.mean([metrics.unexplained_change(*pair, inner) for pair in pairwise(shown)]))

    raw = np.mean([np.abs(metrics.luma(one) - metrics.luma(next_))[12:52, 12:52].mean()
                   for one, next_ in pairwise(pictures)])  # fmt: skip
    assert change(pictures) < 0.2 * raw
    assert change([pictures[0]] * 5) == 0
    brighter = [picture + 6.0 * (t % 2) for t, picture in enumerate(pictures)]
    assert change(brighter) == pytest.approx(6, abs=1.0)
    grain = [picture + RNG.normal(0, 8, picture.shape) for picture in pictures]
    assert change(grain) > change(pictures) + 3


def test_jitter_is_the_mean_second_difference() -> None:
    still = np.zeros((6, 4, 3))
    assert metrics.jitter(still + np.arange(6)[:, None, None]) == pytest.approx(0)
    shaking = still.copy()
    shaking[::2, :, 0] = 1.0
    assert metrics.jitter(shaking) == pytest.approx(2.0)
    shaking[3] = np.nan
    assert metrics.jitter(shaking) == pytest.approx(2.0)
    assert np.isnan(metrics.jitter(shaking[:2]))


def test_shut_lies_between_the_percentiles() -> None:
    opening = np.concatenate([np.linspace(0, 1, 101), [np.nan]])
    assert metrics.shut_limit(opening, 0.2) == pytest.approx(0.05 + 0.2 * 0.9)
    assert np.isnan(metrics.shut_limit(np.full(3, np.nan), 0.2))


def test_frechet_distance_of_shifted_features_is_the_shift() -> None:
    features = RNG.normal(size=(500, 5))
    features -= features.mean(axis=0)
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(features + np.array([3, 0, 0, 4, 0]), features) == pytest.approx(25, rel=1e-6)
    assert metrics.frechet_distance(2 * features, features) == pytest.approx(np.trace(np.cov(features.T)), rel=1e-6)


@pytest.mark.parametrize("late", [-700, 0, 333])
def test_delay_of_sound_is_found(late: int) -> None:
    given = RNG.normal(size=16_000)
    heard = np.roll(given, late) + 0.5 * RNG.normal(size=16_000)
    assert metrics.delay(heard, given, 8000) == late
