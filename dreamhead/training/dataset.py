"""Prepared clips: the parquet schema of a shard, and reading it, or its packed form, back.

Needs neither Ray, PyAV nor MediaPipe.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.errors import InputError
from dreamhead.faces import geometry
from dreamhead.training import packed

SPLITS = ("train", "validation")
"""Folders of a data set; a speaker is in one of them only."""

VARIANT = pa.struct([("speed", pa.float64()), ("change", pa.string()), ("data", pa.binary())])

CLIP_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("speaker", pa.string()),
        ("source_uri", pa.string()),
        ("start_s", pa.float64()),
        ("frames", pa.int64()),
        ("frame_rate", pa.float64()),
        ("crop_size", pa.int64()),
        ("landmarks", pa.binary()),
        ("transforms", pa.binary()),
        ("neutral", pa.binary()),
        ("articulation", pa.float64()),
        ("spoken", pa.bool_()),
        ("crops", pa.list_(pa.binary())),
        ("speech", pa.binary()),
        ("speech_lag_s", pa.float64()),
        ("speech_encoder", pa.string()),
        ("features", pa.list_(VARIANT)),
        ("feature_size", pa.int64()),
        ("feature_rate", pa.float64()),
    ]
)
"""One row a clip of one face without gaps, T frames from `start_s` of the source on.

`landmarks` float32 (T, 478, 3) pixels of the frame, `transforms` float32 (T, 2, 3) from the frame to the crop, `crops`
T JPEGs (S, S, 3) with S = `crop_size`. `neutral` float32 (478, 3) is the speaker's resting face in canonical units, and
`articulation` how wide the mouth opens (`geometry.articulation`, NaN when unknown), both over the clip's whole shot.
`spoken` says whether the sound is this face's speech; where it isn't, `speech` and `features` are empty. `speech`,
int16 mono at 16 kHz, and the features begin with the first frame, moved already by `speech_lag_s`, the seconds by which
the sound comes late in the source.
`features` holds the speech encoded several times, each float16 (F, `feature_size`) at `feature_rate` Hz: in other
places of the encoder's window, since encoders put their position into what they say, and changed as `change` says.
Speech played `speed` times as fast has T / `speed` frames of motion.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """A clip's speech, changed and encoded."""

    speed: float
    """How many times as fast it is as the clip's motion."""
    features: NDArray[np.float32]
    """(F, C) from the clip's first frame on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """One row of a shard, decoded but for its pictures. T frames, C speech features."""

    clip_id: str
    speaker: str
    frame_rate: float
    crop_size: int
    landmarks: NDArray[np.float32]
    """(T, 478, 3) pixels of the frame."""
    transforms: NDArray[np.float32]
    """(T, 2, 3) from pixels of the frame to pixels of the crop."""
    neutral: NDArray[np.float32]
    """(478, 3) the speaker's resting face, canonical units."""
    articulation: float
    """How wide the speaker opens the mouth, canonical units; NaN when unknown. See `geometry.articulation`."""
    crops: Sequence[bytes] | NDArray[np.uint8]
    """T pictures of the aligned crop: JPEGs, or RGB (T, S, S, 3) that nobody may change. None when packed without."""
    variants: Sequence[Variant]
    """The speech, encoded; the first is unchanged. None without speech."""
    feature_rate: float

    def crop(self, frame: int) -> NDArray[np.uint8]:
        """(S, S, 3) RGB aligned crop of one frame."""
        stored = self.crops[frame]
        if not isinstance(stored, bytes):
            return np.asarray(stored, np.uint8)
        data = np.frombuffer(stored, np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
        if picture is None:
            raise InputError(f"clip {self.clip_id}: crop {frame} is not a readable picture")
        return np.asarray(picture, np.uint8)

    def canonical(self) -> NDArray[np.float64]:
        """(T, 478, 3) landmarks in the canonical pose."""
        return np.asarray(geometry.fit_pose(self.landmarks).to_canonical(self.landmarks), np.float64)


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What can be known of a clip without reading it."""

    shard_uri: str
    row: int
    clip_id: str
    speaker: str
    frames: int
    frame_rate: float
    crop_size: int
    spoken: bool
    speech_encoder: str
    feature_size: int
    has_pictures: bool = True
    is_packed: bool = False
    """`shard_uri` is a split of a packed data set."""
    weight: float = 1.0
    """How often its frames are drawn, relative to those of other clips; above 0."""


INFO_COLUMNS = ("clip_id", "speaker", "frames", "frame_rate", "crop_size", "spoken", "speech_encoder", "feature_size")


def write_clips(uri: str, rows: Iterable[dict[str, object]]) -> None:
    """Write rows of CLIP_SCHEMA as one shard, whole or not at all; each its own row group, to be read alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.parquet"
        with pq.ParquetWriter(path, CLIP_SCHEMA, compression="zstd") as writer:
            for row in rows:
                writer.write_table(pa.Table.from_pylist([row], schema=CLIP_SCHEMA))
        storage.publish(path, uri)


def list_clips(data_uri: str, split: str) -> list[ClipInfo]:
    """Every clip of one split of a data set, packed or in shards, in the order of shards and rows.

    Raises:
        InputError: there is no shard, or one isn't what CLIP_SCHEMA says; names the file and the column.
    """
    if packed.read_index(data_uri) is not None:
        rows = packed.read_rows(data_uri, split, [*INFO_COLUMNS, "has_pictures"])
        uri = packed.split_uri(data_uri, split)
        return [ClipInfo(shard_uri=uri, row=number, is_packed=True, **row) for number, row in enumerate(rows)]
    folder = storage.join(data_uri, split)
    shards = sorted(uri for uri in storage.list_files(folder) if uri.endswith(".parquet"))
    if not shards:
        raise InputError(f"{folder}: no *.parquet shards; ray_jobs/prepare_dataset.py writes them")
    return [info for uri in shards for info in _infos(uri)]


def read_clip(info: ClipInfo) -> Clip:
    """Read one clip; raises InputError naming shard, row and column where it doesn't hold what it says."""
    where = f"{info.shard_uri}: row {info.row}"
    if info.is_packed:
        return _read_packed(info, where)
    with _opened(info.shard_uri) as file:
        row = file.read_row_group(info.row).to_pylist()[0]
    frames, size = info.frames, info.feature_size
    if len(row["crops"]) != frames:
        raise InputError(f"{where}: crops: {len(row['crops'])} pictures for {frames} frames")
    return Clip(
        clip_id=info.clip_id,
        speaker=info.speaker,
        frame_rate=info.frame_rate,
        crop_size=info.crop_size,
        landmarks=_array(row["landmarks"], np.float32, (frames, 478, 3), f"{where}: landmarks"),
        transforms=_array(row["transforms"], np.float32, (frames, 2, 3), f"{where}: transforms"),
        neutral=_array(row["neutral"], np.float32, (478, 3), f"{where}: neutral"),
        articulation=float(row["articulation"]),
        crops=row["crops"],
        variants=[_variant(value, size, f"{where}: features") for value in row["features"]],
        feature_rate=float(row["feature_rate"]),
    )


def _read_packed(info: ClipInfo, where: str) -> Clip:
    row = packed.read_row(info.shard_uri, info.row)
    arrays = packed.unpack(info.shard_uri, row, where)
    pairs = zip(row["speeds"], arrays.features, strict=True)
    return Clip(
        clip_id=info.clip_id,
        speaker=info.speaker,
        frame_rate=info.frame_rate,
        crop_size=info.crop_size,
        landmarks=arrays.landmarks,
        transforms=arrays.transforms,
        neutral=_array(row["neutral"], np.float32, (478, 3), f"{where}: neutral"),
        articulation=float(row["articulation"]),
        crops=arrays.pictures,
        variants=[Variant(speed=speed, features=features) for speed, features in pairs],
        feature_rate=float(row["feature_rate"]),
    )


def _infos(uri: str) -> list[ClipInfo]:
    with _opened(uri) as file:
        if not file.schema_arrow.equals(CLIP_SCHEMA):
            raise InputError(f"{uri}: not a shard of clips: {_difference(file.schema_arrow)}")
        if file.num_row_groups != file.metadata.num_rows:
            raise InputError(
                f"{uri}: {file.metadata.num_rows} clips in {file.num_row_groups} row groups; allowed: one in each"
            )
        rows = file.read(columns=list(INFO_COLUMNS)).to_pylist()
    return [ClipInfo(shard_uri=uri, row=number, **row) for number, row in enumerate(rows)]


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    try:
        with storage.open_read(uri) as stream, pq.ParquetFile(stream) as file:
            yield file
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{uri}: not a readable shard: {error}") from error


def _difference(schema: pa.Schema) -> str:
    for field in CLIP_SCHEMA:
        if field.name not in schema.names:
            return f"column {field.name} is missing"
        if schema.field(field.name).type != field.type:
            return f"column {field.name} is {schema.field(field.name).type}, expected {field.type}"
    return f"columns are {schema.names}, expected {CLIP_SCHEMA.names}"


def _variant(value: dict[str, Any], size: int, where: str) -> Variant:
    return Variant(speed=float(value["speed"]), features=_array(value["data"], np.float16, (-1, size), where))


def _array(value: bytes, kind: type[np.generic], shape: tuple[int, ...], where: str) -> NDArray[np.float32]:
    try:
        return np.frombuffer(value, kind).reshape(shape).astype(np.float32)
    except ValueError as error:
        raise InputError(f"{where}: {len(value)} bytes aren't {np.dtype(kind)} of shape {shape}") from error
