"""What is done is known by its rows; what an earlier run made is swept, what others made isn't."""

import dataclasses
from pathlib import Path

import pytest

from dreamhead import storage
from dreamhead.errors import InputError, StorageError
from dreamhead.stages.preparation import ledger
from dreamhead.stages.preparation.ledger import Ledger, failed_row, source_row
from dreamhead.stages.preparation.source import Source

SOURCE = Source(uri="/videos/a.mp4", speaker="anna", split="train")


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "data"))


def prepared(book: Ledger, source: Source, parts: int) -> None:
    names = [book.shard_name(source, part) for part in range(parts)]
    for name in names:
        storage.write_bytes(storage.join(book.uri, name), b"shard")
    clip = {"kind": ledger.CLIP, "source": source.name, "clip_id": "one", "sheet": b"jpeg", "reasons": ["silent"]}
    book.finish(source, [source_row(source, ledger.PREPARED, shards=names, fingerprint="f"), clip])


def test_a_source_is_done_while_all_its_shards_are_there(book: Ledger) -> None:
    assert book.done(SOURCE, "f") is None
    prepared(book, SOURCE, 2)
    done = book.done(SOURCE, "f")
    assert done is not None
    assert done["shards"] == [f"train/{SOURCE.name}.parquet", f"train/{SOURCE.name}-002.parquet"]
    assert book.done(SOURCE, "other") is None
    storage.delete(storage.join(book.uri, done["shards"][1]))
    assert book.done(SOURCE, "f") is None


def test_rows_tell_of_all_sources_and_of_the_last_failure(book: Ledger) -> None:
    assert book.rows() == []
    other = dataclasses.replace(SOURCE, uri="/videos/b.mp4")
    storage.write_bytes(book.attempts_uri(other), b"{}")
    book.fail(other, InputError("no good"))
    prepared(book, SOURCE, 1)
    rows = book.rows()
    assert [(row["kind"], row["status"], row["error"]) for row in rows] == [
        ("source", "prepared", ""),
        ("clip", None, None),
        ("source", "failed", "InputError: no good"),
    ]
    assert book.sheets(SOURCE.name) == {"one": b"jpeg"}
    assert not storage.exists(book.attempts_uri(other))
    prepared(book, other, 0)
    assert [row["status"] for row in book.rows() if row["kind"] == "source"] == ["prepared", "prepared"]


def test_a_failure_keeps_what_an_earlier_run_made(book: Ledger) -> None:
    prepared(book, SOURCE, 1)
    book.fail(SOURCE, "gone")
    assert [row["status"] for row in book.rows() if row["kind"] == "source"] == ["prepared", "failed"]
    assert book.sweep(book.rows()) == []


def test_only_shards_that_are_no_longer_listed_are_swept(book: Ledger) -> None:
    prepared(book, SOURCE, 3)
    moved = dataclasses.replace(SOURCE, split="validation")
    foreign = storage.join(book.uri, "train", "somebody.parquet")
    storage.write_bytes(foreign, b"theirs")
    prepared(book, moved, 1)
    gone = book.sweep(book.rows())
    assert gone == [f"train/{SOURCE.name}{part}.parquet" for part in ("-002", "-003", "")]
    left = [uri.removeprefix(book.uri + "/") for uri in storage.list_files(book.uri)]
    assert left == [f"sources/{SOURCE.name}.parquet", "train/somebody.parquet", f"validation/{SOURCE.name}.parquet"]


def test_a_damaged_file_is_named(book: Ledger) -> None:
    storage.write_bytes(storage.join(book.uri, "sources", f"{SOURCE.name}.parquet"), b"nonsense")
    with pytest.raises(StorageError, match=rf"{SOURCE.name}\.parquet: not the rows on a source"):
        book.rows()


def test_a_failed_row_says_why() -> None:
    row = failed_row(SOURCE, InputError("why"))
    assert (row["status"], row["error"], row["source"]) == ("failed", "InputError: why", SOURCE.name)
