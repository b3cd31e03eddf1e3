"""Changed speech is changed by what it says, keeps its time, and is encoded at the right place."""

import numpy as np
import pytest

from dreamhead.config import VariantSettings
from dreamhead.models.audio_encoder import LogMelEncoder
from dreamhead.pipelines.speech import encode_window, window_bounds_s
from dreamhead.stages.preparation.sound import FeatureGrid, Sound
from dreamhead.stages.preparation.variants import (
    SLOPES,
    Change,
    Variants,
    _noise,
    apply_change,
    draw_change,
    feature_count,
    generator_of,
)
from tests.stages.preparation.conftest import babble

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def loudest_hertz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * RATE / len(samples))


def centre_s(samples: np.ndarray) -> float:
    energy = samples.astype(np.float64) ** 2
    return float((energy * np.arange(len(energy))).sum() / energy.sum() / RATE)


def changed(samples: np.ndarray, change: Change, level_db: float = -23.0) -> np.ndarray:
    count = round(len(samples) / change.speed)
    return apply_change(samples, change, level_db, count, np.random.default_rng(0))


def test_no_change_changes_nothing() -> None:
    np.testing.assert_array_equal(changed(tone(300), Change()), tone(300))


def test_gain_is_in_decibels() -> None:
    np.testing.assert_allclose(changed(tone(300), Change(gain_db=-6.0)), 0.5012 * tone(300), atol=1e-5)


@pytest.mark.parametrize("slope", SLOPES)
def test_noise_is_so_far_below_the_speech(slope: float) -> None:
    silence = np.zeros(RATE, np.float32)
    noisy = changed(silence, Change(snr_db=10.0, slope=slope), level_db=-20.0)
    assert 20 * np.log10(np.sqrt(np.mean(noisy**2))) == pytest.approx(-30, abs=0.01)


def test_noise_falls_by_its_slope() -> None:
    spectrum = [np.abs(np.fft.rfft(_noise(RATE, slope, np.random.default_rng(0)))) for slope in SLOPES]
    ratio = [20 * np.log10(part[4000:8000].mean() / part[400:800].mean()) for part in spectrum]
    np.testing.assert_allclose(ratio, [0, -10, -20], atol=1.0)


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_speed_alone_keeps_the_pitch(speed: float) -> None:
    faster = changed(tone(400, 2.0), Change(speed=speed))
    assert len(faster) == round(2 * RATE / speed)
    assert loudest_hertz(faster) == pytest.approx(400, abs=3)


@pytest.mark.parametrize("pitch", [0.84, 1.19])
def test_pitch_alone_keeps_the_length(pitch: float) -> None:
    higher = changed(tone(400, 2.0), Change(pitch=pitch))
    assert len(higher) == 2 * RATE
    assert loudest_hertz(higher) == pytest.approx(400 * pitch, abs=3)


@pytest.mark.parametrize("change", [Change(speed=1.1), Change(pitch=1.12), Change(speed=0.92, pitch=0.9)])
def test_a_moment_stays_where_it_belongs(change: Change) -> None:
    samples, burst = np.zeros(2 * RATE, np.float32), round(1.3 * RATE)
    samples[burst - 400 : burst + 400] = babble(0.05)[:800] * np.hanning(800)
    assert centre_s(changed(samples, change)) == pytest.approx(centre_s(samples) / change.speed, abs=0.005)


def test_a_clip_draws_the_same_changes_whatever_is_beside_it() -> None:
    settings = VariantSettings()
    first, again, other = (
        [str(draw_change(generator, settings)) for _ in range(5)]
        for generator in (generator_of("a"), generator_of("a"), generator_of("b"))
    )
    assert first == again
    assert first != other


def test_changes_stay_in_their_ranges_and_say_so() -> None:
    settings = VariantSettings(speed=(0.95, 1.05), pitch_semitones=(0.0, 0.0), gain_db=(-3.0, -3.0), change_share=1.0)
    changes = [draw_change(generator_of(str(number)), settings) for number in range(50)]
    assert all(0.95 <= change.speed <= 1.05 and change.pitch == 1 and change.gain_db == -3 for change in changes)
    assert all(change.snr_db is not None and 5 <= change.snr_db <= 30 for change in changes)
    assert len({change.speed for change in changes}) > 5
    assert (
        str(Change(gain_db=-3.0, speed=1.05, snr_db=12.3)) == "gain -3.0 dB, speed 1.05, noise 12.3 dB below, slope 0"
    )
    quiet = VariantSettings(change_share=0.0)
    assert draw_change(generator_of("a"), quiet).snr_db is None


def test_the_first_variant_is_what_dubbing_hears() -> None:
    samples, encoder = babble(12.0), LogMelEncoder()
    variants = Variants(encoder, Sound(samples), 0.0, VariantSettings(count=2, unchanged=2))
    (first, second) = variants("clip", 4.0, 3.0)
    start_s, stop_s = window_bounds_s(0)
    heard = Sound(samples).read(round(start_s * RATE), round(stop_s * RATE))
    expected = encode_window(encoder, heard, 0)[0][200:350]
    np.testing.assert_array_equal(np.frombuffer(first["data"], np.float16).reshape(-1, 80), expected.astype(np.float16))
    assert (first["speed"], first["change"]) == (1.0, "")
    # A spectrogram doesn't know its place in the window, so the second says the same.
    np.testing.assert_allclose(np.frombuffer(second["data"], np.float16).reshape(-1, 80), expected, atol=2e-3)


def test_lag_moves_the_features() -> None:
    samples, encoder = babble(12.0), LogMelEncoder()
    late = Variants(encoder, Sound(samples), 0.12, VariantSettings(count=1, unchanged=1))("clip", 4.0, 3.0)
    moved = Variants(encoder, Sound(samples[round(0.12 * RATE) :]), 0.0, VariantSettings(count=1, unchanged=1))
    expected = np.frombuffer(moved("clip", 4.0, 3.0)[0]["data"], np.float16)
    np.testing.assert_allclose(np.frombuffer(late[0]["data"], np.float16), expected, atol=2e-3)


def test_changed_variants_are_as_long_as_their_speed_says() -> None:
    settings = VariantSettings(count=6, unchanged=1, change_share=1.0)
    rows = Variants(LogMelEncoder(), Sound(babble(30.0)), 0.0, settings)("clip", 2.0, 24.0)
    assert len(rows) == 6
    for row in rows:
        assert len(np.frombuffer(row["data"], np.float16)) == 80 * feature_count(24.0, row["speed"], 50.0)
    assert all("noise" in row["change"] for row in rows[1:])
    assert len({row["speed"] for row in rows}) > 3


def test_a_changed_variant_begins_with_the_clip() -> None:
    """Gain alone shifts every log-mel value by the same; so time must match to the sample."""
    settings = VariantSettings(count=2, unchanged=1, change_share=0.0, gain_db=(5.0, 5.0))
    unchanged, louder = Variants(LogMelEncoder(), Sound(babble(12.0)), 0.0, settings)("clip", 4.0, 3.0)
    first, second = (
        np.frombuffer(row["data"], np.float16).reshape(-1, 80).astype(float) for row in (unchanged, louder)
    )
    np.testing.assert_allclose(second - first, 5 / 10 / 4, atol=4e-3)


def test_grids_give_nearest_features_and_forget_old_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamhead.stages.preparation.sound.KEPT_WINDOWS", 2)
    grid = FeatureGrid(LogMelEncoder(), Sound(babble(90.0)), 0.5)
    whole = grid.track(0.5, 90.0)
    assert (whole.start_s, len(whole.features)) == (0.5, 5 * 1000)
    np.testing.assert_array_equal(grid.features(41.009, 7), whole.features[2025:2032])
    assert len(grid._windows) == 2


def test_sound_is_silent_where_there_is_none() -> None:
    sound = Sound(np.ones(10, np.float32), first=5)
    np.testing.assert_array_equal(sound.read(3, 8), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(sound.read(13, 17), [1, 1, 0, 0])
    np.testing.assert_array_equal(sound.read(30, 32), [0, 0])
    assert Sound(tone(440, 2.0)).level_db(0.5, 1.5) == pytest.approx(-23.01, abs=0.05)
    assert sound.level_db(2.0, 3.0) == -120
