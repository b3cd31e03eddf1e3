"""Lags of synthetic curves, and of a toy network's own mouth when its sound comes late."""

from typing import Any

import numpy as np
import pytest

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import OffsetSettings
from dreamhead.models.audio_encoder import LogMelEncoder
from dreamhead.stages.preparation.offset import (
    Curves,
    LandmarkOffset,
    is_inside,
    lags,
    peak,
    pooled_correlation,
)
from dreamhead.stages.preparation.sound import Sound
from tests.stages.preparation.conftest import babble, candidate, heard_opening, shifted


def test_a_parabola_finds_its_own_top() -> None:
    places = np.arange(-5, 6) * 0.02
    place, height = peak(places, 0.7 - 9 * (places - 0.0131) ** 2)
    assert place == pytest.approx(0.0131, abs=1e-9)
    assert height == pytest.approx(0.7, abs=1e-9)


@pytest.mark.parametrize("best", [0, 10])
def test_the_last_place_is_taken_as_it_is(best: int) -> None:
    values = np.zeros(11)
    values[best] = 1
    assert peak(np.arange(11.0), values) == (best, 1)


def test_lags_hold_zero_and_both_ends() -> None:
    np.testing.assert_allclose(lags(0.4)[[0, 20, 40]], [-0.4, 0, 0.4], atol=1e-12)
    assert [is_inside(lag_s, lags(0.4)) for lag_s in (-0.4, -0.38, 0.37, 0.4)] == [False, True, True, False]


def test_correlation_is_pearsons_and_pools_about_each_clips_mean() -> None:
    generator = np.random.default_rng(0)
    seen = generator.standard_normal(50)
    predicted = generator.standard_normal((3, 50))
    one = pooled_correlation([Curves(seen, predicted)])
    np.testing.assert_allclose(one, [np.corrcoef(seen, row)[0, 1] for row in predicted])
    # Another level of the same clip changes nothing; a clip that doesn't move neither.
    twice = pooled_correlation(
        [Curves(seen, predicted), Curves(seen + 5, predicted - 3), Curves(seen * 0, predicted * 0)]
    )
    np.testing.assert_allclose(twice, one)
    still = pooled_correlation([Curves(np.ones(9), np.ones((2, 9)))])
    np.testing.assert_array_equal(still, [0, 0])


@pytest.fixture(scope="module")
def meter(tiny_weights: str) -> LandmarkOffset:
    return LandmarkOffset(Checkpoint.load(tiny_weights), LogMelEncoder(), OffsetSettings())


@pytest.mark.parametrize("late_s", [-0.08, 0.0, 0.12])
def test_the_lag_of_late_sound_is_found(meter: LandmarkOffset, tiny_weights: str, late_s: float) -> None:
    samples = babble(8.0)
    opening = heard_opening(tiny_weights, samples, np.arange(150) / 25 + 0.5)
    clips = [
        candidate(opening[part], times_s=np.arange(part.start, part.stop) / 25 + 0.5)
        for part in (slice(0, 70), slice(70, 150))
    ]
    late = Sound(shifted(samples, late_s) if late_s >= 0 else samples[round(-late_s * 16_000) :])
    estimate, fits = meter(_no_video(), clips, late)
    assert estimate.lag_s == pytest.approx(late_s, abs=0.012)
    assert estimate.is_sure
    assert estimate.score > 0.8
    assert estimate.margin > 0.3
    assert [fit.follows for fit in fits] == [True, True]


def test_other_sound_isnt_believed(meter: LandmarkOffset, tiny_weights: str) -> None:
    opening = heard_opening(tiny_weights, babble(8.0, seed=1), np.arange(150) / 25 + 0.5)
    estimate, fits = meter(_no_video(), [candidate(opening)], Sound(babble(8.0, seed=2)))
    assert not estimate.is_sure
    assert estimate.score < 0.5
    assert fits[0].score == pytest.approx(estimate.score, abs=0.05)


def test_less_sound_must_fit_better(tiny_weights: str) -> None:
    settings = OffsetSettings(min_correlation=0.6)
    meter = LandmarkOffset(Checkpoint.load(tiny_weights), LogMelEncoder(), settings)
    seen = np.sin(np.arange(50) / 3)
    noisy = np.stack([seen + 0.75 * np.random.default_rng(0).standard_normal(50)] * 41)
    noisy[:20] = noisy[21:] = np.random.default_rng(1).standard_normal((20, 50))
    assert pooled_correlation([Curves(seen, noisy)])[20] == pytest.approx(0.8, abs=0.03)
    assert meter._estimate([Curves(seen, noisy)], 4.0).is_sure
    assert not meter._estimate([Curves(seen, noisy)], 2.0).is_sure


def _no_video() -> Any:
    """What isn't asked for anything."""
    return None
