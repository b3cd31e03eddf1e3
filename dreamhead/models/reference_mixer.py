"""Which of several moved pictures to believe at each pixel, and what none of them shows.

An encoder looks once at each reference picture and its landmark image; what it finds is moved along the face's mesh
as the picture is. A small U-Net compares the moved references with the wanted landmarks. Attention across the
references then says, for each place, how much of each one's coarse and fine band to take. It works at half of the
window's resolution: weights and coarse changes are enlarged, details of the references never are.

Shapes: B examples, K references of each, W side of the mouth's window in pixels (a multiple of 16), h = W / 2.
"""

from typing import NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from dreamhead.models.autoencoder import ResidualBlock

GUIDE_CHANNELS = 8
"""Landmark image of the target (3), the frame around the mask (3), mask (1), inside of the lips (1)."""
MARKS = 3
"""Said of each reference: stretch, mouth's distance, whether it is the frame itself."""
SHARPNESS = 4.0
"""Factor on the logits: choices are learnt faster."""
FINE_SHARPNESS = 4.0
"""The same again for the fine band: a mean of details is a blur, so one must be chosen."""
GROUP = 8
"""Channels that share their weights over the references."""
KEY = 8
"""Channels of a query."""
AROUND = 0.2
"""How much less the distance between mouths counts around the mouth than inside."""
DISTANCE_UNIT = 0.03
"""Distances of mouths, in eye distances a point, are divided by this."""


class Moved(NamedTuple):
    """The references of B examples, moved to the target."""

    pictures: Tensor
    """(B, K, 3, h, h) in -1..1, at half resolution: their coarse band."""
    fine: Tensor
    """(B, K, C0, h, h) features of `encode`."""
    coarse: Tensor
    """(B, K, C1, h / 2, h / 2) features of `encode`."""
    stretch: Tensor
    """(B, K, 1, h, h) log2, see `warping.stretch`."""
    distance: Tensor
    """(B, K) between the reference's mouth and the wanted one, eye distances a point."""
    own: Tensor
    """(B, K) 1 for the frame itself, whose mouth says something else."""
    present: Tensor
    """(B, K) false where there is no such reference."""


class Mixture(NamedTuple):
    """What is made of the references: each one's pixels times `fine`, enlarged, and the change."""

    coarse: Tensor
    """(B, K, h, h) share of each reference's coarse band; they sum to one."""
    fine: Tensor
    """(B, K, h, h) the same of the fine band."""
    slow: Tensor
    """(B, 3, h, h) coarse bands mixed by `coarse`, less the same mixed by `fine`."""
    added: Tensor
    """(B, 3, W, W) what no reference shows."""

    def change(self) -> Tensor:
        """(B, 3, W, W) what is added to the references' pixels."""
        return enlarged(self.slow) + self.added


class ReferenceMixer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Mixes moved references; see the module.

    Args:
        window: W.
        channels: at 1/2, 1/4 and 1/8 of the window's resolution; multiples of 8, the last of 32.
        kept: channels, at 1/2 of the resolution, of what is moved of a reference; a multiple of 8.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers has no types
    def __init__(self, window: int = 160, channels: tuple[int, int, int] = (24, 48, 96), kept: int = 16) -> None:
        super().__init__()
        fine, coarse, deep = channels
        self.unshuffle = nn.PixelUnshuffle(2)
        self.encode_fine = nn.Sequential(nn.Conv2d(6 * 4, fine, 3, padding=1), ResidualBlock(fine))
        self.keep_fine = nn.Conv2d(fine, kept, 1)
        self.encode_coarse = nn.Sequential(nn.Conv2d(fine, coarse, 3, stride=2, padding=1), ResidualBlock(coarse))
        self.guide_fine = nn.Sequential(nn.Conv2d(GUIDE_CHANNELS * 4, fine, 3, padding=1), ResidualBlock(fine))
        self.guide_coarse = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        # A reference and what is wanted are compared by a sum of both: the latter is computed once for all.
        self.compare_fine = _Compared(kept, fine, kept + 3 + MARKS)
        self.compare_coarse = _Compared(coarse, coarse, coarse + MARKS)
        self.down_fine = nn.Sequential(nn.Conv2d(kept + fine, fine, 3, padding=1), ResidualBlock(fine))
        self.down_coarse = nn.Sequential(nn.Conv2d(fine + 2 * coarse, coarse, 3, padding=1), ResidualBlock(coarse))
        self.shrink_fine = nn.Conv2d(fine, fine, 3, stride=2, padding=1)
        self.shrink_coarse = nn.Conv2d(coarse, deep, 3, stride=2, padding=1)
        self.deep = nn.ModuleList([ResidualBlock(deep), _Attention(deep), ResidualBlock(deep)])
        self.up_coarse = nn.Sequential(nn.Conv2d(deep + coarse, coarse, 3, padding=1), ResidualBlock(coarse))
        self.up_fine = nn.Sequential(nn.Conv2d(coarse + fine, fine, 3, padding=1), ResidualBlock(fine))
        self.query, self.key = nn.Conv2d(fine, 2 * KEY, 1), nn.Conv2d(kept, 2 * KEY, 1, bias=False)
        added = nn.Conv2d(fine, 3 * 4, 3, padding=1)
        self.add = nn.Sequential(nn.SiLU(), added, nn.PixelShuffle(2))
        # A fresh network believes the nearest mouth: its details, and a mean that leans to it; around the mouth, the
        # frame itself.
        self.lean = nn.Parameter(torch.tensor([0.5, 1.5]))
        self.prefer_own = nn.Parameter(torch.tensor([2.0, 0.5]))
        nn.init.normal_(self.key.weight, std=0.02)
        for parameter in added.parameters():
            nn.init.zeros_(parameter)

    def encode(self, pictures: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Features of references before they are moved; they can be kept.

        Args:
            pictures: (N, 3, W, W) in -1..1, of the window around each one's own mouth.
            drawn: (N, 3, W, W) in -1..1, their landmark images.

        Returns:
            (N, C0, h, h) and (N, C1, h / 2, h / 2).
        """
        joined = torch.cat([pictures, drawn], dim=1).contiguous(memory_format=torch.channels_last)
        fine = self.encode_fine(self.unshuffle(joined))
        return self.keep_fine(fine), self.encode_coarse(fine)

    def forward(self, moved: Moved, guides: Tensor) -> Mixture:
        """Mix.

        Args:
            moved: the references.
            guides: (B, 8, W, W) in -1..1, see GUIDE_CHANNELS.
        """
        guide = self.guide_fine(self.unshuffle(guides.contiguous(memory_format=torch.channels_last)))
        guide_coarse = self.guide_coarse(guide)
        marks = _marks(moved)
        small = _each(nn.AvgPool2d(2), marks)
        fine = self.compare_fine([moved.fine, moved.pictures, marks], guide)
        coarse = self.compare_coarse([moved.coarse, small], guide_coarse)
        pooled = self.compare_fine.pooled(fine, moved.present), self.compare_coarse.pooled(coarse, moved.present)
        hidden = self._decoded(*pooled, guide, guide_coarse)
        mouth = nn.functional.avg_pool2d((guides[:, -1:] + 1) / 2, 2)
        return self._mixed(moved, self._logits(moved, fine, hidden, mouth), self.add(hidden))

    def _decoded(self, fine: Tensor, coarse: Tensor, guide: Tensor, guide_coarse: Tensor) -> Tensor:
        first = self.down_fine(torch.cat([fine, guide], dim=1))
        second = self.down_coarse(torch.cat([self.shrink_fine(first), coarse, guide_coarse], dim=1))
        hidden = self.shrink_coarse(second)
        for layer in self.deep:
            hidden = layer(hidden)
        hidden = self.up_coarse(torch.cat([enlarged(hidden), second], dim=1))
        decoded: Tensor = self.up_fine(torch.cat([enlarged(hidden), first], dim=1))
        return decoded

    def _logits(self, moved: Moved, fine: Tensor, hidden: Tensor, mouth: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, h, h) how far to believe each reference, coarse band and fine band; (B, 1, h, h) mouth in 0..1."""
        query = self.query(nn.functional.silu(hidden))[:, None]
        product = (query * _each(self.key, fine)).float()
        agreement = torch.stack([part.sum(dim=2) for part in product.chunk(2, dim=2)], dim=2)
        nearest = torch.where(moved.present, moved.distance, torch.inf).amin(dim=1, keepdim=True)
        behind = ((moved.distance - nearest) / DISTANCE_UNIT)[:, :, None, None, None]
        own, inside = moved.own.float()[:, :, None, None, None], mouth[:, None].float()
        lean, prefer_own = (part.float()[:, None, None] for part in (self.lean, self.prefer_own))
        logits = (
            SHARPNESS * agreement - behind * lean * (AROUND + (1 - AROUND) * inside) + own * prefer_own * (1 - inside)
        )
        logits = logits.masked_fill(~moved.present[:, :, None, None, None], -1e4)
        return logits[:, :, 0], FINE_SHARPNESS * logits[:, :, 1]

    def _mixed(self, moved: Moved, logits: tuple[Tensor, Tensor], added: Tensor) -> Mixture:
        coarse, fine = (part.softmax(dim=1) for part in logits)
        slow = ((coarse - fine)[:, :, None] * moved.pictures.float()).sum(dim=1)
        return Mixture(coarse, fine, slow, added.float())


class _Compared(nn.Module):
    """Each reference beside what is wanted, and what all of them tell together.

    Args:
        channels: of what comes out.
        wanted: channels of what is wanted.
        told: channels that are known of each reference.
    """

    def __init__(self, channels: int, wanted: int, told: int) -> None:
        super().__init__()
        self.reference, self.wanted = nn.Conv2d(told, channels, 1), nn.Conv2d(wanted, channels, 1)
        self.between = nn.Conv2d(channels, channels, 1)
        self.score, self.value = nn.Conv2d(channels, channels // GROUP, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, told: list[Tensor], wanted: Tensor) -> Tensor:
        """(B, K, C, s, s) of each reference, of (B, K, C', s, s) parts of what is known of it and (B, C, s, s)."""
        joined = torch.cat([part.to(wanted.dtype) for part in told], dim=2)
        hidden = nn.functional.silu(_each(self.reference, joined) + self.wanted(wanted)[:, None])
        return nn.functional.silu(_each(self.between, hidden))

    def pooled(self, compared: Tensor, present: Tensor) -> Tensor:
        """(B, C, s, s) mean over the references, weighted by a softmax for each group of channels and each place."""
        score = _each(self.score, compared).float().masked_fill(~present[:, :, None, None, None], -1e4)
        weight = score.softmax(dim=1).to(compared.dtype).repeat_interleave(GROUP, dim=2)
        # The mean of values is the value of the mean: all but the weights is computed once for all references.
        mean: Tensor = self.value((weight * compared).sum(dim=1))
        return mean


class _Attention(nn.Module):
    """Self-attention over all places, added to what came in."""

    def __init__(self, channels: int, head: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.joined = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self._heads = channels // head

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        batch, channels, height, width = hidden.shape
        split = self.joined(self.norm(hidden)).view(batch, 3, self._heads, -1, height * width).transpose(-1, -2)
        query, key, value = split.unbind(dim=1)
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = hidden + self.out(found.transpose(-1, -2).reshape(batch, channels, height, width))
        return result


def enlarged(pictures: Tensor) -> Tensor:
    """(N, C, h, w) pictures at twice their resolution."""
    return nn.functional.interpolate(pictures, scale_factor=2, mode="bilinear", align_corners=False)


def shown(mixture: Mixture, pixels: Tensor) -> Tensor:
    """(B, 3, W, W) what is seen, given the references' own (B, K, 3, W, W) moved pixels."""
    whole: Tensor = (enlarged(mixture.fine)[:, :, None] * pixels).sum(dim=1) + mixture.change()
    return whole


def _marks(moved: Moved) -> Tensor:
    """(B, K, MARKS, h, h)."""
    shape = moved.stretch.shape
    said = torch.stack([moved.distance / DISTANCE_UNIT / 4, moved.own.float()], dim=2)
    return torch.cat([moved.stretch / 3, said[..., None, None].expand(*shape[:2], -1, *shape[3:])], dim=2)


def _each(layer: nn.Module, pictures: Tensor) -> Tensor:
    """A layer of pictures on (B, K, C, H, W)."""
    found: Tensor = layer(pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    return found.view(*pictures.shape[:2], *found.shape[1:])
