"""Cepstra against a second, slower way to the same numbers."""

import math

import numpy as np
import pytest

from dreamhead.models.cepstra import _filters, cepstra


def slow_cepstra(samples: np.ndarray, step: int) -> np.ndarray:
    """One step's cepstra, sum by sum."""
    wave = samples.astype(np.float64) * 32768
    frame = [wave[n] - 0.97 * wave[n - 1] if n else wave[0] for n in range(160 * step, 160 * step + 400)]
    power = np.array([abs(v) ** 2 / 512 for v in np.fft.fft(frame, 512)[:257]])
    edges = [700 * (10 ** (k * 2595 * math.log10(1 + 8000 / 700) / 27 / 2595) - 1) for k in range(28)]
    corners = [math.floor(513 * hertz / 16000) for hertz in edges]
    bands = []
    for low, mid, high in zip(corners, corners[1:], corners[2:], strict=False):
        rising = sum(power[i] * (i - low) / (mid - low) for i in range(low, mid))
        bands.append(math.log(rising + sum(power[i] * (high - i) / (high - mid) for i in range(mid, high))))
    found = []
    for c in range(13):
        total = sum(band * math.cos(math.pi * c * (2 * n + 1) / 52) for n, band in enumerate(bands))
        found.append(total * math.sqrt((1 if c else 0.5) * 2 / 26) * (1 + 11 * math.sin(math.pi * c / 22)))
    return np.array([math.log(power.sum()), *found[1:]])


def test_cepstra_are_what_the_definition_says() -> None:
    samples = (0.1 * np.random.default_rng(0).standard_normal(2000)).astype(np.float32)
    found = cepstra(samples)
    assert found.shape == (11, 13)
    assert found.dtype == np.float32
    for step in (0, 1, 10):
        np.testing.assert_allclose(found[step], slow_cepstra(samples, step), rtol=1e-4, atol=1e-3)


def test_silence_is_finite() -> None:
    found = cepstra(np.zeros(400, np.float32))
    assert found.shape == (1, 13)
    assert found[0, 0] == pytest.approx(math.log(np.finfo(np.float64).eps))
    assert np.isfinite(found).all()


def test_bands_overlap_by_half() -> None:
    filters = _filters()
    assert filters.shape == (26, 257)
    np.testing.assert_allclose(filters.max(axis=1), 1)
    inside = filters.sum(axis=0)[5:225]
    np.testing.assert_allclose(inside, 1, atol=1e-9)


def test_too_little_sound_is_refused() -> None:
    with pytest.raises(ValueError, match="N at least 400"):
        cepstra(np.zeros(399, np.float32))
