"""The perceptual distance with random weights: nothing for equal pictures, more for more blur, only where it counts."""

from pathlib import Path

import pytest
import torch

from dreamhead.errors import WeightsUnavailableError
from dreamhead.models.perceptual import PerceptualDistance
from dreamhead.models.warping import blurred
from tests.perceptual_weights import write_weights


@pytest.fixture(scope="module")
def distance(tmp_path_factory: pytest.TempPathFactory) -> PerceptualDistance:
    return PerceptualDistance(write_weights(tmp_path_factory.mktemp("vgg")))


def test_equal_pictures_are_no_distance_apart_and_blur_grows_it(distance: PerceptualDistance) -> None:
    picture = torch.rand(2, 3, 32, 32) * 2 - 1
    assert distance(picture, picture).tolist() == [0, 0]
    little, much = (distance(blurred(picture, sigma), picture) for sigma in (0.5, 2.0))
    assert (little > 0).all()
    assert (little < much).all()


def test_a_weight_says_where_it_counts(distance: PerceptualDistance) -> None:
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    other = picture.clone()
    other[..., :20] = 0
    right = torch.zeros(1, 1, 64, 64)
    right[..., 48:] = 1
    assert float(distance(picture, other, right)) == pytest.approx(0, abs=1e-6)
    assert float(distance(picture, other, right.flip(-1))) > 0.01


def test_gradients_reach_the_picture_and_not_the_weights(distance: PerceptualDistance) -> None:
    picture = torch.zeros(1, 3, 16, 16, requires_grad=True)
    distance(picture, torch.rand(1, 3, 16, 16)).sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_missing_weights_are_named_with_the_way_to_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"absent\.safetensors: no such file; scripts/make_perceptual"):
        PerceptualDistance(tmp_path / "absent.safetensors")
