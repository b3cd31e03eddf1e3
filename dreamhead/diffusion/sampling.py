"""Deterministic few-step sampling over any denoiser, and noise that is keyed by place, not by order."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t, (B,) t) -> prediction of the clean x0."""


def keyed_noise(seed: int, keys: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal (len(keys), *shape), each row a function of (seed, key) alone.

    Philox counts from its key (Salmon et al. 2011): no row depends on which rows are drawn beside it.
    """
    count = int(np.prod(shape))
    rows = [np.random.Generator(_philox(seed, key)).standard_normal(count, dtype=np.float32) for key in keys]
    return torch.from_numpy(np.stack(rows).reshape(len(keys), *shape))


def _philox(seed: int, key: int) -> np.random.Philox:
    # Two's complement, for ticks before the start of the speech; a list of such integers would pass through floats.
    return np.random.Philox(key=np.array([seed, key], np.int64).view(np.uint64))


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    scheduler: DDIMScheduler,
    noise: Tensor,
    num_inference_steps: int,
    begin: Tensor | None = None,
    start: float = 1.0,
) -> Tensor:
    """DDIM from noise, or from a first guess with noise on it (SDEdit, Meng et al. 2022).

    Args:
        noise: (B, ...) standard normal.
        begin: (B, ...) first guess of x0; needed when `start` is below 1.
        start: share of the schedule to start from; 1 is pure noise.

    Returns:
        (B, ...) x0.
    """
    # As in diffusers' image-to-image pipelines: the tail of a longer run starts part of the way down.
    # Rounded up: a run must not start above `start`, where a network that was trained below it never was.
    scheduler.set_timesteps(math.ceil(num_inference_steps / start - 1e-9))
    steps = scheduler.timesteps[-num_inference_steps:]
    timesteps = steps.to(noise.device)
    current = noise if begin is None else scheduler.add_noise(begin, noise, timesteps[:1].expand(len(noise)))
    # The scheduler looks at its step's number: a tensor's would be waited for, with all that a GPU has still to do.
    for number, timestep in zip(steps.tolist(), timesteps, strict=True):
        clean = denoiser(current, timestep.expand(len(noise)))
        current = scheduler.step(clean, number, current).prev_sample
    # Not `current`: where the steps don't divide the schedule, the scheduler's last one stops short of no noise.
    return clean
