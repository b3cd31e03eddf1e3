"""Where the mouth is at a time depends on the speech around it, and not on what else was asked for."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import LandmarkSettings
from dreamhead.faces import geometry, topology
from dreamhead.pipelines.audio_to_landmarks import (
    HOP,
    TICK_RATE,
    WINDOW,
    AudioToLandmarks,
    _window_before,
    silence,
    speech_at,
)
from dreamhead.records import SpeechTrack
from tests import tiny
from tests.toy_faces import canonical_face

NEUTRAL = canonical_face().astype(np.float32)
LOWER = topology.lower_face()


def track(seconds: float = 20.0, start_s: float = 0.0, quiet: tuple[float, float] = (-9.0, -9.0)) -> SpeechTrack:
    """Loud noise, silent between two times, all of it from one long recording."""
    times_s = np.arange(40 * 50) / 50
    features = np.random.default_rng(0).normal(size=(len(times_s), tiny.SPEECH_SIZE // 2)).astype(np.float32)
    level_db = np.where((times_s >= quiet[0]) & (times_s < quiet[1]), -90, -20).astype(np.float32)
    part = slice(round(start_s * 50), round((start_s + seconds) * 50))
    return SpeechTrack(features=features[part], level_db=level_db[part], start_s=start_s, rate=50.0)


def pipeline(**settings: object) -> AudioToLandmarks:
    return AudioToLandmarks(
        tiny.landmark_denoiser(), LandmarkSettings.model_validate({"num_inference_steps": 2, **settings})
    )


def openings(shapes: NDArray[np.float32]) -> NDArray[np.float64]:
    full = np.repeat(NEUTRAL[None], len(shapes), axis=0).astype(np.float64)
    full[:, LOWER] = shapes
    return np.asarray(geometry.lip_opening(full))


@pytest.mark.parametrize("rate", [25.0, 30000 / 1001, 60.0, 23.976])
def test_the_answer_does_not_depend_on_how_it_was_cut(rate: float) -> None:
    speak, speech = pipeline(), track()
    times_s = np.arange(round(8 * rate)) / rate + 1.0
    whole = speak(speech, times_s, NEUTRAL, 3)
    assert whole.shape == (len(times_s), len(LOWER), 3)
    cut = len(times_s) // 3 + 1
    pieces = np.concatenate([speak(speech, part, NEUTRAL, 3) for part in (times_s[:cut], times_s[cut:])])
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    alone = speak(speech, times_s[cut + 1 : cut + 2], NEUTRAL, 3)
    np.testing.assert_allclose(alone[0], whole[cut + 1], atol=1e-6)


def test_speech_further_than_the_context_changes_nothing() -> None:
    speak = pipeline()
    times_s = np.arange(10) / 29.97 + 10.003
    near = track(2 * speak.context_s + 0.4, start_s=round(times_s[0] - speak.context_s - 0.02, 2))
    assert near.start_s <= times_s[0] - speak.context_s
    np.testing.assert_allclose(speak(near, times_s, NEUTRAL, 0), speak(track(40), times_s, NEUTRAL, 0), atol=1e-6)


def test_other_frame_rates_see_the_same_motion() -> None:
    speak, speech = pipeline(), track()
    slow = speak(speech, np.arange(50) / 25 + 1, NEUTRAL, 0)
    fast = speak(speech, np.arange(100) / 50 + 1, NEUTRAL, 0)
    np.testing.assert_allclose(fast[::2], slow, atol=1e-6)
    np.testing.assert_allclose(fast[1:-1:2], (slow[:-1] + slow[1:]) / 2, atol=1e-6)


def test_times_may_come_in_any_order_and_again() -> None:
    speak, speech = pipeline(), track()
    times_s = np.array([2.0, 1.96, 1.92, 1.96, 2.0])
    shapes = speak(speech, times_s, NEUTRAL, 0)
    np.testing.assert_array_equal(shapes[0], shapes[4])
    np.testing.assert_array_equal(shapes[1], shapes[3])


def test_seed_speech_and_guidance_decide() -> None:
    times_s = np.arange(20) / 25 + 1
    first = pipeline()(track(), times_s, NEUTRAL, 0)
    np.testing.assert_array_equal(pipeline()(track(), times_s, NEUTRAL, 0), first)
    assert np.abs(pipeline()(track(), times_s, NEUTRAL, 1) - first).max() > 1e-4
    assert np.abs(pipeline()(track(start_s=0.5), times_s + 0.5, NEUTRAL, 0) - first).max() > 1e-4
    assert np.abs(pipeline(guidance_scale=3)(track(), times_s, NEUTRAL, 0) - first).max() > 1e-4


def test_no_articulation_is_the_resting_face_and_half_is_half() -> None:
    times_s = np.arange(20) / 25 + 1
    rest, half, full = (pipeline(articulation=x)(track(), times_s, NEUTRAL, 0) for x in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(rest, np.repeat(NEUTRAL[None, LOWER], 20, axis=0))
    np.testing.assert_allclose(half - rest, (full - rest) / 2, atol=1e-6)
    assert np.abs(full - rest).max() > 0.01


def test_points_beside_the_nose_hardly_move() -> None:
    moved = np.abs(pipeline()(track(), np.arange(50) / 25, NEUTRAL, 0) - NEUTRAL[LOWER]).max(axis=(0, 2))
    assert (moved[topology.lower_face_weight() == 0] == 0).all()


def test_silence_shuts_the_lips() -> None:
    speech, times_s = track(quiet=(4.0, 7.0)), np.arange(300) / 30
    shapes = pipeline()(speech, times_s, NEUTRAL, 0)
    inside = (times_s > 4.2) & (times_s < 6.8)
    np.testing.assert_allclose(shapes[inside], np.repeat(NEUTRAL[None, LOWER], inside.sum(), axis=0), atol=1e-6)
    assert openings(shapes)[inside].max() < 1e-5
    heard = (times_s < 3.8) | (times_s > 7.2)
    left_open = pipeline(close_in_silence=False)(speech, times_s, NEUTRAL, 0)
    np.testing.assert_array_equal(shapes[heard & (times_s > 0.2)], left_open[heard & (times_s > 0.2)])
    assert np.abs(left_open[inside] - NEUTRAL[LOWER]).max() > 0.01


def test_beyond_the_speech_is_silence() -> None:
    shapes = pipeline()(track(3.0), np.array([-2.0, 1.5, 5.0, 60.0]), NEUTRAL, 0)
    assert (openings(shapes) < 1e-5).tolist() == [True, False, True, True]


@pytest.mark.parametrize(("length_s", "shuts"), [(0.16, False), (0.22, False), (0.26, True), (1.0, True)])
def test_only_a_long_pause_shuts(length_s: float, shuts: bool) -> None:
    speech = track(quiet=(4.0, 4.0 + length_s))
    share = silence(speech, np.linspace(3, 6, 301), -45, 0.24)
    assert share.min() == 0
    assert (share.max() > 0.9) == shuts
    assert (share.max() == 0) == (not shuts)


def test_the_mouth_shuts_softly_and_on_time() -> None:
    times_s = np.linspace(3, 8, 501)
    share = silence(track(quiet=(4.0, 6.0)), times_s, -45, 0.24)
    assert np.abs(np.diff(share)).max() < 0.2
    assert share[np.searchsorted(times_s, 4.0)] == pytest.approx(0.5, abs=0.15)
    assert share[np.searchsorted(times_s, 6.0)] == pytest.approx(0.5, abs=0.15)
    assert (share[(times_s > 4.15) & (times_s < 5.85)] > 0.99).all()


def test_no_speech_at_all_is_silence() -> None:
    empty = SpeechTrack(features=np.zeros((0, 80), np.float32), level_db=np.zeros(0, np.float32), start_s=0, rate=50)
    np.testing.assert_array_equal(silence(empty, np.arange(3.0), -45, 0.24), 1)


def test_speech_is_read_between_features_and_zero_beyond() -> None:
    speech = SpeechTrack(
        features=np.array([[0.0], [10.0], [20.0]], np.float32), level_db=np.zeros(3, np.float32), start_s=1.0, rate=50.0
    )
    heard = speech_at(speech, np.array([0.9, 1.0, 1.01, 1.02, 1.1]))
    np.testing.assert_allclose(heard, [[0, 0], [0, 10], [5, 15], [10, 20], [0, 0]], atol=1e-4)


def test_every_tick_lies_in_the_two_windows_that_are_sampled() -> None:
    for tick in range(-200, 200):
        starts = [(_window_before(tick) + i) * HOP - (WINDOW - HOP) for i in range(2)]
        covering = [start for start in range(-480, 480) if start % HOP == HOP - (WINDOW - HOP) % HOP]
        assert [s for s in covering if s <= tick < s + WINDOW] == [s for s in starts if s <= tick < s + WINDOW]
        assert any(s <= tick < s + WINDOW for s in starts)
    assert pipeline().context_s == WINDOW / TICK_RATE
