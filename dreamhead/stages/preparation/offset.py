"""By how much sound comes late: the lips are compared with what speech predicts, at every lag."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import LandmarkSettings, OffsetSettings
from dreamhead.faces import topology
from dreamhead.models.audio_encoder import SpeechEncoder
from dreamhead.pipelines.audio_to_landmarks import AudioToLandmarks
from dreamhead.records import VideoInfo
from dreamhead.stages.preparation.sound import FeatureGrid, Sound
from dreamhead.stages.preparation.tracks import Candidate

LAG_STEP_S = 0.02
"""Lags that are tried lie this far apart; a parabola through the best one and its neighbours says more."""

Curve = NDArray[np.float64]


SHORT_S = 4.0
"""Of less sound than this more is asked for: chance makes short curves alike."""


@dataclass(frozen=True, kw_only=True)
class LagEstimate:
    """The lag of a whole source's sound, and how far to trust it."""

    lag_s: float
    """Seconds by which the sound comes late."""
    score: float
    """At the best lag: a correlation, or SyncNet's confidence."""
    margin: float
    """Of the score at the best lag over the median of all lags."""
    method: str
    is_sure: bool


class ClipFit(NamedTuple):
    """How well one clip's lips go with the sound at its source's lag."""

    score: float
    follows: bool


Measured = tuple[LagEstimate, list[ClipFit]]


class OffsetMeter(Protocol):
    """Measures the lag of one source."""

    def __call__(self, info: VideoInfo, clips: Sequence[Candidate], sound: Sound) -> Measured:
        """The lag at which all clips together fit best, and each clip's fit there; raises MediaError."""


class Curves(NamedTuple):
    """One clip's lip opening: as seen, and as predicted from the sound at every lag. T frames, L lags."""

    seen: Curve
    """(T,)."""
    predicted: Curve
    """(L, T)."""


class LandmarkOffset:
    """Measures lags by the first stage's own network.

    Args:
        encoder: the one that the network was trained on.
    """

    def __init__(self, checkpoint: Checkpoint, encoder: SpeechEncoder, settings: OffsetSettings) -> None:
        sampling = LandmarkSettings(num_inference_steps=settings.num_inference_steps, guidance_scale=1.0)
        self._pipeline = AudioToLandmarks.from_checkpoint(checkpoint, sampling, torch.device("cpu"))
        self._encoder = encoder
        self._settings = settings
        self._lags_s = lags(settings.max_lag_s)

    def __call__(self, info: VideoInfo, clips: Sequence[Candidate], sound: Sound) -> Measured:
        """See OffsetMeter."""
        grid = FeatureGrid(self._encoder, sound, 0.0)
        curves = [self._curves(clip, grid) for clip in clips]
        estimate = self._estimate(curves, sum(clip.seconds for clip in clips))
        scores = [float(np.interp(estimate.lag_s, self._lags_s, pooled_correlation([clip]))) for clip in curves]
        return estimate, [ClipFit(score, score >= self._settings.min_clip_correlation) for score in scores]

    def _curves(self, clip: Candidate, grid: FeatureGrid) -> Curves:
        """Predict a clip's lip opening from the sound around it."""
        reach = self._settings.max_lag_s
        times_s = np.arange(clip.times_s[0] - reach, clip.times_s[-1] + reach + LAG_STEP_S, LAG_STEP_S)
        speech = grid.track(times_s[0] - self._pipeline.context_s, times_s[-1] + self._pipeline.context_s)
        openings = [
            _opening(self._pipeline(speech, times_s, clip.track.neutral, seed))
            for seed in range(self._settings.samples)
        ]
        predicted = np.mean(openings, axis=0)
        heard = [np.interp(clip.times_s + lag_s, times_s, predicted) for lag_s in self._lags_s]
        return Curves(clip.opening(), np.stack(heard))

    def _estimate(self, clips: Sequence[Curves], seconds: float) -> LagEstimate:
        settings = self._settings
        correlations = pooled_correlation(clips)
        best, score = peak(self._lags_s, correlations)
        margin = score - float(np.median(correlations))
        asked = settings.min_correlation * max(1.0, math.sqrt(SHORT_S / seconds))
        is_sure = is_inside(best, self._lags_s) and score >= asked and margin >= settings.min_margin
        return LagEstimate(lag_s=best, score=score, margin=margin, method="landmarks", is_sure=is_sure)


def is_inside(lag_s: float, lags_s: Curve) -> bool:
    """Whether a lag isn't at the end of what was tried, where the best one may lie beyond."""
    return bool(lags_s[0] + LAG_STEP_S / 2 < lag_s < lags_s[-1] - LAG_STEP_S / 2)


def lags(reach_s: float) -> Curve:
    """(L,) lags from -reach_s to reach_s, zero among them."""
    steps = round(reach_s / LAG_STEP_S)
    return np.arange(-steps, steps + 1, dtype=np.float64) * LAG_STEP_S


def pooled_correlation(clips: Sequence[Curves]) -> Curve:
    """(L,) Pearson correlation of what is seen and predicted, about each clip's own means; 0 where nothing moves."""
    shared = np.zeros(len(clips[0].predicted))
    seen_power, predicted_power = 0.0, np.zeros(len(shared))
    for clip in clips:
        seen = clip.seen - clip.seen.mean()
        predicted = clip.predicted - clip.predicted.mean(axis=1, keepdims=True)
        shared += predicted @ seen
        seen_power += float(seen @ seen)
        predicted_power += (predicted**2).sum(axis=1)
    scale = np.sqrt(seen_power * predicted_power)
    return np.divide(shared, scale, out=np.zeros_like(shared), where=scale > 1e-12)


def peak(places: Curve, values: Curve) -> tuple[float, float]:
    """Place and height of the highest of (L,) values at even places, by the parabola through it and its neighbours."""
    best = int(values.argmax())
    if best in (0, len(values) - 1):
        return float(places[best]), float(values[best])
    before, top, after = values[best - 1 : best + 2]
    bend = before - 2 * top + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    height = top - 0.25 * (before - after) * shift
    return float(places[best] + shift * (places[1] - places[0])), float(height)


def _opening(lower: NDArray[np.float32]) -> Curve:
    """(T,) gap of the lips' middles of (T, K, 3) lower faces."""
    points = topology.lower_face().tolist()
    upper, under = points.index(topology.UPPER_LIP_MIDDLE), points.index(topology.LOWER_LIP_MIDDLE)
    return np.asarray(np.linalg.norm(lower[:, upper] - lower[:, under], axis=-1), np.float64)
