"""Tries are counted outside the process: limits of time, machines that are lost, what is published of a failure."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamhead import storage
from dreamhead.errors import ClusterError, DiskFullError, MediaError, StorageError
from dreamhead.stages import attempts, deadline
from dreamhead.stages.artefacts import load_json
from dreamhead.stages.attempts import LOST_RATIO, Place, attempt, publish_failure, retried


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "tries.json")


def place(ended: Callable[[], None], lost: str = "") -> Place:
    return Place(node="here", is_lost=lambda node: node == lost, end_process=ended)


def test_a_try_that_takes_too_long_is_noted_and_ends_its_process(uri: str) -> None:
    ended = threading.Event()
    with attempt(uri, 1, "frames", place(ended.set), timeout_s=0.05):
        assert ended.wait(5)
        assert load_json(uri)["tries"] == [{"node": "here", "error": "TimeoutError: it took longer than 0.05 s"}]
    error = "frames was given up after 1 tries, the last failed with: TimeoutError: it took longer than 0.05 s"
    with pytest.raises(ClusterError, match=error), attempt(uri, 1, "frames", place(ended.set)):
        pytest.fail("the work must not start")


def test_time_in_which_others_work_does_not_count(uri: str) -> None:
    ended = threading.Event()
    with attempt(uri, 1, "frames", place(ended.set), timeout_s=0.2) as trial:
        with trial.paused():
            assert not ended.wait(0.5)
        assert not ended.wait(0.05)
        # What was left of the time goes on, and isn't given anew.
        assert ended.wait(0.5)


def test_a_try_that_ends_in_time_ends_no_process(uri: str) -> None:
    ended = threading.Event()
    with attempt(uri, 1, "frames", place(ended.set), timeout_s=0.1):
        pass
    assert not ended.wait(0.3)


def test_tries_of_lost_machines_do_not_count(uri: str) -> None:
    def die_at(node: str) -> None:
        # A process that dies leaves its try without a word.
        with attempt(uri, 2, "frames", Place(node=node, is_lost=lambda name: name == "spot")):
            record = storage.read_bytes(uri)
        storage.write_bytes(uri, record)

    for _ in range(4):
        die_at("spot")
    die_at("stable")
    die_at("stable")
    with pytest.raises(ClusterError, match="given up after 2 tries, the last failed with: the process died"):
        die_at("stable")
    assert [one["node"] for one in load_json(uri)["tries"]] == ["spot"] * 4 + ["stable"] * 2


def test_the_number_of_a_try_counts_all_of_them(uri: str) -> None:
    def fail() -> None:
        with attempt(uri, 3, "frames") as trial:
            raise RuntimeError(f"try {trial.number}")

    for number in (1, 2, 3):
        with pytest.raises(RuntimeError, match=f"try {number}"):
            fail()


@pytest.mark.parametrize(
    ("error", "is_final"),
    [(MediaError("damaged"), True), (ClusterError("given up"), True), (StorageError("reset by peer"), False)],
)
def test_storage_may_work_again(tmp_path: Path, error: MediaError | StorageError, is_final: bool) -> None:
    uri = str(tmp_path / "failed.json")
    assert publish_failure(uri, error) == f"{type(error).__name__}: {error}"
    assert load_json(uri) == {"error": f"{type(error).__name__}: {error}", "is_final": is_final}


def test_a_failure_that_cannot_be_noted_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(uri: str, data: bytes) -> None:
        raise DiskFullError(uri)

    monkeypatch.setattr(storage, "write_bytes", full)
    assert publish_failure(str(tmp_path / "failed.json"), MediaError("damaged")) == "MediaError: damaged"


def test_work_that_takes_every_machine_down_is_given_up(uri: str) -> None:
    lost = Place(node="spot", is_lost=lambda node: True)
    for number in range(1, 2 * (1 + LOST_RATIO) + 1):
        with attempt(uri, 2, "frames", lost) as trial:
            record = storage.read_bytes(uri)
            assert trial.number == number
        storage.write_bytes(uri, record)
    with (
        pytest.raises(ClusterError, match="frames was given up after 8 tries, in 8 of which the machine was lost"),
        attempt(uri, 2, "frames", lost),
    ):
        pytest.fail("the work must not start")


def test_a_process_ends_in_time_though_the_reason_cannot_be_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "NOTE_S", 0.05)
    ended, never = threading.Event(), threading.Event()
    with deadline.Deadline(0.05, ended.set, lambda reason: never.wait(60) and None):
        assert ended.wait(5)
    never.set()


def test_pauses_grow_and_then_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(attempts.time, "sleep", slept.append)
    monkeypatch.setattr(attempts, "RETRY_PAUSES_S", (5.0, 20.0))
    left = [StorageError("reset"), StorageError("reset"), StorageError("reset")]

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    assert retried(work, 4, "frames") == "done"
    assert slept == [5.0, 20.0, 20.0]


@pytest.mark.parametrize(
    ("error", "tries"), [(DiskFullError("full"), 1), (MediaError("odd"), 1), (StorageError("x"), 3)]
)
def test_only_storage_is_tried_again_and_not_for_ever(error: Exception, tries: int) -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        retried(work, 3, "frames")
    assert len(calls) == tries
