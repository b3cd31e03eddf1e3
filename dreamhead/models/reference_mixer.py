"""Which of several moved pictures to believe at each pixel, and what none of them shows.

An encoder looks once at each reference picture and its landmark image; what it finds is moved along the face's mesh
as the picture is. A small U-Net then compares the moved references with the wanted landmarks and says, for each pixel,
how much of each reference's coarse and fine band to take, and what to add. It works at half of the window's
resolution; weights are enlarged, details of the references never are.

Shapes: B examples, K references of each, W side of the mouth's window in pixels (a multiple of 8), h = W / 2.
"""

from typing import NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from dreamhead.models.autoencoder import ResidualBlock
from dreamhead.models.warping import blurred

BAND_SIGMA = 1.5
"""Pixels of the crop: what a Gaussian of this width leaves is the coarse band, the rest is the fine one."""
GUIDE_CHANNELS = 8
"""Landmark image of the target (3), the frame around the mask (3), mask (1), inside of the lips (1)."""
MARKS = 3
"""Said of each reference: stretch, mouth's distance, whether it is the frame itself."""
SHARPNESS = 4.0
"""Factor on the logits: choices are learnt faster."""
AROUND = 0.2
"""How much less the distance between mouths counts around the mouth than inside."""
DISTANCE_UNIT = 0.03
"""Distances of mouths, in eye distances a point, are divided by this."""


class Moved(NamedTuple):
    """The references of B examples, moved to the target."""

    pictures: Tensor
    """(B, K, 3, W, W) in -1..1."""
    fine: Tensor
    """(B, K, C0, h, h) features of `encode`."""
    coarse: Tensor
    """(B, K, C1, h / 2, h / 2) features of `encode`."""
    stretch: Tensor
    """(B, K, 1, W, W) log2, see `warping.stretch`."""
    distance: Tensor
    """(B, K) between the reference's mouth and the wanted one, eye distances a point."""
    own: Tensor
    """(B, K) 1 for the frame itself, whose mouth says something else."""
    present: Tensor
    """(B, K) false where there is no such reference."""


class Mixture(NamedTuple):
    """What is made of the references."""

    picture: Tensor
    """(B, 3, W, W), about -1..1."""
    mixed: Tensor
    """(B, 3, W, W) the references alone, nothing added."""
    coarse: Tensor
    """(B, K, W, W) share of each reference's coarse band; they sum to one."""
    fine: Tensor
    """(B, K, W, W) the same of the fine band."""
    added: Tensor
    """(B, 3, W, W) what no reference shows."""


class ReferenceMixer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Mixes moved references; see the module.

    Args:
        window: W.
        channels: at 1/2, 1/4 and 1/8 of the window's resolution; multiples of 16.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers has no types
    def __init__(self, window: int = 160, channels: tuple[int, int, int] = (48, 96, 128)) -> None:
        super().__init__()
        fine, coarse, deep = channels
        self.unshuffle = nn.PixelUnshuffle(2)
        self.encode_fine = nn.Sequential(nn.Conv2d(6 * 4, fine, 3, padding=1), ResidualBlock(fine))
        self.encode_coarse = nn.Sequential(nn.Conv2d(fine, coarse, 3, stride=2, padding=1), ResidualBlock(coarse))
        self.guide_fine = nn.Sequential(nn.Conv2d(GUIDE_CHANNELS * 4, fine, 3, padding=1), ResidualBlock(fine))
        self.guide_coarse = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.compare_fine = nn.Sequential(
            nn.Conv2d(2 * fine + 3 * 4 + MARKS, fine, 1), nn.SiLU(), nn.Conv2d(fine, fine, 3, padding=1), nn.SiLU()
        )
        self.compare_coarse = nn.Sequential(nn.Conv2d(2 * coarse + MARKS, coarse, 1), nn.SiLU())
        self.choose_fine = nn.Conv2d(fine, 2 * fine, 1)
        self.choose_coarse = nn.Conv2d(coarse, 2 * coarse, 1)
        self.down_fine = nn.Sequential(nn.Conv2d(2 * fine, fine, 3, padding=1), ResidualBlock(fine))
        self.down_coarse = nn.Sequential(nn.Conv2d(fine + 2 * coarse, coarse, 3, padding=1), ResidualBlock(coarse))
        self.shrink_fine = nn.Conv2d(fine, fine, 3, stride=2, padding=1)
        self.shrink_coarse = nn.Conv2d(coarse, deep, 3, stride=2, padding=1)
        self.deep = nn.ModuleList([ResidualBlock(deep), _Attention(deep), ResidualBlock(deep)])
        self.up_coarse = nn.Sequential(nn.Conv2d(deep + coarse, coarse, 3, padding=1), ResidualBlock(coarse))
        self.up_fine = nn.Sequential(nn.Conv2d(coarse + fine, fine, 3, padding=1), ResidualBlock(fine))
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.weigh_reference, self.weigh_whole = nn.Conv2d(fine, fine, 1), nn.Conv2d(fine, fine, 1)
        self.weigh = nn.Conv2d(fine, 2, 1, bias=False)
        added = nn.Conv2d(fine, 3 * 4, 3, padding=1)
        self.add = nn.Sequential(nn.SiLU(), added, nn.PixelShuffle(2))
        # A fresh network believes the nearest mouth: its details, and a mean that leans to it; around the mouth, the
        # frame itself.
        self.lean = nn.Parameter(torch.tensor([0.5, 6.0]))
        self.prefer_own = nn.Parameter(torch.tensor([2.0, 2.0]))
        nn.init.normal_(self.weigh.weight, std=0.02)
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
        fine = self.encode_fine(self.unshuffle(torch.cat([pictures, drawn], dim=1)))
        return fine, self.encode_coarse(fine)

    def forward(self, moved: Moved, guides: Tensor) -> Mixture:
        """Mix.

        Args:
            moved: the references.
            guides: (B, 8, W, W) in -1..1, see GUIDE_CHANNELS.
        """
        guide = self.guide_fine(self.unshuffle(guides))
        guide_coarse = self.guide_coarse(guide)
        marks = _marks(moved)
        fine = self._compared(self.compare_fine, [moved.fine, _flat(self.unshuffle, moved.pictures)], guide, marks)
        coarse = self._compared(self.compare_coarse, [moved.coarse], guide_coarse, marks)
        hidden = self._decoded(
            _chosen(self.choose_fine, fine, moved.present),
            _chosen(self.choose_coarse, coarse, moved.present),
            guide,
            guide_coarse,
        )
        mouth = nn.functional.avg_pool2d((guides[:, -1:] + 1) / 2, 2)
        return self._mixed(moved, self._logits(moved, fine, hidden, mouth), self.add(hidden))

    def _compared(self, layers: nn.Module, features: list[Tensor], guide: Tensor, marks: Tensor) -> Tensor:
        """(B, K, C, s, s) each reference beside what is wanted."""
        count, side = marks.shape[1], guide.shape[-1]
        beside = guide[:, None].expand(-1, count, -1, -1, -1)
        joined = torch.cat([*features, beside, _shrunk(marks, side).to(guide.dtype)], dim=2)
        return _flat(layers, joined)

    def _decoded(self, fine: Tensor, coarse: Tensor, guide: Tensor, guide_coarse: Tensor) -> Tensor:
        first = self.down_fine(torch.cat([fine, guide], dim=1))
        second = self.down_coarse(torch.cat([self.shrink_fine(first), coarse, guide_coarse], dim=1))
        hidden = self.shrink_coarse(second)
        for layer in self.deep:
            hidden = layer(hidden)
        hidden = self.up_coarse(torch.cat([self.enlarge(hidden), second], dim=1))
        decoded: Tensor = self.up_fine(torch.cat([self.enlarge(hidden), first], dim=1))
        return decoded

    def _logits(self, moved: Moved, fine: Tensor, hidden: Tensor, mouth: Tensor) -> Tensor:
        """(B, K, 2, h, h) how far to believe each reference, coarse band and fine band; (B, 1, h, h) mouth in 0..1."""
        joined = _flat(self.weigh_reference, fine) + self.weigh_whole(hidden)[:, None]
        found = SHARPNESS * _flat(self.weigh, nn.functional.silu(joined)).float()
        nearest = torch.where(moved.present, moved.distance, torch.inf).amin(dim=1, keepdim=True)
        behind = ((moved.distance - nearest) / DISTANCE_UNIT)[:, :, None, None, None]
        own, inside = moved.own.float()[:, :, None, None, None], mouth[:, None].float()
        lean, prefer_own = (part.float()[:, None, None] for part in (self.lean, self.prefer_own))
        logits: Tensor = found - behind * lean * (AROUND + (1 - AROUND) * inside) + own * prefer_own * (1 - inside)
        return logits

    def _mixed(self, moved: Moved, logits: Tensor, added: Tensor) -> Mixture:
        logits = _flat(self.enlarge, logits)
        logits = logits.masked_fill(~moved.present[:, :, None, None, None], -1e4)
        coarse, fine = logits.softmax(dim=1).unbind(dim=2)
        pictures = moved.pictures.float()
        smooth = blurred(pictures.flatten(0, 1), BAND_SIGMA).view_as(pictures)
        mixed = (coarse[:, :, None] * smooth + fine[:, :, None] * (pictures - smooth)).sum(dim=1)
        return Mixture(mixed + added.float(), mixed, coarse, fine, added.float())


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


def _marks(moved: Moved) -> Tensor:
    """(B, K, MARKS, W, W)."""
    shape = moved.stretch.shape
    said = torch.stack([moved.distance / DISTANCE_UNIT / 4, moved.own.float()], dim=2)
    return torch.cat([moved.stretch / 3, said[..., None, None].expand(*shape[:2], -1, *shape[3:])], dim=2)


def _shrunk(marks: Tensor, side: int) -> Tensor:
    factor = marks.shape[-1] // side
    small = nn.functional.avg_pool2d(marks.flatten(0, 1), factor)
    return small.view(*marks.shape[:3], side, side)


def _flat(layer: nn.Module, pictures: Tensor) -> Tensor:
    """A layer of pictures on (B, K, C, H, W)."""
    flat = pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    found: Tensor = layer(flat)
    return found.reshape(*pictures.shape[:2], *found.shape[1:])


def _chosen(layer: nn.Module, compared: Tensor, present: Tensor) -> Tensor:
    """(B, C, s, s) mean over the references, weighted by a softmax for each channel and place."""
    score, value = _flat(layer, compared).chunk(2, dim=2)
    score = score.float().masked_fill(~present[:, :, None, None, None], -1e4)
    mean: Tensor = (score.softmax(dim=1).to(value.dtype) * value).sum(dim=1)
    return mean
