"""What the reference mixer's mistakes cost, but for what other networks say of them.

Pictures are (B, 3, W, W) in -1..1, weights (B, 1, W, W) with a mean of one. Examples come in pairs of neighbours.
"""

import torch
from torch import Tensor, nn

from dreamhead.models.warping import blurred

CUT = 96
"""Side of the square around the mouth that the dear networks look at, pixels."""
DETAIL_SIGMA = 1.0
AREA, STEP = 8, 4
"""Detail is compared over squares of this side, so many pixels apart."""
FAINT = 0.01
"""Detail below this, of a range of two, isn't told from none."""
LUMA = (0.299, 0.587, 0.114)


def coarse_error(ours: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error at half resolution: where finer details lie can't be known, and a guess would be a blur."""
    error = nn.functional.avg_pool2d((ours - truth).float(), 2).abs()
    return (error * nn.functional.avg_pool2d(weight, 2)).mean()


def detail_error(ours: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean difference of how much fine detail there is in each small square, wherever in it."""
    difference = (_detail(ours) - _detail(truth)).abs()
    return (difference * nn.functional.avg_pool2d(weight, AREA, STEP)).mean()


def motion_error(ours: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error of the change from one frame to the next, at half resolution: what flickers costs."""
    error = nn.functional.avg_pool2d(((ours[1::2] - ours[::2]) - (truth[1::2] - truth[::2])).float(), 2).abs()
    return (error * nn.functional.avg_pool2d(weight[::2], 2)).mean()


def mouth_cut(mouth: Tensor, *pictures: Tensor) -> tuple[Tensor, ...]:
    """The square around the middle of each (B, 1, W, W) mouth, of some (B, C, W, W) pictures."""
    window = mouth.shape[-1]
    side = min(CUT, window)
    place = torch.arange(window, device=mouth.device, dtype=torch.float32)
    total = mouth.sum(dim=(1, 2, 3)).clamp_min(1e-6)
    middles = (mouth.sum(dim=(1, 2)) @ place / total, mouth.sum(dim=(1, 3)) @ place / total)
    x, y = ((middle - side / 2).round().long().clamp(0, window - side) for middle in middles)
    steps = torch.arange(side, device=mouth.device)
    rows, columns = (y[:, None] + steps)[:, None, :, None], (x[:, None] + steps)[:, None, None, :]
    number = torch.arange(len(mouth), device=mouth.device)[:, None, None, None]
    return tuple(
        its[number, torch.arange(its.shape[1], device=its.device)[None, :, None, None], rows, columns]
        for its in pictures
    )


def _detail(pictures: Tensor) -> Tensor:
    """(B, 1, h, w) root mean square, in each square, of what a small blur takes away from the brightness."""
    grey = (pictures.float() * torch.tensor(LUMA, device=pictures.device)[:, None, None]).sum(dim=1, keepdim=True)
    fine = grey - blurred(grey, DETAIL_SIGMA)
    return (nn.functional.avg_pool2d(fine.square(), AREA, STEP) + FAINT**2).sqrt()
