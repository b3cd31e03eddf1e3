"""The mixer: what a fresh one believes, references that aren't there, features that can be kept."""

import torch

from dreamhead.models.reference_mixer import GUIDE_CHANNELS, Mixture, Moved, ReferenceMixer, shown

SIDE, HALF, COUNT = 32, 16, 3


def mixer() -> ReferenceMixer:
    torch.manual_seed(0)
    return ReferenceMixer(SIDE, (16, 16, 32), 8).eval()


def moved(model: ReferenceMixer, batch: int = 2, **changes: torch.Tensor) -> Moved:
    torch.manual_seed(1)
    pictures = torch.rand(batch, COUNT, 3, SIDE, SIDE) * 2 - 1
    fine, coarse = model.encode(pictures.flatten(0, 1), torch.zeros(batch * COUNT, 3, SIDE, SIDE))
    made = Moved(
        pictures[..., ::2, ::2],
        fine.unflatten(0, (batch, COUNT)),
        coarse.unflatten(0, (batch, COUNT)),
        torch.zeros(batch, COUNT, 1, HALF, HALF),
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
    assert mixture.added.shape == (2, 3, SIDE, SIDE)
    assert mixture.slow.shape == (2, 3, HALF, HALF)
    assert not mixture.added.any()
    for shares in (mixture.coarse, mixture.fine):
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, HALF, HALF))
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
    pixels = torch.rand(2, COUNT, 3, SIDE, SIDE)
    torch.testing.assert_close(shown(model(made, guides()), pixels), pixels[:, 0], rtol=0, atol=1e-5)


def test_details_are_chosen_and_what_is_coarse_is_mixed() -> None:
    # Two references whose pixels are flat, of which the fine band takes the first and the coarse band the second.
    fine, coarse = torch.zeros(1, 2, HALF, HALF), torch.zeros(1, 2, HALF, HALF)
    fine[:, 0], coarse[:, 1] = 1, 1
    halves = torch.stack([torch.full((1, 3, HALF, HALF), tone) for tone in (0.25, 0.75)], dim=1)
    slow = ((coarse - fine)[:, :, None] * halves).sum(dim=1)
    details = torch.rand(1, 3, SIDE, SIDE) * 0.1
    pixels = torch.stack([0.25 + details, torch.full((1, 3, SIDE, SIDE), 0.75)], dim=1)
    made = Mixture(coarse, fine, slow, torch.zeros(1, 3, SIDE, SIDE))
    torch.testing.assert_close(shown(made, pixels), 0.75 + details)


@torch.no_grad()
def test_what_isnt_there_changes_nothing() -> None:
    model = mixer()
    model.key.weight.normal_()
    there = torch.tensor([[True, True, False]]).repeat(2, 1)
    made = moved(model, present=there)
    other = made._replace(pictures=made.pictures.clone(), fine=made.fine.clone(), coarse=made.coarse.clone())
    for part in (other.pictures, other.fine, other.coarse):
        part[:, 2] = 9
    for ours, theirs in zip(model(made, guides()), model(other, guides()), strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_the_order_of_references_doesnt_matter() -> None:
    model = mixer()
    model.key.weight.normal_()
    made, order = moved(model), torch.tensor([2, 0, 1])
    turned = Moved(*(part[:, order] for part in made))
    plain, moved_on = model(made, guides()), model(turned, guides())
    torch.testing.assert_close(plain.slow, moved_on.slow, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain.fine[:, order], moved_on.fine, rtol=1e-4, atol=1e-4)


def test_every_weight_is_learnt() -> None:
    model = mixer().train()
    torch.nn.init.normal_(model.key.weight)
    torch.nn.init.normal_(model.add[1].weight)
    own = torch.tensor([[False, False, True]]).repeat(2, 1)
    mixture = model(moved(model, own=own), torch.rand(2, GUIDE_CHANNELS, SIDE, SIDE))
    shown(mixture, torch.rand(2, COUNT, 3, SIDE, SIDE)).square().mean().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert idle == []
