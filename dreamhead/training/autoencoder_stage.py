"""What training the autoencoder adds to the loop: random cuts of faces, and a loss on pixels and their edges."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.errors import InputError
from dreamhead.evaluation.metrics import weighted_psnr
from dreamhead.models.autoencoder import FaceAutoencoder
from dreamhead.training.augmentation import colour_change
from dreamhead.training.dataset import Clip, ClipInfo
from dreamhead.training.settings import AutoencoderStage
from dreamhead.training.task import Example, Figures, Judgement

EDGE_WEIGHT = 1.0
# Keeps the latents' scale near one, so that their statistics, fitted at the end, hardly move anything.
LATENT_WEIGHT = 1e-3
STATISTICS_CROPS = 128
FRAMES_JUDGED = 3
PICTURES_SHOWN = 8


class AutoencoderTask:
    """Examples and loss of the autoencoder; see `Task`."""

    progress = 0.0
    score = "psnr"

    def __init__(self, model: FaceAutoencoder, settings: AutoencoderStage) -> None:
        self.model = model
        self._augmentation = settings.augmentation

    def usable(self, clip: ClipInfo) -> bool:
        """Whether a clip has pictures."""
        return clip.has_pictures and clip.frames > 0

    def prepare(self, clips: Sequence[ClipInfo]) -> None:
        """Clips are read as they are drawn."""

    def state(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """There is nothing to take."""

    def begin(self, clips: Iterable[Clip]) -> dict[str, float]:
        """Nothing is fitted beforehand."""
        return {}

    def example(self, clip: Clip, generator: np.random.Generator) -> Example:
        """`pixels` (window, window, 3) uint8."""
        picture = clip.crop(int(generator.integers(len(clip.crops))))
        if generator.random() < self._augmentation.flip:
            picture = picture[:, ::-1]
        if self._augmentation.colour:
            picture = colour_change(generator)(picture)
        limit = picture.shape[0] - self._augmentation.window
        # The mouth lies below the middle: half of the cuts hold it.
        top = int(generator.integers(limit // 2 if generator.random() < 0.5 else 0, limit + 1))
        left = int(generator.integers(0, limit + 1))
        cut = picture[top : top + self._augmentation.window, left : left + self._augmentation.window]
        return {"pixels": np.ascontiguousarray(cut)}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Figures]:
        """Errors of pixels and edges, the size of the latents, and their sum."""
        pixels = to_pixels(batch["pixels"])
        latents = self.model.encode(pixels)
        decoded = self.model.decode(latents).float()
        parts = {
            "pixel": (decoded - pixels).abs().mean() + 4 * (decoded - pixels).square().mean(),
            "edge": EDGE_WEIGHT * edge_error(decoded, pixels),
            "latent": LATENT_WEIGHT * latents.float().square().mean(),
        }
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def finish(self, clips: Iterable[Clip]) -> None:
        """Set the latents' mean and deviation from whole crops of all clips."""
        generator = np.random.default_rng(0)
        pictures = [clip.crop(int(frame)) for clip in clips for frame in generator.integers(len(clip.crops), size=4)]
        if not pictures:
            raise InputError("no training clip has pictures to fit the latents' mean and deviation to")
        chosen = generator.permutation(len(pictures))[:STATISTICS_CROPS]
        self.model.latent_mean.zero_()
        self.model.latent_std.fill_(1)
        latents = torch.cat([self.model.encode(self._on_device([pictures[number]])) for number in chosen])
        self.model.latent_mean.copy_(latents.mean(dim=(0, 2, 3))[:, None, None])
        self.model.latent_std.copy_(latents.std(dim=(0, 2, 3))[:, None, None])

    @torch.no_grad()
    def validate(self, clips: Sequence[Clip]) -> Judgement:
        """Peak signal-to-noise ratio of some frames of each clip, and pictures beside what became of them."""
        scores, rows = [], []
        for clip in clips:
            for frame in np.linspace(0, len(clip.crops) - 1, FRAMES_JUDGED).astype(int).tolist():
                picture = clip.crop(frame)
                again = to_pictures(self.model.decode(self.model.encode(self._on_device([picture]))))[0]
                scores.append(weighted_psnr(again, picture, np.ones(picture.shape[:2])))
            rows.append(np.concatenate([picture, again], axis=1))
        pictures = {"pictures and what became of them": np.concatenate(rows[:PICTURES_SHOWN])}
        return Judgement(figures={"psnr": float(np.mean(scores)), "worst_psnr": float(min(scores))}, pictures=pictures)

    def _on_device(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        return to_pixels(torch.from_numpy(np.stack(pictures)).to(self.model.device))


def to_pixels(pictures: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in -1..1, channels last in memory."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def to_pictures(pixels: Tensor) -> NDArray[np.uint8]:
    """(B, 3, H, W) in -1..1 -> (B, H, W, 3) uint8."""
    scaled = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def edge_error(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of (B, C, H, W) pictures' gradients: blur costs here what it hides from the pixels."""
    difference = first - second
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
