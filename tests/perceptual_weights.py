"""Random weights in the form that `scripts/make_perceptual` writes."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from dreamhead.models.perceptual import CHANNELS, LAYERS


def write_weights(folder: Path) -> Path:
    """The file, in a folder."""
    generator, before, weights = torch.Generator().manual_seed(0), 3, {}
    for block, (count, channels) in enumerate(zip(LAYERS, CHANNELS, strict=True), start=1):
        for number in range(count):
            scale = (2 / (9 * before)) ** 0.5
            weights[f"{block}.{number}.weight"] = scale * torch.randn(channels, before, 3, 3, generator=generator)
            weights[f"{block}.{number}.bias"] = torch.zeros(channels)
            before = channels
    path = folder / "vgg16_features.safetensors"
    save_file(weights, path)
    return path
