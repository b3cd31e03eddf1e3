"""SyncNet: two networks that put a fifth of a second of lips and of sound close together where they belong together.

Chung and Zisserman, "Out of time: automated lip sync in the wild" (ACCV workshops 2016). Sizes and names are those of
the public weights, `syncnet_v2.model`.
"""

import io
import zipfile
from typing import cast

import torch
from torch import Tensor, nn

from dreamhead import storage
from dreamhead.errors import CheckpointError

FRAMES = 5
"""Pictures, 25 a second, in one window."""
STEPS = 20
"""Cepstra, 100 a second, in one window."""
CEPSTRA = 13
SIDE = 224
EMBEDDING = 1024


class SyncNet(nn.Module):
    """Windows of sound and of lips to embeddings; the smaller their distance, the better they fit."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_sound_layer(1, 64, 3, 1),
            nn.MaxPool2d(1, 1),
            *_sound_layer(64, 192, 3, 1),
            nn.MaxPool2d(3, (1, 2)),
            *_sound_layer(192, 384, 3, 1),
            *_sound_layer(384, 256, 3, 1),
            *_sound_layer(256, 256, 3, 1),
            nn.MaxPool2d(3, 2),
            *_sound_layer(256, 512, (5, 4), 0),
        )
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_lip_layer(3, 96, (5, 7, 7), 2, 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_lip_layer(96, 256, (1, 5, 5), 2, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_lip_layer(256, 256, (1, 3, 3), 1, 1),
            *_lip_layer(256, 256, (1, 3, 3), 1, 1),
            *_lip_layer(256, 256, (1, 3, 3), 1, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_lip_layer(256, 512, (1, 6, 6), 1, 0),
        )

    @torch.jit.export
    def forward_aud(self, cepstra: Tensor) -> Tensor:
        """(N, 1, 13, 20) mel-frequency cepstra to (N, 1024)."""
        embedding: Tensor = self.netfcaud(self.netcnnaud(cepstra).flatten(1))
        return embedding

    @torch.jit.export
    def forward_lip(self, pictures: Tensor) -> Tensor:
        """(N, 3, 5, 224, 224) blue, green and red from 0 to 255, to (N, 1024)."""
        embedding: Tensor = self.netfclip(self.netcnnlip(pictures).flatten(1))
        return embedding


def load(uri: str) -> SyncNet:
    """SyncNet in evaluation mode, from a state dict or a TorchScript file; `uri` may be remote.

    A TorchScript module must have `forward_aud` and `forward_lip` as SyncNet has them.

    Raises:
        CheckpointError: the file is something else.
        StorageError: it can't be read.
    """
    data = storage.read_bytes(uri)
    try:
        network = _scripted(data) if _is_scripted(data) else _from_state(data)
    except (RuntimeError, ValueError, KeyError, EOFError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{uri}: not SyncNet's weights (the public syncnet_v2.model, or TorchScript): {reason}"
        ) from error
    missing = [name for name in ("forward_aud", "forward_lip") if not hasattr(network, name)]
    if missing:
        raise CheckpointError(f"{uri}: the TorchScript module has no {', '.join(missing)}")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


def _is_scripted(data: bytes) -> bool:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return any("/code/" in name for name in archive.namelist())


def _scripted(data: bytes) -> SyncNet:
    return cast(SyncNet, torch.jit.load(io.BytesIO(data), map_location="cpu"))  # type: ignore[no-untyped-call]


def _from_state(data: bytes) -> SyncNet:
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle raises whatever a damaged file leads it to
        raise ValueError(f"not a file of tensors: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"holds a {type(state).__name__}, not a table of tensors")
    network = SyncNet()
    # The public weights are older than BatchNorm's count of batches, which evaluation doesn't use.
    counts = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(counts | state)
    return network


def _sound_layer(inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()]


def _lip_layer(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (0, padding, padding))
    return [convolution, nn.BatchNorm3d(outputs), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING))
