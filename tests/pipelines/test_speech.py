"""The absolute grid: features of a moment don't depend on what was asked for around it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.models.audio_encoder import LogMelEncoder
from dreamhead.pipelines import speech
from dreamhead.records import SpeechTrack

RATE = 16_000


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    """47.3 s of noise whose loudness swings, silent from 30 to 33 s."""
    count = round(47.3 * RATE)
    sound = np.random.default_rng(1).normal(0, 0.2, count) * (1 + np.sin(np.arange(count) / RATE * 3)) / 2
    sound[30 * RATE : 33 * RATE] = 0
    return sound.astype(np.float32)


def encode(sound: NDArray[np.float32], start_s: float, stop_s: float) -> SpeechTrack:
    """What a caller does: cut the samples of each window, encode, assemble."""
    encoder = LogMelEncoder()
    indices = speech.window_indices(start_s, stop_s)
    windows = []
    for k in indices:
        first, last = (round(bound * RATE) for bound in speech.window_bounds_s(k))
        samples = np.zeros(last - first, np.float32)
        samples[max(-first, 0) : len(sound) - first] = sound[max(first, 0) : last]
        windows.append(speech.encode_window(encoder, samples, k))
    return speech.assemble(windows, indices.start, encoder.rate)


@pytest.mark.parametrize(
    ("start_s", "stop_s", "expected"),
    [(0, 20, [0]), (0, 20.01, [0, 1]), (19.99, 20, [0]), (20, 61, [1, 2, 3]), (-3, 1, [0]), (5, 5, [0]), (-9, -3, [])],
)
def test_windows_cover_what_is_asked(start_s: float, stop_s: float, expected: list[int]) -> None:
    assert list(speech.window_indices(start_s, stop_s)) == expected


def test_bounds_hold_the_context() -> None:
    assert speech.window_bounds_s(0) == (-5, 25)
    assert speech.window_bounds_s(2) == (35, 65)


def test_the_whole_speech_is_covered_once(sound: NDArray[np.float32]) -> None:
    track = encode(sound, 0, 47.3)
    assert track.features.shape == (3000, 80)
    assert track.level_db.shape == (3000,)
    assert (track.start_s, track.rate) == (0, 50)


@pytest.mark.parametrize(("start_s", "stop_s"), [(0, 12), (19, 21), (41, 44), (25, 47.3)])
def test_features_do_not_depend_on_the_request(sound: NDArray[np.float32], start_s: float, stop_s: float) -> None:
    whole, part = encode(sound, 0, 47.3), encode(sound, start_s, stop_s)
    offset = round(part.start_s * part.rate)
    np.testing.assert_array_equal(part.features, whole.features[offset : offset + len(part.features)])
    np.testing.assert_array_equal(part.level_db, whole.level_db[offset : offset + len(part.level_db)])
    assert part.start_s <= start_s
    assert part.start_s + len(part.features) / part.rate >= stop_s


def test_windows_meet_without_a_seam(sound: NDArray[np.float32]) -> None:
    at_once = LogMelEncoder()(sound[10 * RATE : 30 * RATE])
    np.testing.assert_allclose(encode(sound, 0, 40).features[550:1450], at_once[50:950], atol=1e-4)


def test_levels_are_decibels_of_full_scale() -> None:
    sound = np.zeros(30 * RATE, np.float32)
    sound[4 * RATE : 7 * RATE] = 0.1
    features, level_db = speech.encode_window(LogMelEncoder(), sound, 0)
    assert len(features) == len(level_db) == 1000
    np.testing.assert_allclose(level_db[:97], -20, atol=1e-4)
    assert level_db[100] == pytest.approx(-20 - 10 * np.log10(2), abs=1e-3)
    assert (level_db[103:] == -120).all()


def test_digital_silence_is_finite() -> None:
    features, level_db = speech.encode_window(LogMelEncoder(), np.zeros(30 * RATE, np.float32), 0)
    assert np.isfinite(features).all()
    assert (level_db == -120).all()


def test_nothing_to_assemble_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one window"):
        speech.assemble([], 0, 50)
