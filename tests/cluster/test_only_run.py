"""One run at a time: a second one is refused while the first lives, and takes over what a dead one left."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamhead import storage, versioned
from dreamhead.cluster.only_run import OnlyRun
from dreamhead.errors import ClusterError, StorageError

DIES = """
import os, sys
from dreamhead.cluster.only_run import OnlyRun
OnlyRun(sys.argv[1], "there", print).__enter__()
os.kill(os.getpid(), 9)
"""


def run(uri: str, said: list[str], stale_s: float = 1.0, beat_s: float = 0.05) -> OnlyRun:
    return OnlyRun(uri, "s3://bucket/results.parquet", said.append, beat_s=beat_s, stale_s=stale_s)


@pytest.fixture
def uri(base: str) -> str:
    return storage.join(base, "running", "one.json")


@pytest.fixture
def said() -> Iterator[list[str]]:
    yield []
    assert not [thread for thread in threading.enumerate() if thread.name == "only-run"]


def test_a_second_run_is_refused_while_the_first_lives(uri: str, said: list[str]) -> None:
    with run(uri, said):
        with pytest.raises(ClusterError, match=r"results\.parquet: another run is at work there \(process \d+ on"):
            run(uri, said).__enter__()
        assert storage.exists(uri)
    assert not storage.exists(uri)
    with run(uri, said):
        pass
    assert len(said) == 1
    assert "waiting 1 s" in said[0]


def test_one_of_two_that_begin_together_is_refused(uri: str, said: list[str]) -> None:
    together, both = threading.Barrier(2), threading.Barrier(2)
    ended: list[str] = []

    def begin() -> None:
        together.wait()
        try:
            with run(uri, said):
                ended.append("ran")
                both.wait(20)
        except ClusterError:
            ended.append("refused")
            both.wait(20)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["ran", "refused"]


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_killed_run_of_this_machine_is_taken_over_at_once(tmp_path: Path, said: list[str], is_reaped: bool) -> None:
    uri = str(tmp_path / "one.json")
    with subprocess.Popen([sys.executable, "-c", DIES, uri], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # Its end closes the pipe; until somebody waits for it, it is still in the list of processes.
        assert process.stdout.read() == b""
        if is_reaped:
            process.wait()
        assert storage.exists(uri)
        with run(uri, said, stale_s=1000):
            assert said == []
    assert process.returncode == -9


@pytest.mark.parametrize("elsewhere", ["another machine 1", f"{socket.gethostname()} pid:[1]"])
def test_a_run_elsewhere_that_is_still_is_taken_over_after_a_while(uri: str, said: list[str], elsewhere: str) -> None:
    left = {"run": "a", "host": "gpu7", "processes": elsewhere, "pid": 2**22 + 1, "began": "today", "beat": "b"}
    versioned.create(uri, json.dumps(left).encode())
    with run(uri, said, stale_s=0.3):
        found = versioned.read(uri)
        assert found is not None
        assert json.loads(found.data)["host"] == socket.gethostname()
    assert "earlier run (process 4194305 on gpu7, begun at today) left no end" in said[0]
    assert not storage.exists(uri)


def test_a_file_that_is_no_runs_is_taken_over_after_a_while(uri: str, said: list[str]) -> None:
    storage.write_bytes(uri, b"")
    with run(uri, said, stale_s=0.3):
        assert "earlier run (process 0 on a machine unknown" in said[0]
    assert not storage.exists(uri)


def test_who_was_taken_over_says_so_and_leaves_the_other_alone(uri: str, said: list[str]) -> None:
    told = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        told.set()

    with OnlyRun(uri, "there", say, beat_s=0.05):
        storage.delete(uri)
        versioned.create(uri, json.dumps({"run": "other"}).encode())
        assert told.wait(20)
    assert "another run has taken over" in said[0]
    assert storage.exists(uri)


def test_a_storage_that_fails_in_between_ends_nothing(
    uri: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, healed = threading.Event(), threading.Event()
    real = versioned.read

    def read(uri: str) -> versioned.Versioned | None:
        if not failed.is_set():
            failed.set()
            raise StorageError("no answer")
        healed.set()
        return real(uri)

    with run(uri, said):
        monkeypatch.setattr(versioned, "read", read)
        assert failed.wait(20)
        assert healed.wait(20)
    assert said == []
    assert not storage.exists(uri)
