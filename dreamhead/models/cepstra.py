"""Mel-frequency cepstra as SyncNet was trained on: 13 a step of 10 ms (Davis and Mermelstein 1980)."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from dreamhead.models.audio_encoder import SAMPLE_RATE

WINDOW, HOP, FFT = 400, 160, 512
BANDS, CEPSTRA = 26, 13
EMPHASIS = 0.97
LIFTER = 22
FULL_SCALE = 32768.0
"""The networks that read these were trained on 16-bit samples."""

TINY = float(np.finfo(np.float64).eps)


def cepstra(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) samples at 16 kHz, -1 to 1, to (T, 13), T = floor((N - 400) / 160) + 1; the first is the log of the energy.

    Raises ValueError for less than one window of 25 ms.
    """
    if samples.ndim != 1 or len(samples) < WINDOW:
        raise ValueError(f"samples must be (N,) with N at least {WINDOW}, got {samples.shape}")
    wave = samples.astype(np.float64) * FULL_SCALE
    emphasised = np.concatenate([wave[:1], wave[1:] - EMPHASIS * wave[:-1]])
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2 / FFT
    bands = np.log(np.maximum(power @ _filters().T, TINY))
    found = bands @ _cosines().T * _lifter()
    found[:, 0] = np.log(np.maximum(power.sum(axis=1), TINY))
    return np.asarray(found, np.float32)


@cache
def _filters() -> NDArray[np.float64]:
    """(26, 257) triangles that lie evenly on the mel scale from 0 to 8 kHz."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    corners = np.floor((FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(FFT // 2 + 1)
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    triangles: NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0, None)
    return triangles


@cache
def _cosines() -> NDArray[np.float64]:
    """(13, 26) rows of the orthonormal cosine transform (DCT-II)."""
    angle = np.pi * np.arange(CEPSTRA)[:, None] * (2 * np.arange(BANDS) + 1) / (2 * BANDS)
    rows: NDArray[np.float64] = np.cos(angle) * np.sqrt(2 / BANDS)
    rows[0] /= np.sqrt(2)
    return rows


@cache
def _lifter() -> NDArray[np.float64]:
    weights: NDArray[np.float64] = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(CEPSTRA) / LIFTER)
    return weights
