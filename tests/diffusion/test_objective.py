"""The schedule ends in pure noise, and noise is drawn up to where sampling starts."""

import pytest
import torch

from dreamhead.diffusion.objective import add_noise, make_scheduler


def test_the_last_step_holds_no_signal() -> None:
    alphas = make_scheduler().alphas_cumprod
    assert float(alphas[-1]) == 0
    assert float(alphas[0]) > 0.999
    assert (alphas.diff() < 0).all()


def test_sampling_begins_at_the_last_step() -> None:
    scheduler = make_scheduler()
    scheduler.set_timesteps(8)
    assert int(scheduler.timesteps[0]) == 999
    assert scheduler.config.prediction_type == "sample"
    assert not scheduler.config.clip_sample


@pytest.mark.parametrize(("start", "highest"), [(1.0, 999), (0.6, 599), (0.001, 0)])
def test_steps_are_drawn_up_to_the_start(start: float, highest: int) -> None:
    generator = torch.Generator().manual_seed(0)
    _, timesteps = add_noise(make_scheduler(), torch.zeros(20_000, 1), start, generator)
    assert timesteps.min() == 0
    assert timesteps.max() == highest
    assert float(timesteps.float().mean()) == pytest.approx(highest / 2, rel=0.02)


def test_a_sample_keeps_its_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(64, 500, generator=generator)
    noisy, timesteps = add_noise(make_scheduler(), clean, 1.0, generator)
    torch.testing.assert_close(noisy.std(dim=1), torch.ones(64), atol=0.15, rtol=0)
    share = make_scheduler().alphas_cumprod[timesteps].sqrt()
    signal = (noisy * clean).mean(dim=1) / clean.square().mean(dim=1)
    torch.testing.assert_close(signal, share, atol=0.15, rtol=0)


def test_the_generator_decides_everything() -> None:
    clean = torch.randn(4, 3)
    first, second = (add_noise(make_scheduler(), clean, 1.0, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
