"""The first stage's network: its shape basis, and what it listens to."""

import pytest
import torch
from torch import Tensor

from dreamhead.models.landmark_denoiser import LandmarkDenoiser, MappingUnit, fit_basis

K, D, C, T = 10, 4, 6, 12


@pytest.fixture
def model() -> LandmarkDenoiser:
    torch.manual_seed(0)
    model = LandmarkDenoiser(points=K, coefficients=D, speech_size=C, hidden_size=16, blocks=3).eval()
    model.basis.copy_(torch.linalg.qr(torch.randn(3 * K, D))[0].T * torch.tensor([4.0, 2.0, 1.0, 0.5])[:, None])
    model.mean.copy_(torch.randn(3 * K))
    model.neutral_mean.copy_(torch.randn(3 * K))
    return model


def inputs(batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "noisy": torch.randn(batch, T, D, generator=generator),
        "timestep": torch.tensor([900, 10])[:batch],
        "speech": torch.randn(batch, T, C, generator=generator),
        "neutral": torch.randn(batch, K, 3, generator=generator),
        "keep": torch.ones(batch),
    }


def test_what_is_decoded_encodes_to_itself(model: LandmarkDenoiser) -> None:
    coefficients = torch.randn(2, T, D)
    residual = model.decode(coefficients)
    assert residual.shape == (2, T, K, 3)
    torch.testing.assert_close(model.encode(residual), coefficients, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.decode(torch.zeros(D)).flatten(), model.mean)


def test_the_basis_explains_data_of_its_rank_fully(model: LandmarkDenoiser) -> None:
    residuals = torch.randn(200, D) @ torch.randn(D, 3 * K) + torch.randn(3 * K)
    neutrals = torch.randn(5, K, 3)
    figures = fit_basis(model, residuals.view(-1, K, 3), neutrals)
    assert figures["explained"] == pytest.approx(1)
    coefficients = model.encode(residuals.view(-1, K, 3))
    torch.testing.assert_close(model.decode(coefficients).flatten(1), residuals, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(coefficients.mean(dim=0), torch.zeros(D), atol=1e-4, rtol=0)
    torch.testing.assert_close(coefficients.square().mean(dim=0), torch.ones(D), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.neutral_mean.view(K, 3), neutrals.mean(dim=0))


def test_a_basis_that_is_too_small_says_how_much_it_holds(model: LandmarkDenoiser) -> None:
    spread = torch.tensor([3.0, 3.0, 3.0, 3.0, 2.0, 1.0])
    rows = torch.linalg.qr(torch.randn(3 * K, 6))[0].T * spread[:, None]
    residuals = torch.linalg.qr(torch.randn(400, 6) - 0.0)[0] @ rows
    explained = fit_basis(model, residuals.view(-1, K, 3), torch.zeros(1, K, 3))["explained"]
    assert explained == pytest.approx(36 / 41, abs=0.03)


def test_every_frame_is_answered(model: LandmarkDenoiser) -> None:
    assert model(**inputs()).shape == (2, T, D)


def test_speech_that_is_dropped_is_not_heard(model: LandmarkDenoiser) -> None:
    given = inputs()
    other = {**given, "speech": torch.randn(2, T, C)}
    heard = model(**given) - model(**other)
    assert heard.abs().max() > 1e-3
    dropped = {"keep": torch.tensor([0.0, 1.0])}
    first, second = model(**{**given, **dropped}), model(**{**other, **dropped})
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize("name", ["noisy", "neutral", "timestep"])
def test_everything_else_it_is_told_matters(model: LandmarkDenoiser, name: str) -> None:
    given = inputs()
    changed = {**given, name: given[name].flip(0)}
    assert (model(**given) - model(**changed)).abs().max() > 1e-4


def test_a_batch_is_its_rows(model: LandmarkDenoiser) -> None:
    given = inputs()
    rows = [model(**{name: part[row : row + 1] for name, part in given.items()}) for row in range(2)]
    torch.testing.assert_close(model(**given), torch.cat(rows), atol=1e-5, rtol=1e-4)


def test_time_is_seen_as_far_as_the_dilations_reach(model: LandmarkDenoiser) -> None:
    given = inputs(1)
    longer = {**given, "noisy": torch.zeros(1, 40, D), "speech": torch.zeros(1, 40, C)}
    nudged = {**longer, "speech": longer["speech"].clone()}
    nudged["speech"][0, 20, 0] = 5
    changed = (model(**longer) - model(**nudged)).abs().amax(dim=(0, 2)) > 0
    assert changed.nonzero().flatten().tolist() == list(range(20 - 7, 20 + 7 + 1))


def test_mapping_looks_at_one_frame_alone() -> None:
    unit = MappingUnit(8, 0.0).eval()
    hidden = torch.randn(1, 5, 8)
    other = hidden.clone()
    other[0, 3] += 1
    same = (unit(hidden, hidden, hidden) == unit(other, other, other)).all(dim=2)[0]
    assert same.tolist() == [True, True, True, False, True]
