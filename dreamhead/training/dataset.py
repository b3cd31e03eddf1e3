"""Prepared clips: the parquet schema of a shard, and reading it back. Needs neither Ray, PyAV nor MediaPipe."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dreamhead.errors import InputError
from dreamhead.faces import geometry

CLIP_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("speaker", pa.string()),
        ("frame_rate", pa.float64()),
        ("crop_size", pa.int64()),
        ("landmarks", pa.binary()),
        ("transforms", pa.binary()),
        ("crops", pa.list_(pa.binary())),
        ("speech_encoder", pa.string()),
        ("features", pa.list_(pa.binary())),
        ("feature_size", pa.int64()),
        ("feature_rate", pa.float64()),
        ("speech_lag_s", pa.float64()),
    ]
)
"""One row a clip of one face without gaps. `landmarks` float32 (T, 478, 3) pixels of the frame, `transforms` float32
(T, 2, 3) to the crop, `crops` T JPEGs (S, S, 3), `features` float16 (F, C) of the clip's own speech from its first
frame on, once for each of several places in the encoder's window, since encoders put their position into what they
say; none without speech. `speech_lag_s` is by how much the sound comes late in the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """One row of a shard, decoded but for its pictures. T frames, F speech features."""

    clip_id: str
    speaker: str
    frame_rate: float
    landmarks: NDArray[np.float32]
    """(T, 478, 3) pixels of the frame."""
    transforms: NDArray[np.float32]
    """(T, 2, 3) from pixels of the frame to pixels of the crop."""
    crops: list[bytes]
    """T JPEG pictures of the aligned crop."""
    features: NDArray[np.float32]
    """(V, F, C) of the speech, encoded at V places of the encoder's window; V is 0 without speech."""
    feature_rate: float
    speech_lag_s: float

    def crop(self, frame: int) -> NDArray[np.uint8]:
        """(S, S, 3) RGB aligned crop of one frame."""
        data = np.frombuffer(self.crops[frame], np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
        if picture is None:
            raise InputError(f"clip {self.clip_id}: crop {frame} is not a readable picture")
        return np.asarray(picture, np.uint8)

    def canonical(self) -> NDArray[np.float64]:
        """(T, 478, 3) landmarks in the canonical pose."""
        return np.asarray(geometry.fit_pose(self.landmarks).to_canonical(self.landmarks), np.float64)


def write_clips(path: Path, clips: list[dict[str, object]]) -> None:
    """Write rows of CLIP_SCHEMA as one shard."""
    pq.write_table(pa.Table.from_pylist(clips, schema=CLIP_SCHEMA), path, row_group_size=1)


def read_clips(folder: Path) -> list[Clip]:
    """Every clip of every shard in a folder, in the order of their names; raises InputError naming what is amiss."""
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise InputError(f"{folder}: no *.parquet shards")
    return [clip for shard in shards for clip in _read_shard(shard)]


def _read_shard(path: Path) -> list[Clip]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a readable shard: {error}") from error
    if not table.schema.equals(CLIP_SCHEMA):
        missing = sorted(set(CLIP_SCHEMA.names) - set(table.schema.names))
        raise InputError(f"{path}: not a shard of clips; missing or of another type: {missing or table.schema.names}")
    return [_clip(row) for row in table.to_pylist()]


def _clip(row: dict[str, object]) -> Clip:
    crops = row["crops"]
    assert isinstance(crops, list)
    return Clip(
        clip_id=str(row["clip_id"]),
        speaker=str(row["speaker"]),
        frame_rate=float(str(row["frame_rate"])),
        landmarks=_array(row["landmarks"], np.float32).reshape(-1, 478, 3),
        transforms=_array(row["transforms"], np.float32).reshape(-1, 2, 3),
        crops=crops,
        features=_features(row["features"], int(str(row["feature_size"]))),
        feature_rate=float(str(row["feature_rate"])),
        speech_lag_s=float(str(row["speech_lag_s"])),
    )


def _features(variants: object, size: int) -> NDArray[np.float32]:
    assert isinstance(variants, list)
    if not variants:
        return np.zeros((0, 0, size), np.float32)
    return np.stack([_array(variant, np.float16).reshape(-1, size) for variant in variants])


def _array(value: object, kind: type[np.generic]) -> NDArray[np.float32]:
    assert isinstance(value, bytes)
    return np.frombuffer(value, kind).astype(np.float32)
