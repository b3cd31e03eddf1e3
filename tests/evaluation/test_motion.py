"""Motion of faces that are known: a toy mouth that opens and shuts."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.evaluation.motion import PIXELS_PER_UNIT, Motion, motion_figures, sound_delay_s
from dreamhead.evaluation.settings import EvaluationSettings
from dreamhead.media.audio import write_wav
from tests.toy_faces import canonical_face, posed, turn

OPENINGS = 0.12 * (1 + np.sin(np.arange(80) / 4))
SETTINGS = EvaluationSettings()


def faces(openings: NDArray[np.float64], eye_distance_px: float = 40.0, roll_deg: float = 0.0) -> NDArray[np.float32]:
    """(T, 478, 3) in pixels."""
    return np.stack(
        [
            posed(canonical_face(gap), eye_distance_px, (100 + t, 80), turn(0, 0, roll_deg))
            for t, gap in enumerate(openings)
        ]
    )


def figures(ours: NDArray[np.float32], has_truth: bool = True, **more: object) -> dict[str, float]:
    motion = Motion.of(faces(OPENINGS), ours, np.ones(len(ours), bool))
    spoken = more.get("spoken", motion.true_opening)
    delay_s, rate = float(more.get("delay_s", 0.0)), float(more.get("rate", 25.0))  # type: ignore[arg-type]
    return motion_figures(motion, spoken, delay_s, rate, has_truth, SETTINGS)  # type: ignore[arg-type]


def test_the_same_motion_is_perfect_wherever_the_head_is() -> None:
    found = figures(faces(OPENINGS, 55.0, roll_deg=20))
    assert found["correlation"] == pytest.approx(1)
    assert (found["lag_ms"], found["speech_lag_ms"], found["faces_found"]) == (0, 0, 1)
    assert found["articulation"] == pytest.approx(1, abs=1e-3)
    assert found["jitter"] == pytest.approx(1, abs=1e-2)
    assert found["mouth_lmd"] == pytest.approx(0, abs=1e-4)
    assert found["face_lmd_px"] == pytest.approx(0, abs=1e-2)


def test_late_lips_have_a_positive_lag_less_the_sounds_own_delay() -> None:
    found = figures(faces(np.roll(OPENINGS, 2)), delay_s=0.02)
    assert found["lag_ms"] == pytest.approx(80)
    assert found["speech_lag_ms"] == pytest.approx(60)
    assert found["correlation_best"] > 0.99 > found["correlation"]


def test_a_lag_is_a_time_and_is_looked_for_as_far_at_any_rate() -> None:
    for rate, frames in ((25.0, 5), (100.0, 20), (10.0, 2)):
        found = figures(faces(np.roll(OPENINGS, frames)), rate=rate)
        assert found["lag_ms"] == pytest.approx(200)


def test_the_same_lips_agree_and_shut_together() -> None:
    found = figures(faces(OPENINGS))
    assert found["concordance"] == pytest.approx(1, abs=1e-3)
    assert (found["closure"], found["closure_false"]) == (1, 0)


def test_lips_that_open_too_wide_go_with_the_speaker_and_dont_agree() -> None:
    found = figures(faces(1.5 * OPENINGS))
    assert found["correlation"] > 0.99
    width, shift = 1.5, 0.5 * OPENINGS.mean() / OPENINGS.std()
    assert found["concordance"] == pytest.approx(2 * width / (width**2 + 1 + shift**2), abs=0.03)


def test_closures_that_are_missed_and_closures_that_are_made_up() -> None:
    openings = np.full(80, 0.2)
    openings[[10, 30, 50, 70]] = 0
    ours = np.full(80, 0.2)
    ours[[11, 31, 40]] = 0
    motion = Motion.of(faces(openings), faces(ours), np.ones(80, bool))
    found = motion_figures(motion, None, 0, 25, True, SETTINGS)
    assert found["closure"] == pytest.approx(0.5)
    assert found["closure_false"] == pytest.approx(1 / 3)
    # At 10 frames a second a frame is more than the 40 ms that are allowed.
    assert motion_figures(motion, None, 0, 10, True, SETTINGS)["closure"] == 0


def test_half_the_motion_is_half_the_articulation() -> None:
    found = figures(faces(OPENINGS / 2))
    assert found["articulation"] == pytest.approx(0.5, abs=0.02)
    assert found["mouth_lmd_px"] == pytest.approx(found["mouth_lmd"] * PIXELS_PER_UNIT)
    assert 0.01 < found["mouth_lmd"] < OPENINGS.max()


def test_a_mouth_that_stays_shut_is_shut_and_correlates_with_nothing() -> None:
    found = figures(faces(np.zeros(len(OPENINGS))), has_truth=False, spoken=None)
    assert found["shut"] == 1
    assert found["articulation"] == pytest.approx(0, abs=1e-4)
    assert "mouth_lmd" not in found
    assert "speech_correlation" not in found


def test_a_mouth_that_stays_open_is_not_shut() -> None:
    assert figures(faces(np.full(len(OPENINGS), 0.2)))["shut"] == 0


def test_a_face_that_is_lost_is_counted() -> None:
    ours = faces(OPENINGS)
    ours[10:30] = np.nan
    found = figures(ours)
    assert found["faces_found"] == pytest.approx(0.75)
    assert found["correlation"] == pytest.approx(1, abs=1e-6)


def test_frames_that_arent_judged_are_left_out() -> None:
    judged = np.ones(80, bool)
    judged[:40] = False
    ours = faces(np.concatenate([OPENINGS[::-1][:40], OPENINGS[40:]]))
    found = motion_figures(Motion.of(faces(OPENINGS), ours, judged), None, 0, 25, True, SETTINGS)
    assert found["correlation"] == pytest.approx(1, abs=1e-6)
    assert found["mouth_lmd"] == pytest.approx(0, abs=1e-4)


def test_sound_that_comes_late_in_a_file_is_measured(tmp_path: Path) -> None:
    given = np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.1
    path = tmp_path / "late.wav"
    write_wav(path, np.concatenate([np.zeros(1600, np.float32), given]), 16_000)
    assert sound_delay_s(str(path), given) == pytest.approx(0.1)
    assert sound_delay_s(str(path), np.zeros(16_000, np.float32)) == 0
