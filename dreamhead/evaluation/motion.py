"""Figures of motion: how our lips move next to the speaker's own."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from dreamhead.evaluation import metrics
from dreamhead.evaluation.settings import EvaluationSettings
from dreamhead.faces import geometry
from dreamhead.faces.crop import CROP_WIDTH
from dreamhead.faces.reference import LIPS
from dreamhead.media.audio import read_speech
from dreamhead.models.audio_encoder import SAMPLE_RATE

PIXELS_PER_UNIT = 256 / CROP_WIDTH
"""Of a 256-pixel crop, for one eye distance."""
MOST_DELAY_S = 0.5
CLOSURE_SLACK_S = 0.04
"""By which our lips may shut early or late and still meet a closure: a frame at 25 a second."""

Floats = NDArray[np.floating[Any]]


class Motion(NamedTuple):
    """Two faces in the canonical pose, in units of eye distance; NaN in frames that aren't judged or show no face."""

    ours: Floats
    """(T, 478, 3)."""
    truth: Floats
    """(T, 478, 3) the source's."""
    judged: NDArray[np.bool_]
    """(T,)."""

    @classmethod
    def of(cls, truth: NDArray[np.float32], ours: NDArray[np.float32], judged: NDArray[np.bool_]) -> Self:
        """From (T, 478, 3) landmarks in pixels, each brought to the canonical pose by its own rigid points."""
        return cls(_canonical(ours, judged), _canonical(truth, judged), judged)

    @property
    def our_opening(self) -> Floats:
        """(T,)."""
        return geometry.lip_opening(self.ours)

    @property
    def true_opening(self) -> Floats:
        """(T,)."""
        return geometry.lip_opening(self.truth)

    def mouth_distance(self) -> NDArray[np.float64]:
        """(T,) mean distance of the lips' points from the source's, in the plane of the face."""
        return metrics.landmark_distance(self.ours[:, LIPS, :2], self.truth[:, LIPS, :2])


def motion_figures(
    motion: Motion,
    spoken: NDArray[np.float64] | None,
    delay_s: float,
    rate: float,
    has_truth: bool,
    settings: EvaluationSettings,
) -> dict[str, float]:
    """Figures by name; NaN where one can't be had.

    Args:
        spoken: (T,) lip opening that real lips had with the speech; None where there is none.
        delay_s: by which the file's sound is later than the speech that was given.
        rate: frames per second.
        has_truth: whether our lips should be where the source's are.
    """
    ours, truth = motion.our_opening, motion.true_opening
    most, frame_ms = round(settings.most_lag_s * rate), 1000 / rate
    with_own = metrics.lag_correlation(ours, truth, most)
    limit = metrics.shut_limit(truth, settings.shut_share)
    seen = np.isfinite(ours)
    closed = metrics.closure(ours, truth, limit, round(CLOSURE_SLACK_S * rate))
    found = {
        "correlation": with_own.at_zero,
        "correlation_best": with_own.best,
        "lag_ms": with_own.lag * frame_ms if np.isfinite(with_own.best) else np.nan,
        "concordance": metrics.concordance(ours, truth),
        "articulation": _ratio(metrics.spread(ours), metrics.spread(truth)),
        "shut": float((ours[seen] < limit).mean()) if seen.any() else np.nan,
        "closure": closed.met,
        "closure_false": closed.false,
        "jitter": _ratio(metrics.jitter(motion.ours[:, LIPS]), metrics.jitter(motion.truth[:, LIPS])),
        "faces_found": float(seen[motion.judged].mean()),
    }
    if spoken is not None:
        with_speech = metrics.lag_correlation(ours, spoken, most)
        found["speech_correlation"] = with_speech.best
        late_ms = with_speech.lag * frame_ms - 1000 * delay_s
        found["speech_lag_ms"] = late_ms if np.isfinite(with_speech.best) else np.nan
    return {**found, **_distances(motion)} if has_truth else found


def sound_delay_s(uri: str, given: NDArray[np.float32]) -> float:
    """Seconds by which the sound of a file is later than the (N,) samples at 16 kHz that it was made with.

    0 where these are silent, which can't be late. Raises MediaError.
    """
    if not given.any():
        return 0.0
    heard = read_speech(uri, 0.0, len(given) / SAMPLE_RATE, SAMPLE_RATE)
    return metrics.delay(heard, given, round(MOST_DELAY_S * SAMPLE_RATE)) / SAMPLE_RATE


def _distances(motion: Motion) -> dict[str, float]:
    mouth = _mean(motion.mouth_distance())
    face = _mean(metrics.landmark_distance(motion.ours[..., :2], motion.truth[..., :2]))
    return {
        "mouth_lmd": mouth,
        "mouth_lmd_px": mouth * PIXELS_PER_UNIT,
        "face_lmd": face,
        "face_lmd_px": face * PIXELS_PER_UNIT,
    }


def _canonical(landmarks: NDArray[np.float32], judged: NDArray[np.bool_]) -> Floats:
    known = np.where(judged[:, None, None], landmarks, np.nan)
    return geometry.fit_pose(known).to_canonical(known)


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ratio(ours: float, truth: float) -> float:
    return ours / truth if truth > 0 else float("nan")
