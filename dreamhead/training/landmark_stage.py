"""What training the first stage adds to the loop: windows of mouth motion and speech, and their loss."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.config import LandmarkSettings
from dreamhead.diffusion.objective import add_noise, make_scheduler
from dreamhead.errors import InputError
from dreamhead.evaluation.metrics import closure, concordance, jitter, lag_correlation, shut_limit
from dreamhead.evaluation.plot import plot
from dreamhead.faces import topology
from dreamhead.faces.geometry import lip_opening
from dreamhead.models.landmark_denoiser import LandmarkDenoiser, fit_basis
from dreamhead.pipelines.audio_to_landmarks import (
    TICK_RATE,
    WINDOW,
    AudioToLandmarks,
    articulation_gain,
    interpolate,
    speech_at,
)
from dreamhead.records import SpeechTrack
from dreamhead.training.dataset import Clip, ClipInfo, Variant
from dreamhead.training.settings import LandmarkStage
from dreamhead.training.task import Example, Figures, Judgement

LIP_WEIGHT = 6.0
VELOCITY_WEIGHT = 2.0
OPENING_WEIGHT = 4.0
EDGE_SHARE = 0.2
"""Share of windows that may reach over a clip's end, where nothing is heard and the mouth stays as it is."""
BASIS_FRAMES = 20_000
"""Most frames that the shape basis is fitted to."""
CURVES_SHOWN = 6
SHUT_SHARE = 0.2
"""Share of a speaker's own range of lip opening below which the mouth counts as shut."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """A clip's mouth at the clip's own frame rate, as if the speaker opened the mouth as wide as is typical."""

    neutral: NDArray[np.float32]
    """(478, 3) canonical resting face."""
    residual: NDArray[np.float32]
    """(T, K, 3) of the lower face."""
    frame_rate: float

    def at(self, times_s: NDArray[np.float64]) -> NDArray[np.float32]:
        """(N, K, 3) residuals at the given times from the first frame on."""
        return interpolate(self.residual, times_s * self.frame_rate).astype(np.float32)

    def opening(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) lip opening at the given times, canonical units."""
        return np.asarray(lip_opening(full_face(self.neutral, self.at(times_s))), np.float64)


def motion_of(clip: Clip) -> Motion:
    """Mouth motion of a clip, its residuals divided by the speaker's articulation."""
    lower = topology.lower_face()
    residual = (clip.canonical()[:, lower] - clip.neutral[lower]) * topology.lower_face_weight()[:, None]
    residual /= articulation_gain(clip.articulation)
    return Motion(neutral=clip.neutral, residual=residual.astype(np.float32), frame_rate=clip.frame_rate)


class LandmarkTask:
    """Examples and loss of the first stage; see `Task`."""

    progress = 0.0
    score = "correlation"

    def __init__(self, model: LandmarkDenoiser, settings: LandmarkStage) -> None:
        self.model = model
        self._augmentation = settings.augmentation
        self._scheduler = make_scheduler()
        self._weight = torch.from_numpy(point_weights())
        self._motions: WeakKeyDictionary[Clip, Motion] = WeakKeyDictionary()

    def usable(self, clip: ClipInfo) -> bool:
        """Whether a clip has speech, and half a window of frames."""
        return clip.spoken and clip.frames * TICK_RATE >= WINDOW / 2 * clip.frame_rate

    def prepare(self, clips: Sequence[ClipInfo]) -> None:
        """Clips are read as they are drawn."""

    def state(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """There is nothing to take."""

    def begin(self, clips: Iterable[Clip]) -> dict[str, float]:
        """Fit the shape basis, to both mirror images; `explained` is the share of variance that it holds."""
        motions = [motion_of(clip) for clip in clips]
        if not motions:
            raise InputError("no training clip has speech and half a window of frames")
        every = max(1, sum(len(motion.residual) for motion in motions) // BASIS_FRAMES)
        residuals = np.concatenate([motion.residual[::every] for motion in motions])
        neutrals = np.stack([motion.neutral for motion in motions])
        both = [torch.from_numpy(np.concatenate([part, flipped])) for part, flipped in _mirrored(residuals, neutrals)]
        return fit_basis(self.model, both[0], both[1][:, topology.lower_face()])

    def example(self, clip: Clip, generator: np.random.Generator) -> Example:
        """A window of T ticks: `residual` (T, K, 3), `speech` (T, C), `neutral` (K, 3), `keep` ()."""
        change = self._augmentation
        motion = self._motion(clip)
        variant = clip.variants[int(generator.integers(len(clip.variants)))]
        times_s, inside = _window(ticks_of(clip, variant), generator)
        speech = heard(clip, variant, times_s)
        speech = speech * (1 + change.speech_gain * generator.standard_normal())
        speech += change.speech_noise * generator.standard_normal(speech.shape)
        speech[~inside] = 0
        gain = np.float32(1 + change.motion_gain * generator.standard_normal())
        residual, neutral = motion.at(times_s * variant.speed) * gain, motion.neutral
        if generator.random() < change.flip:
            residual, neutral = mirror_lower(residual), mirror(neutral)
        noise = change.neutral_noise * generator.standard_normal((len(topology.lower_face()), 3))
        resting = neutral[topology.lower_face()] + noise
        keep = generator.random() >= change.speech_dropout
        parts = {"residual": residual, "speech": speech, "neutral": resting, "keep": np.array(keep)}
        return {name: np.asarray(part, np.float32) for name, part in parts.items()}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Figures]:
        """Errors of position, speed and lip opening, and their sum."""
        residual = batch["residual"]
        clean = self.model.encode(residual)
        noisy, timesteps = add_noise(self._scheduler, clean, 1.0, generator)
        predicted = self.model(noisy, timesteps, batch["speech"], batch["neutral"], batch["keep"])
        return self._compare(self.model.decode(predicted), residual)

    def finish(self, clips: Iterable[Clip]) -> None:
        """Nothing is fitted afterwards."""

    def validate(self, clips: Sequence[Clip]) -> Judgement:
        """Lip opening of what is sampled for each clip's own speech, against the clip's own."""
        settings = LandmarkSettings(close_in_silence=False)
        pipeline = AudioToLandmarks(self.model, settings)
        figures, curves = [], {}
        for clip in clips:
            truth, ours, found = judge_clip(pipeline, clip)
            figures.append(found)
            curves[clip.clip_id] = {"the clip's own": truth, "from its speech": ours}
        means = {name: _mean([found[name] for found in figures]) for name in figures[0]}
        shown = dict(list(curves.items())[:CURVES_SHOWN])
        return Judgement(figures=means, pictures={"lip opening": plot(shown, "tick", "lip opening, eye distances")})

    def _motion(self, clip: Clip) -> Motion:
        if clip not in self._motions:
            self._motions[clip] = motion_of(clip)
        return self._motions[clip]

    def _compare(self, predicted: Tensor, residual: Tensor) -> tuple[Tensor, Figures]:
        weight = self._weight.to(predicted.device)[:, None]
        error = (predicted - residual).square() * weight
        speed = (predicted.diff(dim=1) - residual.diff(dim=1)).square() * weight
        opening = (_opening(predicted) - _opening(residual)).square()
        parts = {
            "position": error.mean() * 1e4,
            "velocity": VELOCITY_WEIGHT * speed.mean() * 1e4,
            "opening": OPENING_WEIGHT * opening.mean() * 1e2,
        }
        total = torch.stack(list(parts.values())).sum()
        return total, {name: value.detach() for name, value in parts.items()}


def ticks_of(clip: Clip, variant: Variant) -> int:
    """Ticks of 25 a second that both a clip's motion, played at the variant's speed, and its features last."""
    seconds = min(len(clip.landmarks) / clip.frame_rate / variant.speed, len(variant.features) / clip.feature_rate)
    return int(seconds * TICK_RATE)


def heard(clip: Clip, variant: Variant, times_s: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, 2 C) speech as the network hears it at times from the variant's start."""
    level = np.zeros(len(variant.features), np.float32)
    return speech_at(
        SpeechTrack(features=variant.features, level_db=level, start_s=0.0, rate=clip.feature_rate), times_s
    )


def point_weights() -> NDArray[np.float32]:
    """(K,) weight of each lower-face point in the loss: lips count more, and the mean is 1."""
    lips = set(topology.OUTER_LOWER_LIP + topology.OUTER_UPPER_LIP)
    lips |= set(topology.INNER_LOWER_LIP + topology.INNER_UPPER_LIP)
    weights = np.array([LIP_WEIGHT if point in lips else 1.0 for point in topology.lower_face()], np.float32)
    normalised: NDArray[np.float32] = weights / weights.mean()
    return normalised


def full_face(neutral: NDArray[np.float32], residual: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, 478, 3) canonical shapes from (478, 3) neutral and (T, K, 3) residual."""
    shapes = np.repeat(neutral[None], len(residual), axis=0)
    shapes[:, topology.lower_face()] += residual
    return shapes


def mirror(shapes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 478, 3) canonical shapes or moves seen in a mirror."""
    mirrored: NDArray[np.float32] = (shapes * np.array([-1, 1, 1], np.float32))[..., topology.face_model().flip, :]
    return mirrored


def mirror_lower(residual: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, K, 3) residuals of the lower face seen in a mirror."""
    lower = topology.lower_face()
    full = np.zeros((len(residual), 478, 3), np.float32)
    full[:, lower] = residual
    return mirror(full)[:, lower]


def _mirrored(
    residuals: NDArray[np.float32], neutrals: NDArray[np.float32]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    return [(residuals, mirror_lower(residuals)), (neutrals, mirror(neutrals))]


def _window(ticks: int, generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(WINDOW,) times of a window of a clip, held at its ends, and which of them lie inside the clip."""
    reach = WINDOW // 4 if generator.random() < EDGE_SHARE or ticks < WINDOW else 0
    start = int(generator.integers(-reach, max(ticks - WINDOW + reach, -reach) + 1))
    place = np.arange(start, start + WINDOW)
    held = np.clip(place, 0, ticks - 1)
    return held / TICK_RATE, place == held


def judge_clip(
    pipeline: AudioToLandmarks, clip: Clip
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, float]]:
    """A clip's lip opening, that of what is sampled from its speech, both (N,) on ticks, and how they compare.

    Openings are in units of eye distance, those of a speaker who opens the mouth as wide as is typical: so the figures
    are those of a dub whose width is matched to the speaker's.

    Returns:
        The clip's own opening, ours, and by name: `correlation` at the best lag, `lag` in ticks, `correlation_at_zero`
        and `concordance` without one; `shuffled`, the correlation that is left when the speech is another part's;
        `articulation_ratio`, our spread over the clip's; `jitter_ratio`; `closure`, the share of the moments in which
        the real lips are shut and ours are too, and `false_closure`, the share of our shut moments in which they
        aren't, NaN where there is no such moment.
    """
    motion, variant = motion_of(clip), clip.variants[0]
    times_s = np.arange(ticks_of(clip, variant)) / TICK_RATE
    truth = motion.opening(times_s)
    features = variant.features
    said, shuffled = (_sampled(pipeline, clip, given, times_s) for given in (features, _rolled(features)))
    ours = np.asarray(lip_opening(full_face(motion.neutral, said)), np.float64)
    others = np.asarray(lip_opening(full_face(motion.neutral, shuffled)), np.float64)
    found = lag_correlation(ours, truth)
    shut = closure(ours, truth, shut_limit(truth, SHUT_SHARE))
    return (
        truth,
        ours,
        {
            "correlation": found.best,
            "correlation_at_zero": found.at_zero,
            "lag": float(found.lag),
            "concordance": concordance(ours, truth),
            "shuffled": lag_correlation(others, truth, most=0).at_zero,
            "articulation_ratio": float(ours.std() / max(truth.std(), 1e-6)),
            "jitter_ratio": jitter(said) / max(jitter(motion.at(times_s)), 1e-9),
            "closure": shut.met,
            "false_closure": shut.false,
        },
    )


def _sampled(
    pipeline: AudioToLandmarks, clip: Clip, features: NDArray[np.float32], times_s: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(N, K, 3) residuals, as wide as is typical."""
    level = np.zeros(len(features), np.float32)
    track = SpeechTrack(features=features, level_db=level, start_s=0.0, rate=clip.feature_rate)
    lower: NDArray[np.float32] = pipeline(track, times_s, clip.neutral, seed=0)
    return lower - clip.neutral[topology.lower_face()]


def _mean(values: list[float]) -> float:
    """Mean of those that are known; NaN where none is: a mouth that never shuts has no false closures."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _rolled(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.roll(features, len(features) // 2, axis=0)


def _opening(residual: Tensor) -> Tensor:
    """(..., 3) move of the lips' middles apart; the resting lips are shut, so this is the opening."""
    lower = topology.lower_face().tolist()
    upper, under = lower.index(topology.UPPER_LIP_MIDDLE), lower.index(topology.LOWER_LIP_MIDDLE)
    return residual[..., under, :] - residual[..., upper, :]
