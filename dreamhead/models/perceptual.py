"""Perceptual distance of pictures: how differently the first layers of VGG16 see them. For training and judging.

The idea is that of Johnson et al. 2016 and Zhang et al. 2018 (LPIPS). The weights are VGG16's, fine-tuned for edges;
so this isn't LPIPS, and its values compare among themselves only. `scripts/make_perceptual` makes the file.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamhead.errors import WeightsUnavailableError
from dreamhead.pretrained import cache_dir

LAYERS = (2, 2, 3)
"""Convolutions in each of the blocks that are used."""
CHANNELS = (64, 128, 256)
MEAN = (123.68, 116.779, 103.939)
"""Of red, green and blue, 0 to 255, which the network was trained with."""
FLOOR = 1e-3
"""Added to the length of a feature vector; where nothing is to be seen, noise must not count as much as detail."""


def default_weights() -> Path:
    """Where the weights are kept unless settings say otherwise."""
    return cache_dir() / "vgg16_features.safetensors"


class PerceptualDistance(nn.Module):
    """Mean squared difference of unit-length features after each block, averaged over pixels and summed over blocks.

    Args:
        weights: file that `scripts/make_perceptual` wrote.

    Raises:
        WeightsUnavailableError: it isn't there.
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        path = weights or default_weights()
        if not path.is_file():
            raise WeightsUnavailableError(f"{path}: no such file; scripts/make_perceptual makes it")
        self.blocks = nn.ModuleList(_block(number) for number in range(len(LAYERS)))
        self._load(load_file(path))
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, first: Tensor, second: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B,) distances of (B, 3, H, W) pictures in -1..1; `weight` (B, 1, H, W) says where it counts."""
        distances = []
        for left, right in zip(self.features(first), self.features(second), strict=True):
            difference = (_unit(left) - _unit(right)).square().sum(dim=1, keepdim=True)
            distances.append(_mean(difference, weight))
        return torch.stack(distances).sum(dim=0)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """(B, C, h, w) after each block, of (B, 3, H, W) pictures in -1..1."""
        hidden = ((pictures + 1) * 127.5 - self.mean).flip(1)
        found = []
        for block in self.blocks:
            hidden = block(hidden)
            found.append(hidden)
        return found

    def _load(self, stored: dict[str, Tensor]) -> None:
        for number, block in enumerate(self.blocks, start=1):
            convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
            for place, layer in enumerate(convolutions):
                values = {name: stored[f"{number}.{place}.{name}"].float() for name in ("weight", "bias")}
                layer.load_state_dict(values)


def _block(number: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
    channels = CHANNELS[number - 1] if number else 3
    for _ in range(LAYERS[number]):
        layers += [nn.Conv2d(channels, CHANNELS[number], 3, padding=1), nn.ReLU()]
        channels = CHANNELS[number]
    return nn.Sequential(*layers)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).add(1e-10).sqrt() + FLOOR)


def _mean(difference: Tensor, weight: Tensor | None) -> Tensor:
    """(B,) mean of (B, 1, h, w)."""
    if weight is None:
        return difference.mean(dim=(1, 2, 3))
    small = nn.functional.adaptive_avg_pool2d(weight, (difference.shape[-2], difference.shape[-1]))
    return (difference * small).sum(dim=(1, 2, 3)) / small.sum(dim=(1, 2, 3)).clamp_min(1e-6)
