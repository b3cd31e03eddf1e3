"""Lags by embeddings: a stand-in hears loudness and sees brightness, the real class is fed what it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamhead.config import OffsetSettings
from dreamhead.media.video import probe
from dreamhead.models.syncnet import SyncNet
from dreamhead.stages.preparation.sound import Sound
from dreamhead.stages.preparation.sync import SyncOffset, _sound_windows, face_pictures
from tests.stages.preparation.conftest import candidate, shifted

FRAMES = 60


class Likeness:
    """Embeds a window of lips by its brightness, one of sound by its loudness: the same curve, here."""

    def forward_lip(self, pictures: Tensor) -> Tensor:
        bright = pictures.mean(dim=(1, 3, 4)) / 255
        return bright.repeat(1, 8) * 20

    def forward_aud(self, cepstra: Tensor) -> Tensor:
        energy = torch.stack([cepstra[:, 0, 0, 4 * n : 4 * n + 4].mean(dim=1) for n in range(5)], dim=1)
        return ((energy - 12) / 12).repeat(1, 8) * 20


@pytest.fixture(scope="module")
def curve() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.9, FRAMES)


def sound_of(curve: np.ndarray) -> np.ndarray:
    """Noise whose log energy follows the curve, frame by frame."""
    noise = np.random.default_rng(1).uniform(-1, 1, FRAMES * 640)
    # The level that makes `Likeness` hear the same as it sees, but for a constant factor.
    gain = np.exp((12 * np.repeat(curve, 640) + 12) / 2) / 32768 / 30
    return (noise * gain).astype(np.float32)


@pytest.fixture
def offset(tmp_path: Path) -> SyncOffset:
    torch.manual_seed(0)
    torch.save(SyncNet().state_dict(), tmp_path / "sync.model")
    return SyncOffset(str(tmp_path / "sync.model"), OffsetSettings(max_lag_s=0.2))


@pytest.mark.parametrize("late_s", [0.0, 0.12])
def test_the_best_lag_is_found(
    offset: SyncOffset, curve: np.ndarray, make_video: Any, late_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [np.full((96, 128, 3), round(255 * value), np.uint8) for value in curve]
    info = probe(make_video(frames=pictures, size=(128, 96)))
    monkeypatch.setattr(offset, "_network", Likeness())
    clip = candidate(np.zeros(40), start=10, stop=50, times_s=np.arange(10, 50) / 25)
    estimate, fits = offset(info, [clip], Sound(shifted(sound_of(curve), late_s)))
    assert estimate.lag_s == pytest.approx(late_s, abs=0.015)
    assert estimate.method == "syncnet"
    assert estimate.is_sure
    assert fits[0].follows
    assert fits[0].score == pytest.approx(estimate.score, rel=0.2)


def test_random_weights_are_not_sure(offset: SyncOffset, make_video: Any) -> None:
    info = probe(make_video(frames=12, size=(128, 96)))
    clip = candidate(np.zeros(6), start=2, stop=8, times_s=np.arange(2, 8) / 25)
    estimate, fits = offset(info, [clip], Sound(np.zeros(16_000, np.float32)))
    assert not estimate.is_sure
    assert np.isfinite([estimate.score, fits[0].score]).all()


def test_pictures_are_taken_25_times_a_second_in_bgr(make_video: Any) -> None:
    frames = [np.full((96, 128, 3), (10, 60, 8 * number), np.uint8) for number in range(30)]
    info = probe(make_video(frames=frames, rate=50, size=(128, 96)))
    clip = candidate(np.zeros(20), rate=50, start=4, stop=24, times_s=np.arange(4, 24) / 50)
    pictures = face_pictures(info, clip)
    assert pictures.shape == (10, 224, 224, 3)
    middle = pictures[:, 60, 112].astype(int)
    np.testing.assert_allclose(middle[:, 0], 8 * np.arange(4, 24, 2), atol=12)
    np.testing.assert_allclose(middle[:, 2], 10, atol=12)


def test_sound_windows_begin_every_frame() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 32_000).astype(np.float32)
    windows = _sound_windows(Sound(samples), 0.2, 7)
    assert windows.shape == (7, 1, 13, 20)
    np.testing.assert_allclose(windows[3, 0, :, :16], windows[2, 0, :, 4:])
    # Only the very first step doesn't know the sample before it.
    alone = _sound_windows(Sound(samples), 0.32, 1)[0]
    np.testing.assert_allclose(alone[..., 1:], windows[3][..., 1:], rtol=1e-4, atol=1e-3)
