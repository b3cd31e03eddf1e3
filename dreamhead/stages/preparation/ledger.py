"""What a data set's folder says of its sources: rows of the report, one file a source, written last = done.

data set/
  train/, validation/   <source>.parquet, <source>-002.parquet ...: shards of clips
  sources/              <source>.parquet: rows on the source and on each of its clips, with small pictures
  failed/               <source>.parquet: why the last try to prepare it failed
  report.parquet, report.html, dataset.json
"""

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamhead import storage
from dreamhead.errors import DreamheadError, StorageError
from dreamhead.stages.attempts import describe
from dreamhead.stages.preparation.source import Source

Row = dict[str, Any]

SOURCE, CLIP = "source", "clip"
SPOKEN, PICTURES, REJECTED = "spoken", "pictures", "rejected"
"""How a clip ended: kept with its speech, kept without, not kept."""
PREPARED, FAILED = "prepared", "failed"
"""How a source ended."""

REPORT_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("source", pa.string()),
        ("clip_id", pa.string()),
        ("source_uri", pa.string()),
        ("speaker", pa.string()),
        ("split", pa.string()),
        ("status", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("error", pa.string()),
        ("start_s", pa.float64()),
        ("seconds", pa.float64()),
        ("frames", pa.int64()),
        ("frame_rate", pa.float64()),
        ("face_px", pa.float64()),
        ("yaw_deg", pa.float64()),
        ("pitch_deg", pa.float64()),
        ("detected_share", pa.float64()),
        ("unevenness", pa.float64()),
        ("sharpness", pa.float64()),
        ("brightness", pa.float64()),
        ("second_face", pa.float64()),
        ("level_db", pa.float64()),
        ("lag_fit", pa.float64()),
        ("lag_s", pa.float64()),
        ("lag_score", pa.float64()),
        ("lag_margin", pa.float64()),
        ("lag_method", pa.string()),
        ("lag_sure", pa.bool_()),
        ("shards", pa.list_(pa.string())),
        ("fingerprint", pa.string()),
    ]
)
"""`kind` is `source` or `clip`; a source's row carries the lag as measured and the names of its shards, a clip's row
its figures and the lag that was applied. What wasn't measured is null. `lag_fit` is the clip's own score
at that lag."""

SHEET = "sheet"
LEDGER_SCHEMA = REPORT_SCHEMA.append(pa.field(SHEET, pa.binary()))
"""With a JPEG of each clip whose frames were looked at."""


def source_row(source: Source, status: str, **values: Any) -> Row:
    """The report's row of a source."""
    return {
        "kind": SOURCE,
        "source": source.name,
        "source_uri": source.uri,
        "speaker": source.speaker,
        "split": source.split,
        "status": status,
        "start_s": source.start_s,
        "error": "",
        "reasons": [],
        "shards": [],
    } | values


def failed_row(source: Source, error: DreamheadError | str) -> Row:
    """The report's row of a source that can't be prepared."""
    return source_row(source, FAILED, error=describe(error) if isinstance(error, DreamheadError) else error)


class Ledger:
    """The files of one data set that say what is in it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def shard_name(self, source: Source, part: int) -> str:
        """One of a source's shards, relative to the data set."""
        return f"{source.split}/{source.name}{f'-{part + 1:03d}' if part else ''}.parquet"

    def attempts_uri(self, source: Source) -> str:
        """The count of a source's tries in this run."""
        return storage.join(self.uri, "sources", f"{source.name}.attempts.json")

    def finish(self, source: Source, rows: Iterable[Row]) -> None:
        """Publish the rows on a prepared source, which mark it as done."""
        _write(storage.join(self.uri, "sources", f"{source.name}.parquet"), rows, LEDGER_SCHEMA)
        storage.delete(self._failed_uri(source))
        storage.delete(self.attempts_uri(source))

    def fail(self, source: Source, error: DreamheadError | str) -> None:
        """Publish why a source can't be prepared; what an earlier run made of it stays."""
        _write(self._failed_uri(source), [failed_row(source, error)], LEDGER_SCHEMA)
        storage.delete(self.attempts_uri(source))

    def done(self, source: Source, fingerprint: str) -> Row | None:
        """The row of a source that was prepared just so, with every shard there; else None."""
        uri = storage.join(self.uri, "sources", f"{source.name}.parquet")
        if not storage.exists(uri):
            return None
        row = _read(uri, REPORT_SCHEMA.names)[0]
        whole = all(storage.exists(storage.join(self.uri, name)) for name in row["shards"])
        return row if whole and row["fingerprint"] == fingerprint else None

    def rows(self) -> list[Row]:
        """Every row of the report: of all sources that are in the data set, those of earlier runs too."""
        names = [
            uri
            for folder in ("sources", "failed")
            for uri in storage.list_files(storage.join(self.uri, folder))
            if uri.endswith(".parquet")
        ]
        return [row for uri in names for row in _read(uri, REPORT_SCHEMA.names)]

    def sheets(self, source: str) -> dict[str, bytes]:
        """Small pictures of a source's clips, by clip."""
        rows = _read(storage.join(self.uri, "sources", f"{source}.parquet"), ["clip_id", SHEET])
        return {row["clip_id"]: row[SHEET] for row in rows if row[SHEET]}

    def write_report(self, rows: Iterable[Row]) -> None:
        """Publish report.parquet."""
        _write(storage.join(self.uri, "report.parquet"), rows, REPORT_SCHEMA)

    def sweep(self, rows: Iterable[Row]) -> list[str]:
        """Delete the shards that an earlier run made of a source and the last one did not; returns their names."""
        listed = {
            row["source"]: set(row["shards"]) for row in rows if row["kind"] == SOURCE and row["status"] != FAILED
        }
        gone = []
        for split in ("train", "validation"):
            for uri in storage.list_files(storage.join(self.uri, split)):
                name = f"{split}/{uri.rpartition('/')[2]}"
                source = _source_of(uri)
                if source in listed and name not in listed[source]:
                    storage.delete(uri)
                    gone.append(name)
        return gone

    def _failed_uri(self, source: Source) -> str:
        return storage.join(self.uri, "failed", f"{source.name}.parquet")


def _source_of(shard_uri: str) -> str:
    stem = shard_uri.rpartition("/")[2].removesuffix(".parquet")
    before, _, part = stem.rpartition("-")
    return before if len(part) == 3 and part.isdecimal() else stem


def _write(uri: str, rows: Iterable[Row], schema: pa.Schema) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer, compression="zstd")
    storage.write_bytes(uri, buffer.getvalue())


def _read(uri: str, columns: list[str]) -> list[Row]:
    try:
        rows: list[Row] = pq.read_table(pa.BufferReader(storage.read_bytes(uri)), columns=columns).to_pylist()
    except pa.ArrowException as error:
        raise StorageError(f"{uri}: not the rows on a source that were written here: {error}") from error
    if not rows:
        raise StorageError(f"{uri}: holds no row")
    return rows
