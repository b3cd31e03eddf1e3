"""Pack a prepared data set so that it travels: pictures as video, numbers compressed, only what some stages need."""

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dreamhead import storage
from dreamhead.errors import InputError
from dreamhead.training.dataset import SPLITS, Clip, ClipInfo, list_clips, read_clip
from dreamhead.training.packed import FORM, INDEX, PACKED_SCHEMA, PackedIndex, pack_array, split_uri, to_points
from dreamhead.training.picture_cache import Part
from dreamhead.training.picture_video import encode_pictures, join_videos
from dreamhead.training.settings import AUTOENCODER, IMAGE, LANDMARKS, MIXER

PART_FRAMES = 1000
"""A part is decoded by one core; it ends with the clip that reaches so many frames."""
ROW_BYTES, FRAME_BYTES = 6000, 20
"""What the files' own structure takes for each row, and for each picture."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How to pack."""

    stages: tuple[str, ...]
    """What the data must serve."""
    crf: int
    """x264's measure of loss: more is smaller."""
    picture_step: int
    """Keep every so many pictures."""
    variants: int
    """Most encodings of a clip's speech; the first ones."""
    budget_bytes: int
    """Of all that is written."""
    max_enlarged: float = math.inf
    """Pictures whose crops were enlarged more than this, from smaller faces, are soft and are left out."""


@dataclass(frozen=True, kw_only=True)
class PackedClip:
    """One clip of the source, encoded: its rows, and the video of the one with pictures."""

    info: ClipInfo
    split: str
    rows: list[dict[str, Any]]
    video: bytes
    """Empty without pictures."""

    @property
    def bytes(self) -> int:
        """What it takes in the packed folder, about."""
        numbers = sum(len(part) for row in self.rows for part in (row["points"], row["transforms"], row["neutral"]))
        speech = sum(len(part) for row in self.rows for part in row["features"])
        return numbers + speech + len(self.video) + ROW_BYTES * len(self.rows) + FRAME_BYTES * self.info.frames


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What was packed."""

    index: PackedIndex
    kept: list[PackedClip]
    left_out: list[PackedClip]


def pack(data_uri: str, folder: Path, packing: Packing, tell: Callable[[str], None]) -> Packed:
    """Write a packed folder, its index last; clips that don't fit the budget are left out, evenly over speakers.

    Raises:
        InputError: the data can't be read, or nothing of it serves the stages.
        MediaError: pictures can't be encoded.
    """
    found = [(split, info) for split in SPLITS for info in list_clips(data_uri, split) if _serves(info, packing)]
    if not found:
        raise InputError(f"{data_uri}: no clip serves {', '.join(packing.stages)}")
    if len({info.crop_size for _, info in found}) > 1:
        raise InputError(f"{data_uri}: crops of several sizes: {sorted({info.crop_size for _, info in found})}")
    clips = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for clip in pool.map(lambda pair: _encoded(pair[0], pair[1], packing), found):
            clips.append(clip)
            what = f"{clip.bytes:,} bytes" if clip.rows else "left out, its pictures are soft"
            tell(f"{clip.info.clip_id}: {clip.info.frames} frames, {what} ({len(clips)}/{len(found)})")
    kept = fitting([clip for clip in clips if clip.rows], packing.budget_bytes)
    left_out = [clip for clip in clips if clip not in kept]
    index = _write(folder, kept, packing)
    return Packed(index=index, kept=kept, left_out=left_out)


def fitting(clips: Sequence[PackedClip], budget_bytes: int) -> list[PackedClip]:
    """Clips that fit together, in their order: one after another of the speaker of whom least is taken so far."""
    waiting: dict[str, list[PackedClip]] = {}
    for clip in clips:
        waiting.setdefault(clip.info.speaker, []).append(clip)
    taken = dict.fromkeys(waiting, 0)
    kept: set[int] = set()
    room = budget_bytes
    while waiting:
        speaker = min(waiting, key=lambda name: taken[name])
        clip = waiting[speaker].pop(0)
        if clip.bytes <= room:
            room -= clip.bytes
            taken[speaker] += clip.info.frames
            kept.add(id(clip))
        if not waiting[speaker]:
            del waiting[speaker]
    return [clip for clip in clips if id(clip) in kept]


def thinned(clip: Clip, step: int) -> Clip:
    """Every so many frames of a clip, which is then one of a lower frame rate."""
    crops = clip.crops[::step]
    return replace(
        clip,
        frame_rate=clip.frame_rate / step,
        landmarks=clip.landmarks[::step],
        transforms=clip.transforms[::step],
        crops=crops,
    )


def enlarged(clip: Clip) -> float:
    """How many pixels of the crop one of the frame became, the median over a clip."""
    return float(np.median(np.hypot(clip.transforms[:, 0, 0], clip.transforms[:, 0, 1])))


def _wants_pictures(packing: Packing) -> bool:
    return bool({IMAGE, AUTOENCODER, MIXER}.intersection(packing.stages))


def _serves(info: ClipInfo, packing: Packing) -> bool:
    speaks = info.spoken and LANDMARKS in packing.stages
    return info.frames > 0 and (speaks or (info.has_pictures and _wants_pictures(packing)))


def _encoded(split: str, info: ClipInfo, packing: Packing) -> PackedClip:
    clip = read_clip(info)
    speaks = info.spoken and LANDMARKS in packing.stages
    pictured = info.has_pictures and _wants_pictures(packing) and enlarged(clip) <= packing.max_enlarged
    together = speaks and packing.picture_step == 1
    rows, video = [], b""
    if pictured:
        shown = thinned(clip, packing.picture_step)
        pictures = [shown.crop(frame) for frame in range(len(shown.crops))]
        video = encode_pictures(pictures, packing.crf, f"{info.shard_uri}: clip {info.clip_id}")
        rows.append(_row(info, shown, packing.variants if together else 0, has_pictures=True))
    if speaks and not (pictured and together):
        # Motion is learnt at the full rate, beside pictures of a lower one.
        rows.append(_row(info, clip, packing.variants, has_pictures=False))
    return PackedClip(info=info, split=split, rows=rows, video=video)


def _row(info: ClipInfo, clip: Clip, variants: int, *, has_pictures: bool) -> dict[str, Any]:
    heard = clip.variants[:variants]
    return {
        "clip_id": info.clip_id,
        "speaker": info.speaker,
        "frames": len(clip.landmarks),
        "frame_rate": clip.frame_rate,
        "crop_size": info.crop_size,
        "spoken": info.spoken and len(heard) > 0,
        "has_pictures": has_pictures,
        "speech_encoder": info.speech_encoder,
        "feature_size": info.feature_size,
        "feature_rate": clip.feature_rate,
        "articulation": clip.articulation,
        "neutral": clip.neutral.tobytes(),
        "points": pack_array(to_points(clip.landmarks, clip.transforms, info.crop_size)),
        "transforms": pack_array(clip.transforms),
        "speeds": [variant.speed for variant in heard],
        "features": [pack_array(variant.features.astype("float16")) for variant in heard],
        "part": "",
        "first": 0,
    }


def _write(folder: Path, clips: Sequence[PackedClip], packing: Packing) -> PackedIndex:
    parts: list[Part] = []
    splits = [split for split in SPLITS if any(clip.split == split for clip in clips)]
    for split in splits:
        chosen = [clip for clip in clips if clip.split == split]
        for number, group in enumerate(_groups([clip for clip in chosen if clip.video])):
            parts.append(_write_part(folder, f"pictures/{split}-{number:03}.mp4", group))
        _write_rows(folder, split, [row for clip in chosen for row in clip.rows])
    index = PackedIndex(form=FORM, picture_step=packing.picture_step, splits=splits, parts=parts)
    storage.write_bytes(str(folder / INDEX), index.model_dump_json(indent=1).encode())
    return index


def _groups(clips: Sequence[PackedClip]) -> list[list[PackedClip]]:
    """Clips of a part each."""
    groups: list[list[PackedClip]] = []
    frames = PART_FRAMES
    for clip in clips:
        if frames >= PART_FRAMES:
            groups.append([])
            frames = 0
        groups[-1].append(clip)
        frames += clip.rows[0]["frames"]
    return groups


def _write_part(folder: Path, name: str, clips: Sequence[PackedClip]) -> Part:
    """One file of pictures; the clips' rows are told where theirs begin."""
    first = 0
    for clip in clips:
        clip.rows[0].update(part=name, first=first)
        first += clip.rows[0]["frames"]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "part.mp4"
        join_videos([clip.video for clip in clips], path)
        data = path.read_bytes()
    storage.write_bytes(str(folder / name), data)
    size = clips[0].info.crop_size
    return Part(name=name, frames=first, size=size, bytes=len(data), sha256=sha256(data).hexdigest())


def _write_rows(folder: Path, split: str, rows: Iterable[dict[str, Any]]) -> None:
    """Each row is its own row group, to be read alone, and its pages have checksums."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "clips.parquet"
        options: dict[str, Any] = {"compression": "none", "write_statistics": False, "write_page_checksum": True}
        with pq.ParquetWriter(path, PACKED_SCHEMA, **options) as writer:
            for row in rows:
                writer.write_table(pa.Table.from_pylist([row], schema=PACKED_SCHEMA))
        storage.publish(path, split_uri(str(folder), split))
