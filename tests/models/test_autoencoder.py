"""Pixels to latents an eighth as wide and back, by our own network or one of diffusers'."""

import diffusers
import pytest
import torch

from dreamhead.errors import ConfigError
from dreamhead.models.autoencoder import (
    FACTOR,
    LIBRARY_CLASSES,
    FaceAutoencoder,
    LibraryAutoencoder,
    autoencoder_class,
)

EIGHTH = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def own() -> FaceAutoencoder:
    torch.manual_seed(0)
    return FaceAutoencoder(latent_channels=4, channels=(8, 16), blocks=(1, 1)).eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 64), (32, 96)])
def test_a_latent_is_an_eighth_as_wide(own: FaceAutoencoder, height: int, width: int) -> None:
    pixels = torch.randn(2, 3, height, width)
    latents = own.encode(pixels)
    assert latents.shape == (2, 4, height // FACTOR, width // FACTOR)
    assert own.decode(latents).shape == pixels.shape


def test_statistics_whiten_latents_and_cancel(own: FaceAutoencoder) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    raw, seen = own.encode(pixels), own.decode(own.encode(pixels))
    mean, std = torch.randn(4, 1, 1), torch.rand(4, 1, 1) + 0.5
    own.latent_mean.copy_(mean)
    own.latent_std.copy_(std)
    torch.testing.assert_close(own.encode(pixels), (raw - mean) / std)
    torch.testing.assert_close(own.decode(own.encode(pixels)), seen, atol=1e-5, rtol=1e-5)
    own.latent_mean.zero_()
    own.latent_std.fill_(1)


def test_it_can_learn_one_picture() -> None:
    torch.manual_seed(0)
    model = FaceAutoencoder(latent_channels=4, channels=(8, 16), blocks=(1, 1))
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(20):
        loss = (model.decode(model.encode(pixels)) - pixels).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def library(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "AutoencoderTiny":
        tiny = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
        return diffusers.AutoencoderTiny(**tiny, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).eval()
    return getattr(diffusers, name)(**EIGHTH, scaling_factor=0.5).eval()


@pytest.mark.parametrize("name", LIBRARY_CLASSES)
@torch.no_grad()
def test_diffusers_own_stand_behind_the_same_two_methods(name: str) -> None:
    inner = library(name)
    model = LibraryAutoencoder(inner)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    latents = model.encode(pixels)
    assert latents.shape == (2, 4, 4, 4)
    torch.testing.assert_close(model.encode(pixels), latents, rtol=0, atol=0)
    assert model.decode(latents).shape == pixels.shape


@torch.no_grad()
def test_a_kl_autoencoder_gives_the_scaled_mean() -> None:
    inner = library("AutoencoderKL")
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    mean = inner.encode(pixels).latent_dist.mean
    latents = LibraryAutoencoder(inner).encode(pixels)
    torch.testing.assert_close(latents, 0.5 * mean)
    torch.testing.assert_close(LibraryAutoencoder(inner).decode(latents), inner.decode(mean).sample)


def test_classes_are_found_by_name() -> None:
    assert autoencoder_class("FaceAutoencoder") is FaceAutoencoder
    assert autoencoder_class("VQModel") is diffusers.VQModel


def test_another_name_is_refused_with_those_allowed() -> None:
    with pytest.raises(ConfigError, match="'UNet2DModel' is not allowed; use one of FaceAutoencoder, AutoencoderKL"):
        autoencoder_class("UNet2DModel")
