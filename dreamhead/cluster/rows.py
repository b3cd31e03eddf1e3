"""Read the rows of a table, .parquet, .csv or .jsonl, and say of one that can't be used what stands in it instead."""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamhead import storage
from dreamhead.errors import ManifestError, StorageError

Row = dict[str, Any]

OTHER_DELIMITERS = {";": "';'", "\t": "tabs", "|": "'|'"}
WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""What text of two or four bytes a letter begins with; Excel saves it as "Unicode text"."""
ALIKE = 0.75
"""Likeness, 0 to 1, from which on one name is taken for a slip of another."""


def read_rows(uri: str) -> list[Row]:
    """The rows of a .parquet, .csv or .jsonl file, as they are but for spaces around the names in a CSV's header.

    Raises ManifestError.
    """
    readers: dict[str, Callable[[bytes], list[Row]]] = {
        "parquet": _read_parquet,
        "csv": read_csv,
        "jsonl": _read_jsonl,
    }
    suffix = uri.rpartition(".")[2].lower()
    if suffix not in readers:
        raise ManifestError(f"{uri}: unknown kind of manifest; allowed: {', '.join('.' + name for name in readers)}")
    try:
        return readers[suffix](storage.read_bytes(uri))
    except StorageError as error:
        raise ManifestError(f"the manifest can't be read: {error}") from error
    except (pa.ArrowException, csv.Error, ValueError) as error:
        raise ManifestError(f"{uri}: not a valid .{suffix} file: {error}") from error


def read_csv(data: bytes) -> list[Row]:
    """The rows of a CSV by the names of its header; raises ValueError or csv.Error that say what is wrong with it."""
    text = _text(data)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error:
        # Quoted names with another delimiter between them are no CSV at all.
        _check_header([text.partition("\n")[0].strip()])
        raise
    _check_header(names)
    reader.fieldnames = names
    rows: list[Row] = []
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more fields than the header's {len(names)}")
        rows.append(dict(row))
    return rows


def check_columns(uri: str, rows: Iterable[Row], required: Collection[str], optional: Collection[str]) -> None:
    """Raise ManifestError where a required column isn't there, or an optional one has its name in another spelling.

    Any other column is somebody's own.
    """
    present = list({str(name): None for row in rows for name in row})
    missing = [name for name in required if name not in present]
    if missing:
        hints = "".join(_hint(name, present, (*required, *optional)) for name in missing)
        raise ManifestError(f"{uri}: no column {', '.join(missing)}{hints}; required are {', '.join(required)}")
    for name in optional:
        if name not in present and (spelled := [other for other in present if _plain(other) == name]):
            raise ManifestError(f"{uri}: the column {spelled[0]!r} would count for nothing: its name is {name!r}")


def _hint(name: str, present: Collection[str], known: Collection[str]) -> str:
    """What stands there instead, where that is plain to see."""
    plain = {_plain(other): other for other in present if other not in known}
    close = get_close_matches(name, plain, n=1, cutoff=ALIKE)
    return f" (there is {plain[close[0]]!r}: did you mean {name!r}?)" if close else ""


def _plain(name: str) -> str:
    return name.strip(" \t\ufeff\"'").casefold().replace(" ", "_").replace("-", "_")


def _check_header(names: list[str]) -> None:
    if len(names) == 1:
        for delimiter, called in OTHER_DELIMITERS.items():
            if count := names[0].count(delimiter):
                raise ValueError(
                    f"the header is one field with {count} {called} ({names[0]!r}): the delimiter must be a comma"
                )
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise ValueError(f"the header has {', '.join(map(repr, twice))} more than once")


def _read_parquet(data: bytes) -> list[Row]:
    rows: list[Row] = pq.read_table(pa.BufferReader(data)).to_pylist()
    return rows


def _read_jsonl(data: bytes) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(_text(data).splitlines(), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        rows.append(row)
    return rows


def _text(data: bytes) -> str:
    """UTF-8, with or without its mark."""
    if data.startswith(WIDE) or b"\0" in data:
        raise ValueError("it is UTF-16 or UTF-32 text, or none at all; save it as UTF-8 (in Excel: CSV UTF-8)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text (byte {data[error.start]:#x}); save it as UTF-8") from error
