"""The second stage's network: fresh, it trusts the reference; trained, it heeds every picture it is shown."""

import pytest
import torch
from torch import Tensor

from dreamhead.models.latent_denoiser import GUIDE_CHANNELS, LatentDenoiser


def fresh() -> LatentDenoiser:
    torch.manual_seed(0)
    return LatentDenoiser(latent_channels=4, guide_channels=8, block_out_channels=(32, 32)).eval()


def inputs(height: int = 6, width: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = {name: torch.randn(2, 4, height, width, generator=generator) for name in ("noisy", "reference", "masked")}
    guides = torch.rand(2, GUIDE_CHANNELS, 8 * height, 8 * width, generator=generator) * 2 - 1
    return {**latents, "timestep": torch.tensor([500, 20]), "guides": guides}


@torch.no_grad()
def test_a_fresh_network_returns_the_reference_and_no_opinion() -> None:
    given = inputs()
    clean, logit = fresh()(**given)
    assert torch.equal(clean, given["reference"])
    assert torch.equal(logit, torch.zeros(2, 1, 6, 8))


@pytest.fixture(scope="module")
def trained() -> LatentDenoiser:
    model = fresh()
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.1)
    return model


@pytest.mark.parametrize("name", ["noisy", "reference", "masked", "guides", "timestep"])
@torch.no_grad()
def test_everything_it_is_told_matters(trained: LatentDenoiser, name: str) -> None:
    given = inputs()
    clean, _ = trained(**given)
    changed, _ = trained(**{**given, name: given[name].flip(0)})
    reference = given["reference"] - (given["reference"].flip(0) if name == "reference" else given["reference"])
    assert (clean - changed - reference).abs().max() > 1e-4


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 8), (24, 32)])
@torch.no_grad()
def test_shapes_follow_the_crop(trained: LatentDenoiser, height: int, width: int) -> None:
    clean, logit = trained(**inputs(height, width))
    assert clean.shape == (2, 4, height, width)
    assert logit.shape == (2, 1, height, width)


@torch.no_grad()
def test_a_batch_is_its_rows(trained: LatentDenoiser) -> None:
    given = inputs()
    clean, logit = trained(**given)
    for row in range(2):
        one, its_logit = trained(**{name: part[row : row + 1] for name, part in given.items()})
        torch.testing.assert_close(one[0], clean[row], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(its_logit[0], logit[row], atol=1e-5, rtol=1e-4)


def test_all_weights_learn() -> None:
    model = fresh()
    clean, logit = model(**inputs())
    (clean.square().mean() + (logit - 1).square().mean()).backward()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    # The first step moves the zeros at the end, and with them everything before begins to learn.
    clean, logit = model(**inputs())
    (clean.square().mean() + (logit - 1).square().mean()).backward()
    idle = [name for name, part in model.named_parameters() if part.grad is None or not part.grad.abs().sum()]
    assert idle == []
