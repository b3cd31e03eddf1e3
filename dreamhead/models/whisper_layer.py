"""A middle layer of Whisper's encoder, computed by torch from the file that CTranslate2 reads.

CTranslate2 gives the last layer only, which is made for writing words. What the lips do is read better two layers
earlier (docs/training_log.md).
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dreamhead.errors import ConfigError, WeightsUnavailableError

Weights = dict[str, Tensor]

FILE_VERSION = 6
"""The newest layout of CTranslate2's files that is read here; since 4, a tensor's type is a number."""
OLDEST_VERSION = 4
KINDS = {0: np.float32, 2: np.int16, 3: np.int32, 4: np.float16}
"""CTranslate2's numbers of types; a network in int8 has scales, which nothing here knows."""
ENCODER = "encoder/"


class WhisperLayers:
    """The encoder of a Whisper network up to one of its layers.

    Args:
        path: `model.bin`, as CTranslate2 writes it, in float32 or float16.
        layers: how many layers are computed. The answer is the last one's, normalised as the next layer hears it, or
            the decoder where there is none: a few of the raw numbers are ten times as large as all others.

    Raises:
        WeightsUnavailableError: the file isn't of that kind.
        ConfigError: the network has fewer layers.
    """

    def __init__(self, path: Path, layers: int) -> None:
        tensors = read_tensors(path, ENCODER)
        there = sum(name.endswith("ffn/linear_1/bias") for name in tensors)
        if not 1 <= layers <= there:
            raise ConfigError(f"{path}: layers must be 1 to {there}, got {layers}")
        self._heads = int(tensors["num_heads"])
        self._layers = layers
        self._listener = "" if layers == there else f"layer_{layers}/self_attention/"
        unused = tuple(f"layer_{number}/" for number in range(layers, there))
        self._weights: Weights = {
            name: torch.from_numpy(value.astype(np.float32))
            for name, value in tensors.items()
            if not name.startswith(unused) or name.startswith(f"{self._listener}layer_norm/")
        }
        self.size = int(self._weights["conv2/bias"].shape[0])
        """C, features."""

    @torch.inference_mode()
    def __call__(self, log_mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """(bands, 2 F) logarithmic mel spectrogram at 100 Hz to (F, C) features at 50 Hz."""
        weights = self._weights
        hidden = torch.from_numpy(log_mel)[None]
        for name, stride in (("conv1", 1), ("conv2", 2)):
            weight, bias = weights[f"{name}/weight"], weights[f"{name}/bias"]
            hidden = functional.gelu(functional.conv1d(hidden, weight, bias, stride, padding=1))
        hidden = hidden.transpose(1, 2)
        hidden = hidden + weights["position_encodings/encodings"][: hidden.shape[1]]
        for number in range(self._layers):
            hidden = hidden + self._attention(hidden, f"layer_{number}/self_attention/")
            hidden = hidden + self._feed_forward(hidden, f"layer_{number}/ffn/")
        features: NDArray[np.float32] = self._normalised(hidden, self._listener)[0].numpy()
        return features

    def _attention(self, hidden: Tensor, where: str) -> Tensor:
        """(1, F, C) what each place takes from all others."""
        joined = self._linear(self._normalised(hidden, where), f"{where}linear_0/")
        query, key, value = (self._by_head(part) for part in joined.chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self._linear(mixed.transpose(1, 2).flatten(2), f"{where}linear_1/")

    def _by_head(self, hidden: Tensor) -> Tensor:
        """(1, F, C) -> (1, heads, F, C / heads)."""
        return hidden.view(*hidden.shape[:2], self._heads, -1).transpose(1, 2)

    def _feed_forward(self, hidden: Tensor, where: str) -> Tensor:
        wide = self._linear(self._normalised(hidden, where), f"{where}linear_0/")
        return self._linear(functional.gelu(wide), f"{where}linear_1/")

    def _normalised(self, hidden: Tensor, where: str) -> Tensor:
        scale, shift = self._weights[f"{where}layer_norm/gamma"], self._weights[f"{where}layer_norm/beta"]
        return functional.layer_norm(hidden, scale.shape, scale, shift)

    def _linear(self, hidden: Tensor, where: str) -> Tensor:
        return functional.linear(hidden, self._weights[f"{where}weight"], self._weights[f"{where}bias"])


def read_tensors(path: Path, prefix: str) -> dict[str, NDArray[Any]]:
    """The tensors whose names begin with `prefix`, by the rest of their names.

    Raises WeightsUnavailableError where the file can't be read, or isn't one of CTranslate2.
    """
    try:
        with path.open("rb") as file:
            return _read(_Reader(file.read()), prefix)
    except (OSError, struct.error, ValueError, KeyError) as error:
        raise WeightsUnavailableError(
            f"{path}: not a model of CTranslate2 with floating-point weights: {error}"
        ) from error


def _read(reader: "_Reader", prefix: str) -> dict[str, NDArray[Any]]:
    version = reader.number("I")
    if not OLDEST_VERSION <= version <= FILE_VERSION:
        raise ValueError(f"version {version}; allowed: {OLDEST_VERSION} to {FILE_VERSION}")
    reader.text()
    reader.number("I")
    found = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind, size = reader.number("B"), reader.number("I")
        data = reader.bytes(size)
        if name.startswith(prefix):
            found[name.removeprefix(prefix)] = np.frombuffer(data, KINDS[kind]).reshape(shape)
    return found


class _Reader:
    """Numbers and texts of a file, one after the other, little-endian."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._place = 0

    def bytes(self, count: int) -> memoryview:
        """The next `count` bytes."""
        part = self._data[self._place : self._place + count]
        if len(part) < count:
            raise ValueError(f"ends after {len(self._data)} bytes, {self._place + count} expected")
        self._place += count
        return part

    def number(self, kind: str) -> int:
        """The next number; `kind` is a letter of `struct`."""
        (value,) = struct.unpack(f"<{kind}", self.bytes(struct.calcsize(f"<{kind}")))
        return int(value)

    def text(self) -> str:
        """The next text: its length, then its letters and a zero."""
        return bytes(self.bytes(self.number("H"))).rstrip(b"\0").decode()
