"""Encode a clip's speech several times: in other places of the encoder's window, and changed."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from dreamhead.config import VariantSettings
from dreamhead.models.audio_encoder import SAMPLE_RATE, SpeechEncoder
from dreamhead.pipelines.speech import CONTEXT_S, CORE_S
from dreamhead.stages.preparation.sound import FeatureGrid, Sound

VOCODER_FFT = 512
VOCODER_HOP = 128
SLOPES = (0.0, 0.5, 1.0)
"""Noise has a spectrum that falls with frequency to this power: from white to pink in amplitude."""

Samples = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is done to speech before it is encoded."""

    gain_db: float = 0.0
    speed: float = 1.0
    """How many times as fast."""
    pitch: float = 1.0
    """How many times as high."""
    snr_db: float | None = None
    """Level of the clip's speech over the noise that is added; None adds none."""
    slope: float = 0.0
    """Of the noise, one of SLOPES."""

    def __str__(self) -> str:
        parts = [f"gain {self.gain_db:+.1f} dB"]
        if self.speed != 1:
            parts.append(f"speed {self.speed:.2f}")
        if self.pitch != 1:
            parts.append(f"pitch {self.pitch:.2f}")
        if self.snr_db is not None:
            parts.append(f"noise {self.snr_db:.1f} dB below, slope {self.slope:g}")
        return ", ".join(parts)


class Variants:
    """Encodes the clips of one source.

    The unchanged ones share passes over the whole source, each on a grid that begins elsewhere, the first as in
    dubbing; the changed ones hear a window of their own, the clip's own surroundings in it.
    """

    def __init__(self, encoder: SpeechEncoder, sound: Sound, lag_s: float, settings: VariantSettings) -> None:
        self._encoder = encoder
        self._sound = sound
        self._lag_s = lag_s
        self._settings = settings
        apart_s = CORE_S / settings.unchanged
        offsets = [on_features(lag_s + number * apart_s, encoder.rate) for number in range(settings.unchanged)]
        self._grids = [FeatureGrid(encoder, sound, offset_s) for offset_s in offsets]

    def __call__(self, clip_id: str, start_s: float, seconds: float) -> list[dict[str, object]]:
        """`features` of a row of CLIP_SCHEMA, for a clip that begins at `start_s` of the video."""
        rate, heard_s = self._encoder.rate, start_s + self._lag_s
        count = feature_count(seconds, 1.0, rate)
        encoded = [_variant(1.0, "", grid.features(heard_s, count)) for grid in self._grids]
        generator = generator_of(clip_id)
        for _ in range(self._settings.count - len(encoded)):
            change = draw_change(generator, self._settings)
            features = self._changed(heard_s, seconds, change, generator)
            encoded.append(_variant(change.speed, str(change), features))
        return encoded

    def _changed(
        self, heard_s: float, seconds: float, change: Change, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """(F, C) of the changed clip, which stands anywhere in the cores that it needs."""
        rate, length_s = self._encoder.rate, seconds / change.speed
        cores = math.ceil(length_s / CORE_S)
        place_s = on_features(float(generator.uniform(0, cores * CORE_S - length_s)), rate)
        lead_s, total_s = place_s + CONTEXT_S, cores * CORE_S + 2 * CONTEXT_S
        first = round((heard_s - lead_s * change.speed) * SAMPLE_RATE)
        samples = self._sound.read(first, first + round(total_s * change.speed * SAMPLE_RATE))
        level_db = self._sound.level_db(heard_s, heard_s + seconds)
        changed = apply_change(samples, change, level_db, round(total_s * SAMPLE_RATE), generator)
        grid = FeatureGrid(self._encoder, Sound(changed, -round(CONTEXT_S * SAMPLE_RATE)), 0.0)
        return grid.features(place_s, feature_count(seconds, change.speed, rate))


def feature_count(seconds: float, speed: float, rate: float) -> int:
    """Features that begin within a clip played so many times as fast."""
    return max(1, math.floor(seconds / speed * rate + 1e-6))


def on_features(time_s: float, rate: float) -> float:
    """The nearest time at which there is a feature."""
    return round(time_s * rate) / rate


def generator_of(clip_id: str) -> np.random.Generator:
    """The clip's own source of chance: the same in every run, whatever is prepared beside it."""
    return np.random.default_rng(int(hashlib.sha256(clip_id.encode()).hexdigest()[:16], 16))


def draw_change(generator: np.random.Generator, settings: VariantSettings) -> Change:
    """A change of level, and by chance of speed and pitch, and of noise."""
    gain_db = float(generator.uniform(*settings.gain_db))
    with_speed, with_pitch, with_noise = generator.random(3) < settings.change_share
    # Whole hundredths keep the resampling filters small.
    speed = round(float(generator.uniform(*settings.speed)), 2)
    pitch = round(2 ** (float(generator.uniform(*settings.pitch_semitones)) / 12), 2)
    snr_db, slope = float(generator.uniform(*settings.noise_snr_db)), float(generator.choice(SLOPES))
    return Change(
        gain_db=round(gain_db, 1),
        speed=speed if with_speed else 1.0,
        pitch=pitch if with_pitch else 1.0,
        snr_db=round(snr_db, 1) if with_noise else None,
        slope=slope,
    )


def apply_change(
    samples: Samples, change: Change, level_db: float, count: int, generator: np.random.Generator
) -> Samples:
    """(count,) changed samples of (N,) ones, N being about count times the speed; `level_db` is the speech's own."""
    wave = torch.from_numpy(samples)
    if change.pitch != 1:
        # Played faster it is higher; the vocoder then takes back what is too fast.
        wave = torchaudio.functional.resample(wave, round(100 * change.pitch), 100)
    wave = _stretched(wave, change.speed / change.pitch)[:count]
    changed = np.pad(wave.numpy(), (0, count - len(wave)))
    if change.snr_db is not None:
        changed = changed + _noise(count, change.slope, generator) * 10 ** ((level_db - change.snr_db) / 20)
    louder: Samples = (changed * 10 ** (change.gain_db / 20)).astype(np.float32)
    return louder


def _stretched(wave: torch.Tensor, speed: float) -> torch.Tensor:
    """(N / speed,) the same pitch at another speed, by a phase vocoder (Flanagan and Golden 1966)."""
    if abs(speed - 1) < 1e-9:
        return wave
    window = torch.hann_window(VOCODER_FFT)
    spectrum = torch.stft(wave, VOCODER_FFT, VOCODER_HOP, window=window, return_complex=True)
    advance = torch.linspace(0, math.pi * VOCODER_HOP, spectrum.shape[0])[:, None]
    slower = torchaudio.functional.phase_vocoder(spectrum, speed, advance)
    return torch.istft(slower, VOCODER_FFT, VOCODER_HOP, window=window, length=round(len(wave) / speed))


def _noise(count: int, slope: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """(count,) noise of unit power."""
    spectrum = np.fft.rfft(generator.standard_normal(count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** slope
    noise = np.fft.irfft(spectrum, count)
    return np.asarray(noise / np.sqrt(np.mean(noise**2)), np.float64)


def _variant(speed: float, change: str, features: NDArray[np.float32]) -> dict[str, object]:
    return {"speed": speed, "change": change, "data": features.astype(np.float16).tobytes()}
