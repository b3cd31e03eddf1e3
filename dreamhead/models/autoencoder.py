"""The autoencoder between pixels and latents: our own small one, or any of diffusers' by name.

Shapes: B batch, S side of the crop in pixels, C latent channels; a latent is S / 8 wide.
"""

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from dreamhead.errors import ConfigError

FACTOR = 8
PATCH = 4
LIBRARY_CLASSES = ("AutoencoderKL", "AutoencoderTiny", "VQModel")


class FaceAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Convolutional autoencoder with factor 8, light enough for a CPU.

    Pixels are first gathered in patches of 4 (pixel-unshuffle), so that no convolution runs at full size; the decoder
    ends the same way (Shi et al. 2016).

    Args:
        latent_channels: C.
        channels: of the quarter-size and of the eighth-size layers.
        blocks: residual blocks of each.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers has no types
    def __init__(
        self, latent_channels: int = 16, channels: tuple[int, int] = (64, 128), blocks: tuple[int, int] = (2, 3)
    ) -> None:
        super().__init__()
        fine, coarse = channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(PATCH),
            nn.Conv2d(3 * PATCH**2, fine, 3, padding=1),
            *[ResidualBlock(fine) for _ in range(blocks[0])],
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1),
            *[ResidualBlock(coarse) for _ in range(blocks[1])],
            nn.Conv2d(coarse, latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, coarse, 3, padding=1),
            *[ResidualBlock(coarse) for _ in range(blocks[1])],
            nn.Conv2d(coarse, 4 * fine, 3, padding=1),
            nn.PixelShuffle(2),
            *[ResidualBlock(fine) for _ in range(blocks[0])],
            nn.Conv2d(fine, 3 * PATCH**2, 3, padding=1),
            nn.PixelShuffle(PATCH),
        )
        self.register_buffer("latent_mean", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(latent_channels, 1, 1))

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in -1..1 -> (B, C, S / 8, S / 8) of zero mean and unit variance over the training crops."""
        latents: Tensor = (self.encoder(pixels) - self.latent_mean) / self.latent_std
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, S / 8, S / 8) -> (B, 3, S, S), about -1..1."""
        pixels: Tensor = self.decoder(latents * self.latent_std + self.latent_mean)
        return pixels


class LibraryAutoencoder(nn.Module):
    """One of diffusers' autoencoders behind the same two methods.

    Args:
        autoencoder: an instance of one of LIBRARY_CLASSES with factor 8.
    """

    def __init__(self, autoencoder: ModelMixin) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def encode(self, pixels: Tensor) -> Tensor:
        """See FaceAutoencoder; a KL autoencoder gives the mean of its posterior."""
        output = self.autoencoder.encode(pixels)
        found = output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latents
        latents: Tensor = found * self._scale()
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """See FaceAutoencoder."""
        pixels: Tensor = self.autoencoder.decode(latents / self._scale()).sample
        return pixels

    def _scale(self) -> float:
        # Older VQ models have no such setting: their latents are used as they are.
        return float(self.autoencoder.config.get("scaling_factor", 1.0))


class ResidualBlock(nn.Module):
    """Two convolutions added to what came in; group norms hold the scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        result: Tensor = hidden + self.layers(hidden)
        return result


def autoencoder_class(name: str) -> type[ModelMixin]:
    """The class that a checkpoint names; raises ConfigError with the allowed names."""
    if name in (FaceAutoencoder.__name__, *LIBRARY_CLASSES):
        found: type[ModelMixin] = FaceAutoencoder if name == FaceAutoencoder.__name__ else getattr(diffusers, name)
        return found
    allowed = ", ".join((FaceAutoencoder.__name__, *LIBRARY_CLASSES))
    raise ConfigError(f"autoencoder: {name!r} is not allowed; use one of {allowed}")
