"""Speech encoders: as many features as promised, at the right place, the same for the same sound."""

import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.config import WeightsSettings
from dreamhead.errors import ConfigError, WeightsUnavailableError
from dreamhead.models import audio_encoder
from dreamhead.models.audio_encoder import (
    LogMelEncoder,
    SpeechEncoder,
    TorchaudioEncoder,
    WhisperEncoder,
    WhisperLayerEncoder,
    WhisperLogMel,
)
from dreamhead.models.whisper_layer import WhisperLayers, read_tensors

RATE = audio_encoder.SAMPLE_RATE


def tiny_network() -> torchaudio.models.Wav2Vec2Model:
    """The real class: two small layers of random weights."""
    torch.manual_seed(0)
    return torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(8, 10, 5), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 2, 2), (8, 2, 2)],
        extractor_conv_bias=False,
        encoder_embed_dim=16,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=15,
        encoder_pos_conv_groups=4,
        encoder_num_layers=2,
        encoder_num_heads=2,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=32,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )


@pytest.fixture(scope="module")
def whisper_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMHEAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        return pretrained.whisper_base()


@pytest.fixture(scope="module")
def whisper(whisper_path: Path) -> WhisperEncoder:
    return WhisperEncoder(whisper_path, threads=2)


@pytest.fixture(scope="module")
def whisper_layer4(whisper_path: Path) -> WhisperLayerEncoder:
    return WhisperLayerEncoder(whisper_path)


@pytest.fixture(params=["whisper_layer4", "whisper", "wav2vec2_base", "log_mel"])
def encoder(request: pytest.FixtureRequest) -> SpeechEncoder:
    if request.param.startswith("whisper"):
        found: SpeechEncoder = request.getfixturevalue(request.param)
        return found
    return LogMelEncoder() if request.param == "log_mel" else TorchaudioEncoder(tiny_network(), "wav2vec2_base", 2)


def noise(samples: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [0, 159, 161, 16_000, 16_170])
def test_as_many_features_as_promised(encoder: SpeechEncoder, samples: int) -> None:
    features = encoder(noise(samples))
    assert features.shape == (round(samples / RATE * encoder.rate), encoder.feature_size)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_a_full_window_of_silence_is_finite(encoder: SpeechEncoder) -> None:
    features = encoder(np.zeros(30 * RATE, np.float32))
    assert features.shape == (1500, encoder.feature_size)
    assert np.isfinite(features).all()


def test_the_same_sound_gives_the_same_bits(encoder: SpeechEncoder) -> None:
    np.testing.assert_array_equal(encoder(noise(8000)), encoder(noise(8000)))


def test_a_click_lies_where_it_was_heard(encoder: SpeechEncoder) -> None:
    click = np.zeros(2 * RATE, np.float32)
    click[RATE - 80 : RATE + 80] = noise(160) * 5
    change = np.abs(np.diff(encoder(click), axis=0)).sum(1)
    centre = (np.arange(len(change)) + 0.5) @ change**2 / (change**2).sum()
    assert centre == pytest.approx(50, abs=3)


def test_the_last_of_whispers_layers_is_what_ctranslate2_computes(whisper_path: Path, whisper: WhisperEncoder) -> None:
    samples = noise(3 * RATE)
    last = WhisperLayers(whisper_path / "model.bin", 6)(WhisperLogMel()(samples))
    np.testing.assert_allclose(last[:150], whisper(samples), atol=5e-3)


def test_a_middle_layer_of_whisper_is_another_feature(
    whisper_path: Path, whisper: WhisperEncoder, whisper_layer4: WhisperLayerEncoder
) -> None:
    samples = noise(8000)
    fourth = whisper_layer4(samples)
    assert np.abs(fourth - whisper(samples)).max() > 1
    assert np.abs(fourth - WhisperLayerEncoder(whisper_path, layers=3)(samples)).max() > 0.1
    with pytest.raises(ConfigError, match="layers must be 1 to 6, got 7"):
        WhisperLayerEncoder(whisper_path, layers=7)


def test_a_file_that_is_no_model_of_ctranslate2_is_refused(whisper_path: Path, tmp_path: Path) -> None:
    whole = (whisper_path / "model.bin").read_bytes()
    for content in (b"", b"PK\x03\x04" + whole[4:1000], whole[: len(whole) // 2]):
        (tmp_path / "model.bin").write_bytes(content)
        with pytest.raises(WeightsUnavailableError, match=r"model\.bin: not a model of CTranslate2"):
            read_tensors(tmp_path / "model.bin", "encoder/")


def test_log_mel_is_loud_where_the_tone_is() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    features = LogMelEncoder()(tone)
    assert features[5:-5].argmax(1).std() == 0
    assert LogMelEncoder()(tone * 0.1)[20].max() == pytest.approx(features[20].max() - 0.5, abs=1e-3)
    assert (LogMelEncoder()(tone * 0) == -1).all()


@pytest.mark.parametrize("shape", [(480_001,), (2, 16_000)])
def test_wrong_windows_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"samples must be \(N,\) with N at most 480000 \(30 s\), got"):
        LogMelEncoder()(np.zeros(shape, np.float32))


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="hubert_base: layer must be 1 to 2, got 3"):
        TorchaudioEncoder(tiny_network(), "hubert_base", 3)


def test_an_earlier_layer_is_another_feature() -> None:
    first, second = (TorchaudioEncoder(tiny_network(), "wav2vec2_base", layer)(noise(8000)) for layer in (1, 2))
    assert np.abs(first - second).max() > 0.1


def test_build_knows_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audio_encoder.build("log_mel", WeightsSettings(), 1).feature_size == 80
    with pytest.raises(ConfigError, match="'mfcc' is unknown; allowed: whisper_layer4, whisper, wav2vec2_base, "):
        audio_encoder.build("mfcc", WeightsSettings(), 1)
    for name in ("whisper", "whisper_layer4"):
        with pytest.raises(WeightsUnavailableError, match=r"weights\.whisper"):
            audio_encoder.build(name, WeightsSettings(whisper=str(tmp_path)), 1)


@pytest.mark.parametrize("name", audio_encoder.BUNDLES)
def test_a_bundle_that_cannot_be_downloaded_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **options: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchaudio.pipelines._wav2vec2.utils.load_state_dict_from_url", refuse)
    with pytest.raises(WeightsUnavailableError, match=f"{name}: torchaudio couldn't download its weights to .*no rou"):
        audio_encoder.build(name, WeightsSettings(), 1)
