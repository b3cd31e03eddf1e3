"""First stage at work: speech in, lower-face landmarks in the canonical pose out.

The network works on ticks, 25 a second from the start of the speech, whatever the video's frame times are; windows of
ticks lie on an absolute grid, overlap and are cross-faded; the noise of a tick is keyed by its number. So neither the
frame rate nor how a video was cut into chunks changes where the mouth is at a given time.
"""

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import LandmarkSettings
from dreamhead.diffusion.objective import make_scheduler
from dreamhead.diffusion.sampling import keyed_noise, sample
from dreamhead.faces import topology
from dreamhead.models.landmark_denoiser import LandmarkDenoiser
from dreamhead.pipelines.memory import Fitting
from dreamhead.records import SpeechTrack

TICK_RATE = 25.0
WINDOW = 64
HOP = 48
SPEECH_OFFSETS_S = (0.0, 0.02)
"""Features are read at these times after each tick, and joined."""

TYPICAL_ARTICULATION = 0.33
"""Mean of the speakers that the base weights are trained on."""
MUMBLING = 0.03, 0.09
"""Articulation up to which a speaker is taken to be silent, and from which to be speaking."""
GAINS = 0.4, 1.5
ADVICE = "let fewer processes share the GPU (pools.landmarks.num_gpus), free its memory, or set device: cpu"

Floats = NDArray[np.floating[Any]]


class AudioToLandmarks:
    """Samples mouth motion for a stretch of speech.

    Args:
        model: in evaluation mode, on its device.
    """

    def __init__(self, model: LandmarkDenoiser, settings: LandmarkSettings) -> None:
        self._model = model
        self._settings = settings
        self._scheduler = make_scheduler()
        self.context_s = WINDOW / TICK_RATE
        """Seconds of speech before the first and after the last time that the answer depends on."""

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, settings: LandmarkSettings, device: torch.device) -> Self:
        """The pipeline with a checkpoint's network."""
        return cls(checkpoint.landmark_denoiser(device), settings)

    def __call__(
        self,
        speech: SpeechTrack,
        times_s: NDArray[np.float64],
        neutral: Floats,
        seed: int,
        articulation: float = math.nan,
    ) -> NDArray[np.float32]:
        """Lower-face shapes at the given times.

        Args:
            speech: covers `times_s` with `context_s` to either side; what is beyond its ends is silence.
            times_s: (T,) ascending or not, seconds from the start of the speech.
            neutral: (478, 3) canonical resting face.
            seed: of the noise.
            articulation: how wide the speaker opens the mouth in the source, canonical units; NaN when unknown.

        Returns:
            (T, K, 3) canonical positions of `topology.lower_face()`.

        Raises:
            DeviceMemoryError: not even one window fits the GPU's memory.
        """
        ticks = times_s * TICK_RATE
        first, last = int(np.floor(ticks.min())), int(np.ceil(ticks.max()))
        lower = torch.from_numpy(neutral[topology.lower_face()].astype(np.float32)).to(self._model.device)
        residual = self._sample_ticks(speech, first, last + 1, lower, seed)
        gain = articulation_gain(articulation) if self._settings.match_articulation else 1.0
        residual *= self._settings.articulation * gain
        motion = interpolate(residual, ticks - first)
        shapes = neutral[None].repeat(len(ticks), axis=0).astype(np.float32)
        shapes[:, topology.lower_face()] += motion * topology.lower_face_weight()[:, None]
        if self._settings.close_in_silence:
            shut = self._silence(speech, times_s)[:, None, None]
            shapes += shut * (neutral - shapes)
        return shapes[:, topology.lower_face()]

    def _sample_ticks(self, speech: SpeechTrack, first: int, stop: int, lower: Tensor, seed: int) -> Floats:
        """(stop - first, K, 3) residuals: overlapping windows of the absolute grid, cross-faded."""
        numbers = range(_window_before(first), _window_before(stop - 1) + 2)
        starts = [number * HOP - (WINDOW - HOP) for number in numbers]
        windows = self._denoised(speech, starts, lower, seed)
        total = np.zeros((stop - first, *windows.shape[2:]))
        weight = np.zeros((stop - first, 1, 1))
        fade = _fade()
        for start, window in zip(starts, windows, strict=True):
            low, high = max(start, first), min(start + WINDOW, stop)
            if high > low:
                part = fade[low - start : high - start, None, None]
                total[low - first : high - first] += part * window[low - start : high - start]
                weight[low - first : high - first] += part
        blended: Floats = total / weight
        return blended

    def _denoised(self, speech: SpeechTrack, starts: list[int], lower: Tensor, seed: int) -> Floats:
        """(N, WINDOW, K, 3) residuals of N windows, as many of them at once as fit the device."""
        fitting = Fitting(len(starts), f"landmarks of windows of {WINDOW} ticks", self._model.device, ADVICE)
        found: list[Floats] = []
        while starts:
            some = starts[: fitting.at_once]
            residual = fitting.tried(partial(self._denoise, speech, some, lower, seed), len(some))
            if residual is not None:
                found.append(residual)
                starts = starts[len(some) :]
        return np.concatenate(found)

    def _denoise(self, speech: SpeechTrack, starts: list[int], lower: Tensor, seed: int) -> Floats:
        """(N, WINDOW, K, 3) residuals of N windows."""
        device = self._model.device
        ticks = np.array(starts)[:, None] + np.arange(WINDOW)
        heard = speech_at(speech, (ticks / TICK_RATE).ravel()).reshape(*ticks.shape, -1)
        features = torch.from_numpy(heard).to(device)
        depth = self._model.config["coefficients"]
        noise = keyed_noise(seed, ticks.ravel().tolist(), (depth,)).view(*ticks.shape, depth).to(device)
        identity = lower.expand(len(starts), -1, -1)

        def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
            return guided(self._model, noisy, timestep, features, identity, self._settings.guidance_scale)

        clean = sample(denoiser, self._scheduler, noise, self._settings.num_inference_steps)
        return np.asarray(self._model.decode(clean).cpu().numpy(), np.float64)

    def _silence(self, speech: SpeechTrack, times_s: NDArray[np.float64]) -> NDArray[np.float32]:
        """(T,) 0 where speech is heard to 1 where a pause is long enough to shut the mouth, with soft edges."""
        return silence(speech, times_s, self._settings.silence_db, self._settings.min_silence_s)


def articulation_gain(articulation: float) -> float:
    """How a speaker's mouth motion relates to that of the network, which is trained on motion divided by this.

    Speakers differ in how wide they open the mouth by more than twice. One who hardly opens it may not be speaking at
    all: below MUMBLING the gain goes back to 1.

    Args:
        articulation: see `geometry.articulation`; NaN when unknown.
    """
    if math.isnan(articulation):
        return 1.0
    silent, mumbling = MUMBLING
    sure = min(max((articulation - silent) / (mumbling - silent), 0.0), 1.0)
    gain = min(max(articulation / TYPICAL_ARTICULATION, GAINS[0]), GAINS[1])
    return 1 + sure * (gain - 1)


def guided(
    model: LandmarkDenoiser, noisy: Tensor, timestep: Tensor, features: Tensor, neutral: Tensor, scale: float
) -> Tensor:
    """x0 with classifier-free guidance on the speech (Ho and Salimans 2022, Eq. 6)."""
    keep = torch.ones(len(noisy), device=noisy.device)
    heard: Tensor = model(noisy, timestep, features, neutral, keep)
    if scale == 1:
        return heard
    unheard: Tensor = model(noisy, timestep, features, neutral, 1 - keep)
    return unheard + scale * (heard - unheard)


def speech_at(speech: SpeechTrack, times_s: NDArray[np.float64]) -> NDArray[np.float32]:
    """(T, len(SPEECH_OFFSETS_S) * C) features at the given times; zeros beyond the track's ends."""
    parts = []
    for offset in SPEECH_OFFSETS_S:
        place = (times_s + offset - speech.start_s) * speech.rate
        parts.append(interpolate(speech.features, place) * _inside(place, len(speech.features)))
    return np.concatenate(parts, axis=1).astype(np.float32)


def silence(
    speech: SpeechTrack, times_s: NDArray[np.float64], threshold_db: float, shortest_s: float
) -> NDArray[np.float32]:
    """(T,) share by which the mouth is shut: 1 in pauses of at least `shortest_s`, and beyond the track's ends."""
    if len(speech.level_db) == 0:
        return np.ones(len(times_s), np.float32)
    margin = int(np.ceil((shortest_s + 0.2) * speech.rate))
    quiet = np.pad(speech.level_db < threshold_db, margin, constant_values=True)
    shortest = max(1, round(shortest_s * speech.rate))
    kernel = np.ones(shortest)
    # Opening of the quiet stretches: what is shorter than the kernel vanishes, the rest keeps its length.
    eroded = np.convolve(quiet, kernel, "valid") >= shortest
    opened = np.convolve(eroded, kernel, "full") > 0
    reach = round(0.16 * speech.rate)
    soft = np.convolve(opened, np.hanning(reach + 2)[1:-1], "same")
    soft /= np.hanning(reach + 2).sum()
    # At its own ends the convolution sees nothing, not silence: times beyond are read a little further in.
    place = np.clip((times_s - speech.start_s) * speech.rate + margin, reach, len(soft) - 1 - reach)
    return np.asarray(np.interp(place, np.arange(len(soft)), np.clip(soft, 0, 1)), np.float32)


def _window_before(tick: int) -> int:
    """Number of the first of the two windows that cover a tick."""
    return (tick + WINDOW - HOP) // HOP - 1


def _fade() -> Floats:
    """(WINDOW,) weights that rise and fall over the overlap and never reach zero."""
    overlap = WINDOW - HOP
    ramp = (np.arange(overlap) + 1) / (overlap + 1)
    return np.concatenate([ramp, np.ones(WINDOW - 2 * overlap), ramp[::-1]])


def interpolate(values: Floats, place: Floats) -> Floats:
    """Linear interpolation of (N, ...) values at fractional indices, held at the ends."""
    place = np.clip(place, 0, max(len(values) - 1, 0))
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    share = (place - low).reshape(-1, *[1] * (values.ndim - 1))
    blended: Floats = values[low] * (1 - share) + values[high] * share
    return blended


def _inside(place: Floats, count: int) -> NDArray[np.float64]:
    inside = (place > -1) & (place < count)
    return inside[:, None].astype(np.float64)
