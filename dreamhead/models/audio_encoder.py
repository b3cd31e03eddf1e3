"""Turn speech into features at a fixed rate, by one of several networks behind one interface."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.config import WeightsSettings
from dreamhead.errors import ConfigError, WeightsUnavailableError

SAMPLE_RATE = 16_000
MAX_WINDOW_S = 30
FEATURE_RATE = 50.0
"""Features per second of every encoder here."""
HOP = 320
"""Samples per feature."""
BUNDLES = {"wav2vec2_base": "WAV2VEC2_BASE", "hubert_base": "HUBERT_BASE", "wavlm_base": "WAVLM_BASE"}
"""Our names of torchaudio's bundles."""
NAMES = ("whisper", *BUNDLES, "log_mel")
BUNDLE_LAYER = 9
"""Of twelve; phones are read best from the later middle layers of these networks (Pasad et al. 2021, 2023)."""


class SpeechEncoder(Protocol):
    """Speech to features. Feature f describes the sound around f / rate seconds."""

    name: str
    feature_size: int
    rate: float
    """Features per second."""

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples (N,) at 16 kHz, up to 30 s, to features (F, C) with F = round(N / 16000 * rate)."""


def feature_count(samples: NDArray[np.float32]) -> int:
    """Features that describe these samples (N,); raises ValueError for more than 30 s or another shape."""
    if samples.ndim != 1 or len(samples) > MAX_WINDOW_S * SAMPLE_RATE:
        raise ValueError(
            f"samples must be (N,) with N at most {MAX_WINDOW_S * SAMPLE_RATE} ({MAX_WINDOW_S} s), got {samples.shape}"
        )
    return round(len(samples) / HOP)


class WhisperEncoder:
    """The encoder of Whisper base, multilingual, on the CPU: 512 features."""

    name = "whisper"
    feature_size = 512
    rate = FEATURE_RATE

    def __init__(self, path: Path, threads: int = 2) -> None:
        # Whisper alone needs these two.
        import ctranslate2
        from faster_whisper.feature_extractor import FeatureExtractor

        self._log_mel = FeatureExtractor()
        self._view = ctranslate2.StorageView.from_array
        # int8 is 1.7 times faster but 3 % off, and speech is encoded only once.
        self._network = ctranslate2.models.Whisper(str(path), compute_type="float32", intra_threads=threads)

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See SpeechEncoder."""
        count = feature_count(samples)
        # Whisper knows only windows of 30 s, shorter ones padded with digital silence.
        padded = np.zeros(MAX_WINDOW_S * SAMPLE_RATE, np.float32)
        padded[: len(samples)] = samples
        log_mel = np.ascontiguousarray(self._log_mel(padded, padding=0)[np.newaxis], np.float32)
        output = self._network.encode(self._view(log_mel), to_cpu=True)
        features: NDArray[np.float32] = np.array(output)[0, :count]
        return features


class TorchaudioEncoder:
    """One layer of a wav2vec 2.0, HuBERT or WavLM network of torchaudio."""

    rate = FEATURE_RATE

    def __init__(self, network: torchaudio.models.Wav2Vec2Model, name: str, layer: int) -> None:
        layers = len(network.encoder.transformer.layers)
        if not 1 <= layer <= layers:
            raise ConfigError(f"{name}: layer must be 1 to {layers}, got {layer}")
        self.name = name
        self.feature_size = int(network.encoder.feature_projection.projection.out_features)
        self._layer = layer
        self._network = network.eval()

    @torch.inference_mode()
    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See SpeechEncoder."""
        count = feature_count(samples)
        if count == 0:
            return np.zeros((0, self.feature_size), np.float32)
        layers, _ = self._network.extract_features(_centre(samples, count)[None], num_layers=self._layer)
        features: NDArray[np.float32] = layers[-1][0, :count].numpy()
        return features


class LogMelEncoder:
    """A logarithmic mel spectrogram: 80 bands from 25 ms, no weights."""

    name = "log_mel"
    feature_size = 80
    rate = FEATURE_RATE

    def __init__(self) -> None:
        self._mel = torchaudio.transforms.MelSpectrogram(
            SAMPLE_RATE, n_fft=512, win_length=400, hop_length=HOP, n_mels=80, pad_mode="constant"
        )

    @torch.inference_mode()
    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See SpeechEncoder. Values are about -1 (silence) to 1 (loud)."""
        count = feature_count(samples)
        if count == 0:
            return np.zeros((0, self.feature_size), np.float32)
        power = self._mel(torch.from_numpy(np.ascontiguousarray(samples)))
        features: NDArray[np.float32] = power.clamp(min=1e-6).log10().add(2).div(4).T[:count].numpy()
        return features


def build(name: str, weights: WeightsSettings, threads: int) -> SpeechEncoder:
    """The encoder called `name`; `threads` are those of Whisper, torch's own are the process's.

    Raises ConfigError for an unknown name and WeightsUnavailableError when its weights can't be had.
    """
    if name == "whisper":
        return WhisperEncoder(pretrained.whisper_base(weights.whisper), threads)
    if name in BUNDLES:
        return TorchaudioEncoder(_load_bundle(name), name, BUNDLE_LAYER)
    if name == "log_mel":
        return LogMelEncoder()
    raise ConfigError(f"speech encoder {name!r} is unknown; allowed: {', '.join(NAMES)}")


def _load_bundle(name: str) -> torchaudio.models.Wav2Vec2Model:
    try:
        return getattr(torchaudio.pipelines, BUNDLES[name]).get_model()
    except OSError as error:
        raise WeightsUnavailableError(
            f"{name}: torchaudio couldn't download its weights to {torch.hub.get_dir()}: {error}; "
            f"put them there, or choose another speech encoder ({', '.join(NAMES)})"
        ) from error


def _centre(samples: NDArray[np.float32], count: int) -> torch.Tensor:
    """Pad with silence so that feature f is centred on sample 320 f, and there are at least `count` of them."""
    # The convolutions see 400 samples for each feature: feature f of unpadded speech starts at 320 f.
    before = 200
    after = max(0, HOP * (count - 1) + 400 - before - len(samples))
    return torch.nn.functional.pad(torch.from_numpy(np.ascontiguousarray(samples)), (before, after))
