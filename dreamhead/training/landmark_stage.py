"""What training the first stage adds to the loop: windows of mouth motion and speech, and their loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.diffusion.objective import add_noise, make_scheduler
from dreamhead.errors import InputError
from dreamhead.faces import topology
from dreamhead.faces.geometry import lip_opening, resting_face
from dreamhead.models.landmark_denoiser import LandmarkDenoiser, fit_basis
from dreamhead.pipelines.audio_to_landmarks import TICK_RATE, WINDOW, speech_at
from dreamhead.records import SpeechTrack
from dreamhead.training.dataset import Clip

LIP_WEIGHT = 6.0
VELOCITY_WEIGHT = 2.0
OPENING_WEIGHT = 4.0
SPEECH_DROPOUT = 0.15


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """One clip on ticks of 25 a second."""

    clip_id: str
    neutral: NDArray[np.float32]
    """(478, 3) canonical resting face."""
    residual: NDArray[np.float32]
    """(T, K, 3) of the lower face."""
    speech: NDArray[np.float32]
    """(V, T, C) speech at each tick, at V places of the encoder's window."""

    def mirrored(self) -> "Motion":
        """The same seen in a mirror; speech has no sides."""
        neutral = _mirror(self.neutral)
        full = np.zeros((len(self.residual), 478, 3), np.float32)
        full[:, topology.lower_face()] = self.residual
        return Motion(
            clip_id=self.clip_id,
            neutral=neutral,
            residual=_mirror(full)[:, topology.lower_face()],
            speech=self.speech,
        )


def motion_of(clip: Clip) -> Motion:
    """Mouth motion of a clip, resampled to ticks, its speech moved to where the lips are."""
    canonical = clip.canonical()
    neutral = resting_face(canonical)
    lower = topology.lower_face()
    residual = (canonical[:, lower] - neutral[lower]) * topology.lower_face_weight()[:, None]
    seconds = min(len(canonical) / clip.frame_rate, clip.features.shape[1] / clip.feature_rate - clip.speech_lag_s)
    times_s = np.arange(int(seconds * TICK_RATE)) / TICK_RATE
    place = np.clip(times_s * clip.frame_rate, 0, len(residual) - 1)
    low = np.minimum(np.floor(place).astype(int), max(len(residual) - 2, 0))
    share = (place - low)[:, None, None]
    resampled = residual[low] * (1 - share) + residual[np.minimum(low + 1, len(residual) - 1)] * share
    return Motion(
        clip_id=clip.clip_id,
        neutral=neutral,
        residual=resampled.astype(np.float32),
        speech=np.stack([_heard(features, clip, times_s) for features in clip.features]),
    )


class LandmarkTask:
    """Batches and loss of the first stage.

    Args:
        clips: training clips with speech.
        batch_size: windows in a batch.
    """

    def __init__(self, model: LandmarkDenoiser, clips: Sequence[Clip], batch_size: int) -> None:
        self.model = model
        self._motions = [motion_of(clip) for clip in clips if len(clip.features)]
        self._motions = [motion for motion in self._motions if len(motion.residual) >= WINDOW // 2]
        if not self._motions:
            raise InputError("no training clip has speech and half a window of frames")
        self._motions += [motion.mirrored() for motion in self._motions]
        self._batch_size = batch_size
        self._scheduler = make_scheduler()
        self._lengths = np.array([len(motion.residual) for motion in self._motions], np.float64)
        self._weight = torch.from_numpy(point_weights())

    def prepare(self) -> dict[str, float]:
        """Fit the shape basis; once, before the first step of a fresh run."""
        residuals = torch.from_numpy(np.concatenate([motion.residual for motion in self._motions]))
        neutrals = torch.from_numpy(np.stack([motion.neutral[topology.lower_face()] for motion in self._motions]))
        return fit_basis(self.model, residuals, neutrals)

    def draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """Windows of B clips: `residual` (B, T, K, 3), `speech` (B, T, C), `neutral` (B, K, 3), `keep` (B,)."""
        share = self._lengths / self._lengths.sum()
        numbers = generator.choice(len(share), self._batch_size, p=share)
        drawn = [self._window(int(number), generator) for number in numbers]
        residual, speech, neutral = (torch.from_numpy(np.stack(parts)) for parts in zip(*drawn, strict=True))
        keep = torch.from_numpy((generator.random(self._batch_size) > SPEECH_DROPOUT).astype(np.float32))
        return {"residual": residual, "speech": speech, "neutral": neutral, "keep": keep}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Errors of position, speed and lip opening, and their sum."""
        residual = batch["residual"]
        clean = self.model.encode(residual)
        noisy, timesteps = add_noise(self._scheduler, clean, 1.0, generator)
        predicted = self.model(noisy, timesteps, batch["speech"], batch["neutral"], batch["keep"])
        return self._compare(self.model.decode(predicted), residual)

    def _compare(self, predicted: Tensor, residual: Tensor) -> tuple[Tensor, dict[str, float]]:
        error = (predicted - residual).square() * self._weight.to(predicted.device)[:, None]
        speed = (predicted.diff(dim=1) - residual.diff(dim=1)).square() * self._weight.to(predicted.device)[:, None]
        opening = (_opening(predicted) - _opening(residual)).square()
        parts = {
            "position": error.mean() * 1e4,
            "velocity": VELOCITY_WEIGHT * speed.mean() * 1e4,
            "opening": OPENING_WEIGHT * opening.mean() * 1e2,
        }
        total = torch.stack(list(parts.values())).sum()
        return total, {name: float(value.detach()) for name, value in parts.items()}

    def _window(
        self, number: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        motion = self._motions[number]
        start = int(generator.integers(-WINDOW // 4, max(len(motion.residual) - 3 * WINDOW // 4, 1)))
        # Beyond a clip's ends the mouth stays as it is and nothing is heard.
        place = np.arange(start, start + WINDOW)
        inside = np.clip(place, 0, len(motion.residual) - 1)
        speech = motion.speech[generator.integers(len(motion.speech)), inside]
        speech = speech * (1 + 0.1 * generator.standard_normal()) + 0.2 * generator.standard_normal(speech.shape)
        speech[place != inside] = 0
        residual = motion.residual[inside] * (1 + 0.1 * generator.standard_normal())
        resting = motion.neutral[topology.lower_face()]
        neutral = resting + 0.01 * generator.standard_normal(resting.shape)
        return residual.astype(np.float32), speech.astype(np.float32), neutral.astype(np.float32)


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


def opening_of(motion: Motion) -> NDArray[np.float64]:
    """(T,) lip opening of a clip, canonical units."""
    return np.asarray(lip_opening(full_face(motion.neutral, motion.residual)), np.float64)


def _opening(residual: Tensor) -> Tensor:
    """(..., 3) move of the lips' middles apart; the resting lips are shut, so this is the opening."""
    lower = topology.lower_face().tolist()
    upper, under = lower.index(topology.UPPER_LIP_MIDDLE), lower.index(topology.LOWER_LIP_MIDDLE)
    return residual[..., under, :] - residual[..., upper, :]


def _heard(features: NDArray[np.float32], clip: Clip, times_s: NDArray[np.float64]) -> NDArray[np.float32]:
    track = SpeechTrack(
        features=features,
        level_db=np.zeros(len(features), np.float32),
        start_s=0.0,
        rate=clip.feature_rate,
    )
    return speech_at(track, times_s + clip.speech_lag_s)


def _mirror(shapes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 478, 3) canonical shapes seen in a mirror."""
    mirrored: NDArray[np.float32] = (shapes * np.array([-1, 1, 1], np.float32))[..., topology.face_model().flip, :]
    return mirrored
