"""Read what is to be judged: a folder of videos, or a list of clips with their speech, speaker and lag."""

import math
import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from dreamhead import storage
from dreamhead.cluster.rows import Row, check_columns, read_rows
from dreamhead.errors import ManifestError
from dreamhead.evaluation.records import JudgedClip, Task
from dreamhead.evaluation.settings import ConditionName

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
LISTS = (".parquet", ".csv", ".jsonl")
COLUMNS = ("video_uri", "audio_uri", "speaker", "speech_lag_s", "clip_id")
MOST_LAG_S = 2.0
UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")


def read_clips(uri: str, lags_uri: str = "") -> list[JudgedClip]:
    """Clips of a folder (every video in it) or of a list, in order, named after their files unless they have names.

    Args:
        uri: a directory, or .parquet, .csv or .jsonl with the column video_uri, and any other of COLUMNS; relative
            uris are resolved against the list's directory.
        lags_uri: the report.parquet of a preparation of training data: its lags of the sound count for clips whose row
            gives none.

    Raises ManifestError that names row and column.
    """
    rows = _listed(uri) if uri.lower().endswith(LISTS) else _in_folder(uri)
    lags = _known_lags(lags_uri) if lags_uri else {}
    names = _names(rows, uri)
    return [
        JudgedClip(
            clip_id=name,
            video_uri=row["video_uri"],
            audio_uri=row["audio_uri"] or row["video_uri"],
            speaker=row["speaker"] or name,
            speech_lag_s=lags.get(row["video_uri"], 0.0) if row["speech_lag_s"] is None else row["speech_lag_s"],
        )
        for name, row in zip(names, rows, strict=True)
    ]


def tasks_of(clips: list[JudgedClip], conditions: tuple[ConditionName, ...]) -> list[Task]:
    """Every condition of every clip: the first condition of all clips, then the next.

    So actors that begin together begin with different clips, and each clip is made ready once. `cross` takes the speech
    of the next clip, the last one that of the first; a single clip has no such condition.
    """
    others = dict(zip(clips, [*clips[1:], clips[0]], strict=True)) if len(clips) > 1 else {}
    return [
        Task(clip=clip, condition=condition, other=others.get(clip) if condition == "cross" else None)
        for condition in conditions
        for clip in clips
        if condition != "cross" or others
    ]


def _in_folder(uri: str) -> list[Row]:
    folder = uri.rstrip("/") + "/"
    found = [file for file in storage.list_files(uri) if file.lower().endswith(VIDEOS)]
    found = [file for file in found if "/" not in file.removeprefix(folder)]
    if not found:
        raise ManifestError(
            f"{uri}: no videos in this folder; allowed: {', '.join(VIDEOS)}, or a list: {', '.join(LISTS)}"
        )
    return [_row({"video_uri": file}, ".", file) for file in found]


def _listed(uri: str) -> list[Row]:
    rows = read_rows(uri)
    if not rows:
        raise ManifestError(f"{uri}: the list has no rows")
    check_columns(uri, rows, COLUMNS[:1], COLUMNS[1:])
    base = uri.rpartition("/")[0] or ("/" if uri.startswith("/") else ".")
    return [_row(row, base, f"{uri}: row {number}") for number, row in enumerate(rows)]


def _row(row: Row, base: str, where: str) -> Row:
    texts = {name: row.get(name) for name in COLUMNS if name != "speech_lag_s"}
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise ManifestError(f"{where}: {name}: must be text, got {value!r}")
    found: Row = {name: (value or "").strip() for name, value in texts.items()}
    if not found["video_uri"]:
        raise ManifestError(f"{where}: video_uri: is required, got nothing")
    for name in ("video_uri", "audio_uri"):
        found[name] = storage.resolve(found[name], base) if found[name] else ""
    return found | {"speech_lag_s": _lag(row.get("speech_lag_s"), where)}


def _lag(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        lag_s = float(value)
    except (TypeError, ValueError):
        lag_s = math.nan
    if not abs(lag_s) <= MOST_LAG_S:
        raise ManifestError(
            f"{where}: speech_lag_s: must be seconds from -{MOST_LAG_S:g} to {MOST_LAG_S:g}, got {value!r}"
        )
    return lag_s


def _names(rows: list[Row], uri: str) -> list[str]:
    names = [UNFIT.sub("_", row["clip_id"] or PurePosixPath(row["video_uri"]).stem)[:100] or "_" for row in rows]
    names = [name if name[0] not in ".-" else f"_{name}" for name in names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ManifestError(f"{uri}: several clips are called {', '.join(twice)}; give each its own clip_id")
    return names


def _known_lags(uri: str) -> dict[str, float]:
    """Lags, in seconds, by source, of those that a preparation was sure of."""
    rows = read_rows(uri)
    if not rows or not {"source_uri", "lag_s", "lag_sure"} <= rows[0].keys():
        raise ManifestError(
            f"{uri}: no columns source_uri, lag_s and lag_sure; a preparation's report.parquet is needed"
        )
    return {row["source_uri"]: float(row["lag_s"]) for row in rows if row["lag_sure"] and row["lag_s"] is not None}
