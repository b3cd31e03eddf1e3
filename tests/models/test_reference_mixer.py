"""The mixer: what a fresh one believes, references that aren't there, features that can be kept."""

import torch

from dreamhead.models.reference_mixer import GUIDE_CHANNELS, Moved, ReferenceMixer

SIDE, COUNT = 32, 3


def mixer() -> ReferenceMixer:
    torch.manual_seed(0)
    return ReferenceMixer(SIDE, (16, 16, 32)).eval()


def moved(model: ReferenceMixer, batch: int = 2, **changes: torch.Tensor) -> Moved:
    torch.manual_seed(1)
    pictures = torch.rand(batch, COUNT, 3, SIDE, SIDE) * 2 - 1
    fine, coarse = model.encode(pictures.flatten(0, 1), torch.zeros(batch * COUNT, 3, SIDE, SIDE))
    made = Moved(
        pictures,
        fine.unflatten(0, (batch, COUNT)),
        coarse.unflatten(0, (batch, COUNT)),
        torch.zeros(batch, COUNT, 1, SIDE, SIDE),
        torch.tensor([[0.01, 0.05, 0.2]]).repeat(batch, 1),
        torch.zeros(batch, COUNT, dtype=torch.bool),
        torch.ones(batch, COUNT, dtype=torch.bool),
    )
    return made._replace(**changes)


def guides(batch: int = 2) -> torch.Tensor:
    """All of the window is mouth."""
    return torch.ones(batch, GUIDE_CHANNELS, SIDE, SIDE)


@torch.no_grad()
def test_a_fresh_one_takes_the_details_of_the_nearest_and_adds_nothing() -> None:
    model = mixer()
    mixture = model(moved(model), guides())
    assert mixture.picture.shape == (2, 3, SIDE, SIDE)
    assert torch.equal(mixture.picture, mixture.mixed)
    assert not mixture.added.any()
    for shares in (mixture.coarse, mixture.fine):
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, SIDE, SIDE))
    assert (mixture.fine[:, 0] > 0.9).all()
    assert (mixture.coarse[:, 0] < mixture.fine[:, 0]).all()
    assert mixture.coarse[:, 0].mean() > mixture.coarse[:, 1].mean()


@torch.no_grad()
def test_around_the_mouth_a_fresh_one_believes_the_frame_itself() -> None:
    model = mixer()
    own = torch.tensor([[False, False, True]]).repeat(2, 1)
    around = guides()
    around[:, -1] = -1
    mixture = model(moved(model, own=own), around)
    assert mixture.coarse[:, 2].mean() > 0.5


@torch.no_grad()
def test_one_reference_alone_comes_through_as_it_is() -> None:
    model = mixer()
    made = moved(model, present=torch.tensor([[True, False, False]]).repeat(2, 1))
    torch.testing.assert_close(model(made, guides()).mixed, made.pictures[:, 0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_isnt_there_changes_nothing() -> None:
    model = mixer()
    model.weigh.weight.normal_()
    there = torch.tensor([[True, True, False]]).repeat(2, 1)
    made = moved(model, present=there)
    other = made._replace(pictures=made.pictures.clone(), fine=made.fine.clone(), coarse=made.coarse.clone())
    for part in (other.pictures, other.fine, other.coarse):
        part[:, 2] = 9
    torch.testing.assert_close(model(made, guides()).mixed, model(other, guides()).mixed)


@torch.no_grad()
def test_the_order_of_references_doesnt_matter() -> None:
    model = mixer()
    model.weigh.weight.normal_()
    made, order = moved(model), torch.tensor([2, 0, 1])
    turned = Moved(*(part[:, order] for part in made))
    torch.testing.assert_close(model(made, guides()).mixed, model(turned, guides()).mixed, rtol=1e-4, atol=1e-4)


def test_every_weight_is_learnt() -> None:
    model = mixer().train()
    torch.nn.init.normal_(model.weigh.weight)
    torch.nn.init.normal_(model.add[1].weight)
    own = torch.tensor([[False, False, True]]).repeat(2, 1)
    model(moved(model, own=own), torch.rand(2, GUIDE_CHANNELS, SIDE, SIDE)).picture.square().mean().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert idle == []
