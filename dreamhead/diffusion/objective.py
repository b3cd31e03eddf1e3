"""The training objective: noise a clean sample, and say what a network should have predicted.

Song et al. 2021 (DDIM) for the notation; Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps Are
Flawed", for the schedule that ends in pure noise.
"""

import torch
from diffusers import DDIMScheduler
from torch import Tensor


def make_scheduler(num_train_timesteps: int = 1000) -> DDIMScheduler:
    """Cosine schedule with zero terminal signal; networks predict the clean sample x0."""
    return DDIMScheduler(
        num_train_timesteps=num_train_timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def add_noise(
    scheduler: DDIMScheduler, clean: Tensor, start: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Noisy samples and their steps, drawn evenly up to `start` of the schedule.

    Args:
        clean: (B, ...) x0.
        start: highest share of the schedule that sampling starts from: 1 is pure noise.

    Returns:
        (B, ...) x_t and (B,) t.
    """
    highest = max(1, round(start * scheduler.config.num_train_timesteps))
    timesteps = torch.randint(0, highest, (len(clean),), generator=generator).to(clean.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    noisy: Tensor = scheduler.add_noise(clean, noise, timesteps)
    return noisy, timesteps
