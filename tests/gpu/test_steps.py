"""A training step of each task gives on a GPU the loss and the gradients that it gives on a CPU."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamhead.training.autoencoder_stage import AutoencoderTask
from dreamhead.training.image_stage import ImageTask
from dreamhead.training.landmark_stage import LandmarkTask
from dreamhead.training.settings import AUTOENCODER, LANDMARKS, STAGES, AutoencoderStage, ImageStage
from dreamhead.training.settings import LandmarkStage as LandmarkSettings
from tests.gpu import inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.parametrize("stage", STAGES),
]

CPU = torch.device("cpu")
COUNT = 2
TICKS = 64
GRADIENTS = 5e-3
"""Gradients cancel: what a loss's sums differ by in their order weighs more in what is left."""


def task_of(stage: str, nets: inputs.Networks) -> Any:
    """The task over a network that is trained, and gives the same at each call."""
    if stage == AUTOENCODER:
        task: Any = AutoencoderTask(nets.autoencoder, AutoencoderStage())
    elif stage == LANDMARKS:
        task = LandmarkTask(nets.landmarks, LandmarkSettings())
    else:
        task = ImageTask(nets.image, nets.autoencoder, ImageStage())
    task.model.requires_grad_(True)
    return task


def batch_of(stage: str, nets: inputs.Networks, generator: np.random.Generator) -> dict[str, Tensor]:
    """Examples of noise, in the shapes that the task's own have."""
    size, rows = nets.size, nets.size * 3 // 4
    bytes_of = lambda *shape: torch.from_numpy(generator.integers(256, size=shape, dtype=np.uint8))  # noqa: E731
    if stage == AUTOENCODER:
        return {"pixels": bytes_of(COUNT, size // 2, size // 2, 3)}
    if stage == LANDMARKS:
        points = nets.landmarks.config["points"]
        return {
            "residual": 0.1 * inputs.tensor(generator, COUNT, TICKS, points, 3),
            "speech": inputs.tensor(generator, COUNT, TICKS, 2 * nets.speech_size),
            "neutral": inputs.tensor(generator, COUNT, points, 3),
            "keep": torch.tensor([1.0, 0.0]),
        }
    shared = [torch.from_numpy(generator.random((COUNT, 1, rows, size), np.float32)) for _ in range(2)]
    return {
        "target": bytes_of(COUNT, rows, size, 3),
        "mouth": shared[0],
        "warped": inputs.tensor(generator, COUNT, 3, rows, size).clamp(-1, 1),
        "mask": shared[1],
        "guides": inputs.tensor(generator, COUNT, 8, rows, size).clamp(-1, 1),
    }


def step(stage: str, which: str, place: torch.device, seed: int, half: bool = False) -> tuple[Tensor, Tensor]:
    """Loss, and gradients end to end."""
    nets = inputs.networks(which, place)
    task, batch = task_of(stage, nets), batch_of(stage, nets, np.random.default_rng(seed))
    placed = {name: part.to(place) for name, part in batch.items()}
    with torch.autocast(place.type, torch.bfloat16, enabled=half):
        loss, _ = task.loss(placed, torch.Generator().manual_seed(seed))
    loss.backward()
    gradients = [part.grad.flatten() for part in task.model.parameters() if part.grad is not None]
    return loss.detach().cpu(), torch.cat(gradients).cpu()


def test_loss_and_gradients(stage: str, which: str, device: torch.device) -> None:
    seed = int(inputs.fresh().integers(1 << 31))
    (loss, gradients), (its_loss, its_gradients) = (step(stage, which, place, seed) for place in (device, CPU))
    inputs.assert_near(loss, its_loss)
    inputs.assert_near(gradients, its_gradients, GRADIENTS)
    # One number may round to itself, and a gradient in bfloat16 is a rough one.
    half_loss, half_gradients = step(stage, which, device, seed, half=True)
    inputs.assert_near(half_loss, loss, 5e-2)
    assert 1e-4 < inputs.apart(half_gradients, gradients) < 0.5


def test_the_same_loss_twice(stage: str, which: str, device: torch.device) -> None:
    # Gradients of a GPU add up in an order of the moment, where its kernels use atomics; the loss doesn't.
    seed = int(inputs.fresh().integers(1 << 31))
    inputs.assert_same(step(stage, which, device, seed)[0], step(stage, which, device, seed)[0])
