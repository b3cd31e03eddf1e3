"""Compare-and-set on files: one winner of each race, nothing lost, in a folder and on an S3 endpoint."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamhead import storage, versioned
from dreamhead.errors import StorageError
from dreamhead.versioned import Conflict
from tests.racers import count_up, number, processes


def test_a_file_is_made_once_and_replaced_by_who_read_it(base: str) -> None:
    uri = storage.join(base, "a", "record.json")
    assert versioned.read(uri) is None
    versioned.create(uri, b"one")
    with pytest.raises(Conflict, match=r"record\.json"):
        versioned.create(uri, b"two")
    first = versioned.read(uri)
    assert first is not None
    assert first.data == b"one"
    versioned.replace(uri, b"three", first.version)
    with pytest.raises(Conflict, match=r"record\.json: was .*replaced"):
        versioned.replace(uri, b"four", first.version)
    last = versioned.read(uri)
    assert last is not None
    assert last.data == b"three"
    storage.delete(uri)
    with pytest.raises(Conflict, match="removed meanwhile"):
        versioned.replace(uri, b"five", last.version)
    assert versioned.read(uri) is None


def test_one_of_many_threads_makes_a_file(base: str) -> None:
    uri = storage.join(base, "record.json")

    def create(index: int) -> bool:
        try:
            versioned.create(uri, str(index).encode())
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(16)))
    assert sum(won) == 1
    found = versioned.read(uri)
    assert found is not None
    assert found.data == str(won.index(True)).encode()


def test_no_count_of_threads_is_lost(base: str) -> None:
    uri = storage.join(base, "count")
    versioned.create(uri, b"0")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: count_up(uri, 10), range(4)))
    assert number(versioned.read(uri)) == 40


def test_no_count_of_processes_is_lost(tmp_path: Path) -> None:
    uri = str(tmp_path / "count")
    versioned.create(uri, b"0")
    with processes(2) as pool:
        conflicts = sum(future.result() for future in [pool.submit(count_up, uri, 3000) for _ in range(2)])
    assert number(versioned.read(uri)) == 6000
    assert conflicts > 0, "the processes didn't meet: the test shows nothing"


def test_nothing_unfinished_is_left(tmp_path: Path) -> None:
    uri = str(tmp_path / "record")
    versioned.create(uri, b"one")
    with pytest.raises(Conflict):
        versioned.replace(uri, b"two", "another version")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "record"]


def test_a_broken_storage_is_not_taken_for_a_lost_race(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    for uri in (str(tmp_path / "file" / "record"), "s3://no-such-bucket/record"):
        with pytest.raises(StorageError, match=r"record: can't (create|write)"):
            versioned.create(uri, b"one")
