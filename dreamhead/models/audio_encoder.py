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
from dreamhead.models.whisper_layer import WhisperLayers

SAMPLE_RATE = 16_000
MAX_WINDOW_S = 30
FEATURE_RATE = 50.0
"""Features per second of every encoder here."""
HOP = 320
"""Samples per feature."""
BUNDLES = {"wav2vec2_base": "WAV2VEC2_BASE", "hubert_base": "HUBERT_BASE", "wavlm_base": "WAVLM_BASE"}
"""Our names of torchaudio's bundles."""
WHISPER_LAYER = 4
"""Of six, for `whisper_layer4`: lip openings are read better from it than from any other (docs/training_log.md)."""
NAMES = ("whisper_layer4", "whisper", *BUNDLES, "log_mel")
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
    """The last layer of the encoder of Whisper base, multilingual, on the CPU: 512 features."""

    name = "whisper"
    feature_size = 512
    rate = FEATURE_RATE

    def __init__(self, path: Path, threads: int = 2) -> None:
        # This one alone needs it.
        import ctranslate2

        self._log_mel = WhisperLogMel()
        self._view = ctranslate2.StorageView.from_array
        # int8 is 1.7 times faster but 3 % off, and speech is encoded only once.
        self._network = ctranslate2.models.Whisper(str(path), compute_type="float32", intra_threads=threads)

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See SpeechEncoder."""
        count = feature_count(samples)
        output = self._network.encode(self._view(self._log_mel(samples)[np.newaxis]), to_cpu=True)
        features: NDArray[np.float32] = np.array(output)[0, :count]
        return features


class WhisperLayerEncoder:
    """A middle layer of the encoder of Whisper base, multilingual, on the CPU: 512 features.

    Args:
        layers: computed; those after them are left out, and their time is saved.
    """

    name = f"whisper_layer{WHISPER_LAYER}"
    feature_size = 512
    rate = FEATURE_RATE

    def __init__(self, path: Path, layers: int = WHISPER_LAYER) -> None:
        self._log_mel = WhisperLogMel()
        self._network = WhisperLayers(path / "model.bin", layers)

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See SpeechEncoder."""
        count = feature_count(samples)
        return self._network(self._log_mel(samples))[:count]


class WhisperLogMel:
    """What both of Whisper's encoders hear: (80, 3000) logarithmic mel of 30 s, shorter ones padded with silence."""

    def __init__(self) -> None:
        # Whisper alone needs it.
        from faster_whisper.feature_extractor import FeatureExtractor

        self._extractor = FeatureExtractor()

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples (N,) at 16 kHz, up to 30 s."""
        padded = np.zeros(MAX_WINDOW_S * SAMPLE_RATE, np.float32)
        padded[: len(samples)] = samples
        return np.ascontiguousarray(self._extractor(padded, padding=0), np.float32)


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
    """The encoder called `name`; `threads` are those of `whisper`, torch's own are the process's.

    Raises ConfigError for an unknown name and WeightsUnavailableError when its weights can't be had.
    """
    if name == WhisperLayerEncoder.name:
        return WhisperLayerEncoder(pretrained.whisper_base(weights.whisper))
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
