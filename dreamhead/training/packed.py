"""A data set packed to travel: what `packing` writes, read back as clips without PyAV.

A packed folder holds `packed.json`, which is written last; `<split>.parquet` with a clip a row; and
`pictures/<split>-NNN.mp4`, where clips' pictures follow one another, each clip beginning with a key frame.
"""

import json
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from dreamhead import storage
from dreamhead.errors import InputError, NotFoundError
from dreamhead.training.picture_cache import Part, open_pictures

INDEX = "packed.json"
FORM = 1
"""Number of this form; another one is refused."""
POINT_STEPS = 16
"""Landmarks are rounded to so many parts of a pixel of the crop."""

PACKED_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("speaker", pa.string()),
        ("frames", pa.int64()),
        ("frame_rate", pa.float64()),
        ("crop_size", pa.int64()),
        ("spoken", pa.bool_()),
        ("has_pictures", pa.bool_()),
        ("speech_encoder", pa.string()),
        ("feature_size", pa.int64()),
        ("feature_rate", pa.float64()),
        ("articulation", pa.float64()),
        ("neutral", pa.binary()),
        ("points", pa.binary()),
        ("transforms", pa.binary()),
        ("speeds", pa.list_(pa.float64())),
        ("features", pa.list_(pa.binary())),
        ("part", pa.string()),
        ("first", pa.int64()),
    ]
)
"""One row a clip of T frames, as in `dataset.CLIP_SCHEMA` but for:

`points`, XZ of int16 (T, 478, 3): landmarks in sixteenths of a pixel of the crop from its middle, differences over
time. `transforms`, XZ of float32 (T, 2, 3); `neutral`, float32 (478, 3). `features`, XZ of float16 (F, `feature_size`)
for each of `speeds`. Before XZ the first bytes of all numbers stand together, then the second ones, and so on. `part`
and `first` say where the T pictures begin; in a clip without pictures `part` is empty.
"""


class PackedIndex(BaseModel):
    """What packed.json says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: int
    picture_step: int
    """Pictures are every so many frames of the source's."""
    splits: list[str]
    """Each is a file of clips."""
    parts: list[Part]
    """All files of pictures."""


class Packed(NamedTuple):
    """A clip's arrays."""

    landmarks: NDArray[np.float32]
    """(T, 478, 3) pixels of the frame."""
    transforms: NDArray[np.float32]
    """(T, 2, 3)."""
    pictures: NDArray[np.uint8]
    """(T, S, S, 3) RGB, read-only; (0, S, S, 3) for a clip without pictures."""
    features: list[NDArray[np.float32]]
    """(F, C) each."""


def read_index(data_uri: str) -> PackedIndex | None:
    """What a data set's packed.json says; None where there is none."""
    text = _index_text(data_uri)
    return None if text is None else _parsed(storage.join(data_uri, INDEX), text)


def _index_text(data_uri: str) -> bytes | None:
    try:
        return storage.read_bytes(storage.join(data_uri, INDEX))
    except NotFoundError:
        return None


def _parsed(uri: str, text: bytes) -> PackedIndex:
    try:
        found = PackedIndex.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise InputError(f"{uri}: not the index of a packed data set: {str(error).splitlines()[0]}") from error
    if found.form != FORM:
        raise InputError(f"{uri}: form {found.form}; this version reads form {FORM}: pack the data again")
    return found


def split_uri(data_uri: str, split: str) -> str:
    """Where a split's clips lie."""
    return storage.join(data_uri, f"{split}.parquet")


def read_rows(data_uri: str, split: str, columns: list[str]) -> list[dict[str, Any]]:
    """Some columns of all clips of a split."""
    index = read_index(data_uri)
    uri = split_uri(data_uri, split)
    if index is None or split not in index.splits:
        raise InputError(f"{uri}: no such split; {INDEX} names {sorted(index.splits) if index else []}")
    with _opened(uri) as file:
        if not file.schema_arrow.equals(PACKED_SCHEMA):
            raise InputError(f"{uri}: its columns are {file.schema_arrow.names}, expected {PACKED_SCHEMA.names}")
        return list(file.read(columns=columns).to_pylist())


def read_row(uri: str, row: int) -> dict[str, Any]:
    """One clip of a split's file."""
    with _opened(uri) as file:
        return dict(file.read_row_group(row).to_pylist()[0])


def unpack(uri: str, row: dict[str, Any], where: str) -> Packed:
    """A row's arrays; `uri` is that of the split's file, `where` names the clip in errors."""
    frames, size = row["frames"], row["crop_size"]
    transforms = _unpacked(row["transforms"], np.dtype(np.float32), (frames, 2, 3), f"{where}: transforms")
    points = _unpacked(row["points"], np.dtype(np.int16), (frames, 478, 3), f"{where}: points")
    half, shape = np.dtype(np.float16), (-1, row["feature_size"])
    features = [_unpacked(data, half, shape, f"{where}: features") for data in row["features"]]
    return Packed(
        landmarks=from_points(points, transforms, size),
        transforms=transforms,
        pictures=_pictures(uri, row, where) if row["has_pictures"] else np.zeros((0, size, size, 3), np.uint8),
        features=[part.astype(np.float32) for part in features],
    )


def pack_array(values: NDArray[Any]) -> bytes:
    """XZ of an array's bytes, all first bytes of its numbers before all second ones, and so on."""
    planes = np.ascontiguousarray(values).view(np.uint8).reshape(-1, values.itemsize).T
    return lzma.compress(planes.tobytes(), preset=9 | lzma.PRESET_EXTREME)


def to_points(landmarks: NDArray[np.float32], transforms: NDArray[np.float32], size: int) -> NDArray[np.int16]:
    """(T, 478, 3) landmarks in pixels of the frame to `points` as PACKED_SCHEMA has them."""
    linear, offset, scale = _crop_parts(transforms, size)
    moved = landmarks.astype(np.float64)
    moved[..., :2] = np.einsum("tij,tkj->tki", linear, moved[..., :2]) + offset
    moved[..., 2] *= scale
    rounded = np.rint(moved * POINT_STEPS)
    if np.abs(rounded).max(initial=0) >= 2**15:
        raise InputError(f"landmarks lie {np.abs(moved).max():.0f} pixels from the crop's middle; allowed: below 2048")
    # Differences that leave the range of int16 come round again, as the sums do.
    return np.diff(rounded.astype(np.int64), axis=0, prepend=0).astype(np.int16)


def from_points(points: NDArray[np.int16], transforms: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The inverse of `to_points`, up to the rounding."""
    linear, offset, scale = _crop_parts(transforms, size)
    moved = np.cumsum(points, axis=0, dtype=np.int16).astype(np.float64) / POINT_STEPS
    moved[..., :2] = np.einsum("tij,tkj->tki", np.linalg.inv(linear), moved[..., :2] - offset)
    moved[..., 2] /= scale
    return moved.astype(np.float32)


def _crop_parts(
    transforms: NDArray[np.float32], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rotation with scale (T, 2, 2), offset from the crop's middle (T, 1, 2), scale (T, 1) of x, y and z."""
    exact = transforms.astype(np.float64)
    return exact[:, :, :2], exact[:, None, :, 2] - size / 2, np.hypot(exact[:, 0, 0], exact[:, 1, 0])[:, None]


def _unpacked(data: bytes, kind: np.dtype[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    try:
        planes = np.frombuffer(lzma.decompress(data), np.uint8).reshape(kind.itemsize, -1)
        return np.ascontiguousarray(planes.T).view(kind).reshape(shape)
    except (lzma.LZMAError, ValueError) as error:
        raise InputError(f"{where}: {len(data)} bytes aren't {kind} of shape {shape}: {error}") from error


def _pictures(uri: str, row: dict[str, Any], where: str) -> NDArray[np.uint8]:
    folder = uri.rpartition("/")[0]
    part = _opened_pictures(folder, _index_text(folder) or b"").get(row["part"])
    first, last = row["first"], row["first"] + row["frames"]
    if part is None or last > len(part):
        raise InputError(f"{where}: pictures {first} to {last} of {row['part']}; {INDEX} knows {len(part or ())} there")
    return part[first:last]


@lru_cache(maxsize=8)
def _opened_pictures(folder: str, index: bytes) -> dict[str, NDArray[np.uint8]]:
    # What was packed anew has another index.
    return open_pictures(folder, _parsed(storage.join(folder, INDEX), index).parts)


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    try:
        with storage.open_read(uri) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{uri}: not readable packed clips: {error}") from error
