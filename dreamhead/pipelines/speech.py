"""Encode speech in windows on an absolute grid, so that features don't depend on how they were asked for."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dreamhead.models.audio_encoder import SAMPLE_RATE, SpeechEncoder
from dreamhead.records import SpeechTrack

CORE_S = 20.0
"""Seconds that one window gives features of: window k those of [20 k, 20 k + 20)."""
CONTEXT_S = 5.0
"""Seconds of speech that the encoder hears before and after the core."""
LEVEL_HALF_WIDTH_S = 0.05
FLOOR_DB = -120.0


def window_indices(start_s: float, stop_s: float) -> range:
    """Windows whose cores cover [start_s, stop_s) of the speech, which begins at 0 s."""
    return range(max(0, math.floor(start_s / CORE_S)), max(0, math.ceil(stop_s / CORE_S)))


def window_bounds_s(k: int) -> tuple[float, float]:
    """Start and stop, in seconds, of the samples that window k needs; zeros stand for what the speech doesn't have.

    Window 0 begins before the speech: an encoder with absolute positions, as Whisper's, puts a good part of the
    position into its features, and every core shall lie at the same positions.
    """
    return k * CORE_S - CONTEXT_S, (k + 1) * CORE_S + CONTEXT_S


def encode_window(
    encoder: SpeechEncoder, samples: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (F, C) and levels (F,) of the core of window k.

    `samples` (N,) at 16 kHz are those within `window_bounds_s(k)`.
    A level is the RMS of 0.05 s to either side of the feature, in dB of full scale, at least -120.
    """
    first = round(CONTEXT_S * encoder.rate)
    core = slice(first, first + round(CORE_S * encoder.rate))
    features = encoder(samples)
    assert len(features) >= core.stop, f"window {k} needs {window_bounds_s(k)} s, got {len(samples)} samples"
    return features[core], _levels_db(samples, len(features), encoder.rate)[core]


def assemble(
    windows: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], first_k: int, rate: float
) -> SpeechTrack:
    """Join the cores of successive windows, the first of them `first_k`; raises ValueError when there is none."""
    if not windows:
        raise ValueError("windows must hold at least one window, got none")
    return SpeechTrack(
        features=np.concatenate([features for features, _ in windows]),
        level_db=np.concatenate([level for _, level in windows]),
        start_s=first_k * CORE_S,
        rate=rate,
    )


def _levels_db(samples: NDArray[np.float32], count: int, rate: float) -> NDArray[np.float32]:
    """Levels (count,) around f / rate seconds."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    centres = np.arange(count) * (SAMPLE_RATE / rate)
    half = LEVEL_HALF_WIDTH_S * SAMPLE_RATE
    lower = np.clip(np.rint(centres - half), 0, len(samples)).astype(np.int64)
    upper = np.clip(np.rint(centres + half), 0, len(samples)).astype(np.int64)
    power = (energy[upper] - energy[lower]) / np.maximum(upper - lower, 1)
    level_db: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))
    return level_db.astype(np.float32)
