"""Each loss sees its own kind of mistake, and no other."""

import pytest
import torch

from dreamhead.models.warping import blurred
from dreamhead.training.mixer_losses import CUT, coarse_error, detail_error, motion_error, mouth_cut

SIDE = 64
WEIGHT = torch.ones(2, 1, SIDE, SIDE)


def noise(seed: int = 0, strength: float = 0.1) -> torch.Tensor:
    torch.manual_seed(seed)
    return strength * torch.randn(2, 3, SIDE, SIDE)


def test_a_change_of_tone_is_a_coarse_error_and_none_of_detail() -> None:
    truth = noise()
    assert float(coarse_error(truth + 0.1, truth, WEIGHT)) == pytest.approx(0.1, abs=1e-6)
    assert float(detail_error(truth + 0.1, truth, WEIGHT)) < 1e-5


def test_details_elsewhere_cost_less_than_none() -> None:
    # The kind of detail that is right, in another place: no error of detail, and hardly one of what is coarse.
    truth, elsewhere, none = noise(0), noise(1), torch.zeros(2, 3, SIDE, SIDE)
    assert float(detail_error(elsewhere, truth, WEIGHT)) < 0.3 * float(detail_error(none, truth, WEIGHT))
    assert float(detail_error(truth, truth, WEIGHT)) == 0
    assert float(detail_error(blurred(truth, 1.5), truth, WEIGHT)) > 0.03
    pixels = float((elsewhere - truth).abs().mean())
    assert float(coarse_error(elsewhere, truth, WEIGHT)) < 0.6 * pixels


def test_only_what_flickers_is_an_error_of_motion() -> None:
    truth = noise()
    still = noise(2)[:1].expand(2, -1, -1, -1)
    assert float(motion_error(truth + still, truth, WEIGHT)) == pytest.approx(0, abs=1e-6)
    flickering = truth.clone()
    flickering[1] += 0.2
    assert float(motion_error(flickering, truth, WEIGHT)) == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize("loss", [coarse_error, detail_error, motion_error])
def test_what_has_no_weight_costs_nothing(loss: object) -> None:
    truth, ours = noise(), noise()
    ours[:, :, :16] = 1 * torch.tensor([1.0, -1.0])[:, None, None, None]
    weight = torch.ones(2, 1, SIDE, SIDE)
    assert float(loss(ours, truth, weight)) > 0.01  # type: ignore[operator]
    weight[:, :, :24] = 0
    assert float(loss(ours, truth, weight)) == pytest.approx(0, abs=1e-6)  # type: ignore[operator]


def test_the_square_around_the_mouth_stays_in_the_window() -> None:
    window = CUT + 40
    mouth = torch.zeros(3, 1, window, window)
    mouth[0, :, 60:70, 50:60] = 1
    mouth[1, :, :4, :4] = 1
    mouth[2, :, -4:, -4:] = 1
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    places = torch.stack([columns, rows]).float().expand(3, -1, -1, -1)
    found, same = mouth_cut(mouth, places, mouth)
    assert found.shape == (3, 2, CUT, CUT)
    assert (found[0, :, 0, 0] - torch.tensor([54.5 - CUT / 2, 64.5 - CUT / 2])).abs().max() <= 0.5
    assert found[1, :, 0, 0].tolist() == [0, 0]
    assert found[2, :, 0, 0].tolist() == [40, 40]
    assert same[0].sum() == mouth[0].sum()


def test_a_window_smaller_than_the_square_is_taken_whole() -> None:
    picture = noise()
    (found,) = mouth_cut(torch.ones(2, 1, SIDE, SIDE), picture)
    assert torch.equal(found, picture)
