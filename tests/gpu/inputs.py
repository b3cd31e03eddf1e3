"""Random inputs of the networks, fresh for each run, and how far apart two results are."""

import logging
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamhead.checkpoint import Checkpoint
from dreamhead.models.landmark_denoiser import LandmarkDenoiser
from dreamhead.models.latent_denoiser import LatentDenoiser
from dreamhead.pipelines.example import Example, Moved
from dreamhead.records import SpeechTrack
from tests import tiny

FLOAT32 = 1e-3
"""Sums in another order differ by some 1e-6 a layer, and cuDNN's Winograd kernels by 1e-4; TF32, which is off, by
3e-4 a layer. A wrong kernel, layout or stride is off by a tenth and more."""
BFLOAT16 = 1e-4, 5e-2
"""Eight bits of mantissa: no difference at all would mean that nothing ran in bfloat16."""


@dataclass(frozen=True)
class Networks:
    """Those of a checkpoint, on a device."""

    landmarks: LandmarkDenoiser
    image: LatentDenoiser
    autoencoder: Any
    size: int
    """Side of the crop."""
    speech_size: int
    """Features of one reading of the speech."""


def networks(which: str, device: torch.device) -> Networks:
    """`tiny` networks of random weights, or the `bundled` ones."""
    if which == "bundled":
        loaded = Checkpoint.load()
        landmarks = loaded.landmark_denoiser(device)
        parts = landmarks, loaded.latent_denoiser(device), loaded.autoencoder(device)
        return Networks(*parts, loaded.config.crop_size, landmarks.config["speech_size"] // 2)
    parts = tiny.landmark_denoiser(), tiny.latent_denoiser(), tiny.autoencoder()
    placed = [part.to(device, memory_format=torch.channels_last) for part in parts]
    return Networks(*placed, tiny.CROP_SIZE, tiny.SPEECH_SIZE // 2)


def fresh() -> np.random.Generator:
    """Of numbers that no run before had; a failure shows the seed."""
    seed = secrets.randbits(32)
    logging.getLogger(__name__).warning("seed %d", seed)
    return np.random.default_rng(seed)


def speech(generator: np.random.Generator, size: int, seconds: float = 6.0) -> SpeechTrack:
    """Loud noise."""
    count = round(seconds * 50)
    features = generator.standard_normal((count, size)).astype(np.float32)
    return SpeechTrack(features=features, level_db=np.full(count, -20, np.float32), start_s=0.0, rate=50.0)


def examples(generator: np.random.Generator, size: int, count: int) -> list[Example]:
    """Pictures of noise that is smooth enough to be one."""

    def picture() -> NDArray[np.uint8]:
        coarse = torch.from_numpy(generator.random((1, 3, 8, 8), np.float32))
        smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0].clamp(0, 1)
        return (smooth.permute(1, 2, 0).numpy() * 255).astype(np.uint8)

    def share() -> NDArray[np.float32]:
        return generator.random((size, size), np.float32)

    return [
        Example(
            warped=picture(),
            target_image=picture(),
            reference_image=picture(),
            stretch=3 * share() - 1.5,
            mask=(share() > 0.5).astype(np.float32),
            mouth=share(),
            nearest=Moved(picture(), np.zeros((size, size, 2), np.float32)),
            unseen=np.zeros((size, size), np.float32),
        )
        for _ in range(count)
    ]


def apart(found: Any, reference: Any) -> float:
    """||a - b|| / ||b||; not a number, which compares with nothing, where either holds one."""
    first, second = (torch.as_tensor(part).detach().double().cpu() for part in (found, reference))
    assert first.shape == second.shape, f"{tuple(first.shape)} and {tuple(second.shape)}"
    assert second.norm() > 0, "a reference of zeros compares with nothing"
    return float((first - second).norm() / second.norm())


def assert_near(found: Any, reference: Any, most: float = FLOAT32) -> None:
    """Both are numbers throughout, and at most so far apart."""
    distance = apart(found, reference)
    assert distance <= most, f"||a - b|| / ||b|| = {distance:.2e}, allowed {most:.0e}"


def assert_half(found: Any, reference: Any) -> None:
    """As far from float32 as bfloat16 is, no further and no nearer."""
    least, most = BFLOAT16
    distance = apart(found, reference)
    assert least <= distance <= most, f"||a - b|| / ||b|| = {distance:.2e}, expected {least:.0e} to {most:.0e}"


def assert_same(first: Any, second: Any) -> None:
    """The same bits, and numbers."""
    left, right = (torch.as_tensor(part).detach().cpu() for part in (first, second))
    assert bool(torch.isfinite(left).all()), "not a number"
    assert torch.equal(left, right), f"||a - b|| / ||b|| = {apart(left, right):.2e}, expected the same bits"


def tensor(generator: np.random.Generator, *shape: int) -> Tensor:
    """Standard normal, on the CPU."""
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
