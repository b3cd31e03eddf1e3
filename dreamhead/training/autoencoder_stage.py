"""What training the autoencoder adds to the loop: random crops of faces, and a loss on pixels and their edges."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.models.autoencoder import FaceAutoencoder
from dreamhead.training.augmentation import colour_change
from dreamhead.training.dataset import Clip

EDGE_WEIGHT = 1.0
# Keeps the latents' scale near one, so that their statistics, fitted at the end, hardly move anything.
LATENT_WEIGHT = 1e-3


class AutoencoderTask:
    """Batches and loss of the autoencoder.

    Args:
        clips: training clips.
        batch_size: pictures in a batch.
        window: side of the random cut that is trained on, pixels; a convolution doesn't mind.
    """

    def __init__(self, model: FaceAutoencoder, clips: Sequence[Clip], batch_size: int, window: int) -> None:
        self.model = model
        self._clips = clips
        self._batch_size = batch_size
        self._window = window

    def draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """`pixels` (B, 3, window, window) in -1..1."""
        return {"pixels": to_tensor(np.stack([self._cut(generator) for _ in range(self._batch_size)]))}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Errors of pixels and edges, the size of the latents, and their sum."""
        pixels = batch["pixels"].to(memory_format=torch.channels_last)
        latents = self.model.encode(pixels)
        decoded = self.model.decode(latents).float()
        parts = {
            "pixel": (decoded - pixels).abs().mean() + 4 * (decoded - pixels).square().mean(),
            "edge": EDGE_WEIGHT * edge_error(decoded, pixels),
            "latent": LATENT_WEIGHT * latents.float().square().mean(),
        }
        return torch.stack(list(parts.values())).sum(), {name: float(part.detach()) for name, part in parts.items()}

    @torch.no_grad()
    def fit_statistics(self, generator: np.random.Generator) -> None:
        """Set the latents' mean and deviation from 128 whole crops, once training is over."""
        self.model.latent_mean.zero_()
        self.model.latent_std.fill_(1)
        pictures = np.stack([self._picture(generator) for _ in range(128)])
        latents = torch.cat([self.model.encode(to_tensor(pictures[i : i + 16])) for i in range(0, 128, 16)])
        self.model.latent_mean.copy_(latents.mean(dim=(0, 2, 3))[:, None, None])
        self.model.latent_std.copy_(latents.std(dim=(0, 2, 3))[:, None, None])

    def _picture(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        clip = self._clips[int(generator.integers(len(self._clips)))]
        return clip.crop(int(generator.integers(len(clip.crops))))

    def _cut(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        picture = self._picture(generator)
        if generator.random() < 0.5:
            picture = picture[:, ::-1]
        picture = colour_change(generator)(picture)
        limit = picture.shape[0] - self._window
        # The mouth lies below the middle: half of the cuts hold it.
        top = int(generator.integers(limit // 2 if generator.random() < 0.5 else 0, limit + 1))
        left = int(generator.integers(0, limit + 1))
        return picture[top : top + self._window, left : left + self._window]


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def edge_error(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of (B, C, H, W) pictures' gradients: blur costs here what it hides from the pixels."""
    difference = first - second
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
