"""Read a manifest: checked rows become jobs, bad ones failed rows that name the column."""

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args

from dreamhead import storage
from dreamhead.cluster.rows import Row, check_columns, read_rows
from dreamhead.errors import InputError, ManifestError, StorageError
from dreamhead.faces.tracking import FaceChoice
from dreamhead.records import Job, LongerAudio, Segment
from dreamhead.stages import results

REQUIRED = ("video_uri", "audio_uri", "output_uri")
OPTIONAL = ("job_id", "seed", "segments", "face", "on_longer_audio", "language", "consent_id")
JOB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Manifest:
    """What a manifest asks for."""

    jobs: tuple[Job, ...]
    failed: tuple[Row, ...]
    """Results rows of the manifest's bad rows."""


def read_manifest(uri: str) -> Manifest:
    """Read .parquet, .csv or .jsonl; relative uris are resolved against the manifest's directory.

    Raises ManifestError where the manifest as a whole can't be used: unreadable, empty, without a required column,
    with an optional one in another spelling, or with rows that would write the same output or share a job_id.
    """
    rows = read_rows(uri)
    if not rows:
        raise ManifestError(f"{uri}: the manifest has no rows")
    check_columns(uri, rows, REQUIRED, OPTIONAL)
    base = uri.rpartition("/")[0] or ("/" if uri.startswith("/") else ".")
    jobs: list[Job] = []
    failed: list[Row] = []
    for index, row in enumerate(rows):
        try:
            jobs.append(job_from_row(index, row, base))
        except InputError as error:
            failed.append(results.failed(_as_given(index, row), error))
    _refuse_shared(uri, jobs, "output_uri", storage.canonical)
    _refuse_shared(uri, jobs, "job_id", str)
    inputs = _inputs(rows, base)
    for job in jobs:
        if source := inputs.get(storage.canonical(job.output_uri)):
            overwrites = InputError(f"output_uri: {job.output_uri} is the {source}; nothing is overwritten")
            failed.append(results.failed(job, overwrites))
    refused = {row["row"] for row in failed}
    return Manifest(tuple(job for job in jobs if job.row not in refused), tuple(failed))


def job_from_row(index: int, row: Row, base: str) -> Job:
    """The checked job of one row; raises InputError that names the column and what is allowed."""
    uris: dict[str, Any] = {name: _uri(row, name, base) for name in REQUIRED}
    options: dict[str, Any] = {
        "seed": _seed(row.get("seed")),
        "segments": _segments(row.get("segments")),
        "face": _face(row),
        "on_longer_audio": _longer_audio(row),
        "language": _text(row, "language"),
        "consent_id": _text(row, "consent_id"),
    }
    job_id = _job_id(row)
    # The same row has the same identity in the next run, wherever it stands in the manifest.
    identity = json.dumps([uris, options], sort_keys=True, default=vars)
    return Job(
        job_id=job_id or hashlib.sha256(identity.encode()).hexdigest()[:16],
        row=index,
        extra=_extra(row),
        **uris,
        **options,
    )


def _as_given(index: int, row: Row) -> Job:
    """What can be told of a row that isn't a job."""
    texts: dict[str, Any] = {name: str(row.get(name) or "") for name in (*REQUIRED, "job_id", "language", "consent_id")}
    return Job(row=index, extra=_extra(row), **texts)


def _extra(row: Row) -> dict[str, str]:
    known = {*REQUIRED, *OPTIONAL}
    return {name: json.dumps(value, default=str) for name, value in row.items() if name not in known}


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name}: must be text, got {value!r}")
    return value.strip()


def _uri(row: Row, name: str, base: str) -> str:
    text = _text(row, name)
    if not text:
        raise InputError(f"{name}: is required, got nothing")
    try:
        storage.is_remote(text)
    except StorageError as error:
        raise InputError(f"{name}: {error}") from error
    return storage.resolve(text, base)


def _job_id(row: Row) -> str:
    text = _text(row, "job_id")
    if text and not JOB_ID.fullmatch(text):
        allowed = "1 to 128 of A-Z a-z 0-9 . _ - and no dot or dash first"
        raise InputError(f"job_id: must be {allowed}, got {text!r}")
    return text


def _face(row: Row) -> str:
    """As it stands; whether its place and time are in the video shows when that is looked into."""
    text = _text(row, "face") or "largest"
    FaceChoice.parse(text)
    return text


def _longer_audio(row: Row) -> str:
    text = _text(row, "on_longer_audio") or "trim"
    if text not in get_args(LongerAudio):
        raise InputError(f"on_longer_audio: must be one of {', '.join(get_args(LongerAudio))}, got {text!r}")
    return text


def _seed(value: Any) -> int:
    if value is None or value == "":
        return 0
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEED:
        raise InputError(f"seed: must be a whole number from 0 to {MAX_SEED}, got {value!r}")
    return value


def _segments(value: Any) -> tuple[Segment, ...]:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"segments: not valid JSON: {error}") from error
    if not value:
        return ()
    if not isinstance(value, list):
        raise InputError(f"segments: must be a list of {{start_s, end_s}}, got {value!r}")
    return tuple(_segment(item) for item in value)


def _segment(item: Any) -> Segment:
    if not isinstance(item, dict) or item.keys() != {"start_s", "end_s"}:
        raise InputError(f"segments: each must have start_s and end_s and nothing else, got {item!r}")
    start_s, end_s = item["start_s"], item["end_s"]
    numbers = all(isinstance(part, int | float) and not isinstance(part, bool) for part in (start_s, end_s))
    if not numbers or not 0 <= start_s < end_s < math.inf:
        raise InputError(f"segments: 0 <= start_s < end_s is needed, in seconds, got {item!r}")
    return Segment(float(start_s), float(end_s))


def _inputs(rows: list[Row], base: str) -> dict[str, str]:
    """Every input, bad rows' too, and the first row that names it."""
    inputs: dict[str, str] = {}
    for index, row in enumerate(rows):
        for name in ("video_uri", "audio_uri"):
            with suppress(InputError):
                inputs.setdefault(storage.canonical(_uri(row, name, base)), f"{name} of row {index}")
    return inputs


def _refuse_shared(uri: str, jobs: list[Job], name: str, spelled: Callable[[str], str]) -> None:
    rows: dict[str, list[int]] = defaultdict(list)
    for job in jobs:
        rows[spelled(getattr(job, name))].append(job.row)
    shared = [f"rows {', '.join(map(str, indices))}: {value}" for value, indices in rows.items() if len(indices) > 1]
    if shared:
        raise ManifestError(f"{uri}: {name} must differ from row to row; {'; '.join(shared)}")
