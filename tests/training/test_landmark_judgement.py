"""The first stage is judged by figures whose answers are known: a stage that plays back the clip's own motion."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import LandmarkSettings
from dreamhead.faces import topology
from dreamhead.pipelines.audio_to_landmarks import AudioToLandmarks
from dreamhead.records import SpeechTrack
from dreamhead.training.dataset import Clip
from dreamhead.training.landmark_stage import LandmarkTask, judge_clip, motion_of
from dreamhead.training.settings import LandmarkStage
from tests import tiny


class Player(AudioToLandmarks):
    """Hears the clip's own speech, and plays its motion so much wider, so many seconds late; else stays shut."""

    def __init__(self, clip: Clip, width: float, late_s: float = 0.0) -> None:
        super().__init__(tiny.landmark_denoiser(), LandmarkSettings())
        self._motion = motion_of(clip)
        self._own = clip.variants[0].features
        self._width, self._late_s = width, late_s

    def __call__(
        self, speech: SpeechTrack, times_s: NDArray[np.float64], neutral: Any, seed: int, articulation: float = np.nan
    ) -> NDArray[np.float32]:
        knows = np.array_equal(speech.features, self._own)
        move = self._motion.at(times_s - self._late_s) * (self._width if knows else 0)
        return np.asarray(neutral[topology.lower_face()] + move, np.float32)


def test_its_own_motion_is_perfect(toy_clips: list[Clip]) -> None:
    truth, ours, found = judge_clip(Player(toy_clips[0], 1.0), toy_clips[0])
    np.testing.assert_allclose(ours, truth, atol=1e-6)
    perfect = ("correlation", "correlation_at_zero", "concordance", "articulation_ratio", "jitter_ratio", "closure")
    assert [found[name] for name in perfect] == pytest.approx([1] * 6)
    assert (found["lag"], found["false_closure"]) == (0, 0)
    assert np.isnan(found["shuffled"])


def test_half_the_motion_agrees_less_and_shuts_where_it_should_not(toy_clips: list[Clip]) -> None:
    half, wide = (judge_clip(Player(toy_clips[0], width), toy_clips[0])[2] for width in (0.5, 1.6))
    assert half["articulation_ratio"] == pytest.approx(0.5, abs=0.02)
    assert wide["articulation_ratio"] == pytest.approx(1.6, abs=0.02)
    for found in (half, wide):
        assert found["correlation"] > 0.99
        assert found["concordance"] < 0.85


def test_late_lips_are_late_and_miss_closures(toy_clips: list[Clip]) -> None:
    found = judge_clip(Player(toy_clips[0], 1.0, late_s=0.16), toy_clips[0])[2]
    assert found["lag"] == 4
    assert found["correlation"] > 0.99 > 0.6 > found["correlation_at_zero"]
    assert found["concordance"] < 0.6
    assert found["closure"] < 1


def test_a_mouth_that_never_shuts_has_no_false_closures_and_no_warning(toy_clips: list[Clip]) -> None:
    task = LandmarkTask(tiny.landmark_denoiser(), LandmarkStage())
    found = task.validate([toy_clips[0]]).figures
    assert set(found) == set(judge_clip(Player(toy_clips[0], 1.0), toy_clips[0])[2])
    assert found["closure"] >= 0 or np.isnan(found["closure"])
