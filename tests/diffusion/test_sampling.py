"""Noise is keyed by place, and a perfect denoiser's answer comes out whatever the steps."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamhead.diffusion.objective import make_scheduler
from dreamhead.diffusion.sampling import keyed_noise, sample


def test_a_row_is_a_function_of_its_key_alone() -> None:
    keys = [3, -1, 10**12, 0, -(10**12), 3]
    together = keyed_noise(7, keys, (2, 5))
    assert together.shape == (6, 2, 5)
    assert together.dtype == torch.float32
    for row, key in enumerate(keys):
        assert torch.equal(keyed_noise(7, [key], (2, 5))[0], together[row])
    assert torch.equal(together[0], together[5])
    assert len({tuple(row.flatten().tolist()) for row in together}) == 5


@pytest.mark.parametrize("key", [2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
def test_keys_are_exact_integers(key: int) -> None:
    neighbour = key - 1 if key > 0 else key + 1
    assert not torch.equal(keyed_noise(0, [key], (4,)), keyed_noise(0, [neighbour], (4,)))


def test_seeds_differ_and_do_not_pass_for_keys() -> None:
    drawn = [keyed_noise(seed, [key], (8,)) for seed, key in ((0, 1), (1, 0), (1, 1), (2**40, 1), (-1, 1))]
    assert len({tuple(row.flatten().tolist()) for row in drawn}) == 5


def test_noise_is_standard_normal() -> None:
    noise = keyed_noise(3, range(-500, 500), (16,)).double()
    assert abs(float(noise.mean())) < 0.03
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    neighbours = np.corrcoef(noise[:-1].flatten(), noise[1:].flatten())[0, 1]
    assert abs(neighbours) < 0.03


@pytest.mark.parametrize("start", [1.0, 0.6, 0.3])
@pytest.mark.parametrize("steps", [1, 2, 4, 7, 50])
def test_a_perfect_denoiser_is_believed(start: float, steps: int) -> None:
    clean, guess = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    seen: list[tuple[Tensor, Tensor]] = []

    def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
        seen.append((noisy, timestep))
        return clean

    found = sample(denoiser, make_scheduler(), torch.randn(2, 3, 4), steps, begin=guess, start=start)
    torch.testing.assert_close(found, clean, atol=1e-3, rtol=1e-3)
    assert len(seen) == steps
    times = [int(timestep[0]) for _, timestep in seen]
    assert times == sorted(set(times), reverse=True)
    assert all(timestep.shape == (2,) for _, timestep in seen)


def test_sampling_from_noise_begins_with_the_noise_itself() -> None:
    noise = torch.randn(2, 5)
    seen: list[Tensor] = []

    def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
        seen.append(noisy)
        return torch.zeros_like(noisy)

    sample(denoiser, make_scheduler(), noise, 4)
    assert torch.equal(seen[0], noise)


def test_each_step_is_ddims() -> None:
    """x_s = sqrt(a_s) x0 + sqrt(1 - a_s) eps, with the eps that x_t and x0 tell of (Song et al. 2021, Eq. 12)."""
    scheduler, noise = make_scheduler(), torch.randn(1, 6)
    seen: list[tuple[Tensor, Tensor, int]] = []

    def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
        clean = 0.3 * noisy + 0.1
        seen.append((noisy, clean, int(timestep[0])))
        return clean

    sample(denoiser, scheduler, noise, 4)
    alphas = scheduler.alphas_cumprod
    for (noisy, clean, time), (following, _, next_time) in pairwise(seen):
        eps = (noisy - alphas[time].sqrt() * clean) / (1 - alphas[time]).sqrt()
        expected = alphas[next_time].sqrt() * clean + (1 - alphas[next_time]).sqrt() * eps
        torch.testing.assert_close(following, expected, atol=1e-5, rtol=1e-4)


def test_a_first_guess_is_noised_no_further_than_it_begins() -> None:
    guess = torch.randn(1, 1000)
    seen: list[Tensor] = []

    def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
        seen.append(noisy)
        return guess

    sample(denoiser, make_scheduler(), torch.randn(1, 1000), 4, begin=guess, start=0.3)
    assert float(torch.corrcoef(torch.cat([seen[0], guess]))[0, 1]) > 0.8
