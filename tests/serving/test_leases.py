"""Claims: one worker a job, the next one after a crash, fair between owners, an end to what kills its workers."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamhead.serving.jobs import JobStore, Limits, NewJob
from dreamhead.serving.leases import HeldJob, LeaseLostError, Worker
from dreamhead.serving.records import Failure, Options, Progress, Result
from tests.racers import claim_all, processes

Clock = Any  # The fixture's own class; conftest modules can't be imported.

NEW = NewJob(owner="anna", video_uri="v.mp4", audio_uri="a.wav", options=Options(), content="c")
MANY = Limits(all_jobs=1000, jobs_of_one=1000)
RESULT = Result(output_uri="o.mp4", bytes=9, digest="d", frames=50, dubbed_frames=40, passed_through={"NO_FACE": 10})


def worker(store: JobStore, name: str) -> Worker:
    return Worker(store, name, lease_s=10, max_claims=3)


def claim(store: JobStore, name: str) -> HeldJob:
    held = worker(store, name).claim()
    assert held is not None
    return held


def test_a_job_is_worked_on_and_ends(store: JobStore) -> None:
    job_id = store.submit(NEW, MANY).record.id
    held = claim(store, "one")
    assert worker(store, "two").claim() is None
    assert store.read("anna", job_id).state == "running"
    assert held.renew(Progress(frames_done=20, frames=50, eta_s=3.0))
    assert store.read("anna", job_id).progress == Progress(frames_done=20, frames=50, eta_s=3.0)
    held.succeed(RESULT)
    record = store.read("anna", job_id)
    assert (record.state, record.result, record.lease) == ("succeeded", RESULT, None)
    assert (record.progress.frames_done, record.progress.eta_s) == (50, 0.0)
    assert store.active() == []


def test_a_failure_says_why(store: JobStore) -> None:
    job_id = store.submit(NEW, MANY).record.id
    claim(store, "one").fail(Failure(type="MediaError", detail="not a video"))
    record = store.read("anna", job_id)
    assert (record.state, record.failure) == ("failed", Failure(type="MediaError", detail="not a video"))


def test_another_worker_takes_over_only_after_the_lease(store: JobStore, clock: Clock) -> None:
    store.submit(NEW, MANY)
    first = claim(store, "one")
    clock.turn(9)
    assert first.renew(Progress())
    clock.turn(9)
    assert worker(store, "two").claim() is None
    clock.turn(2)
    second = claim(store, "two")
    with pytest.raises(LeaseLostError, match="taken over by another worker"):
        first.renew(Progress())
    with pytest.raises(LeaseLostError, match="taken over"):
        first.succeed(RESULT)
    assert second.renew(Progress())
    assert second.record.claims == 2


def test_a_worker_doesnt_mistake_its_second_claim_for_the_first(store: JobStore, clock: Clock) -> None:
    store.submit(NEW, MANY)
    first = claim(store, "one")
    first.release()
    second = claim(store, "one")
    with pytest.raises(LeaseLostError, match="taken over"):
        first.renew(Progress())
    assert second.renew(Progress())


def test_a_released_job_is_free_at_once_and_keeps_its_count(store: JobStore) -> None:
    store.submit(NEW, MANY)
    for _ in range(5):
        held = claim(store, "one")
        assert held.record.claims == 1
        held.release()
    assert store.active()[0].state == "queued"


def test_a_job_that_kills_its_workers_is_given_up(store: JobStore, clock: Clock) -> None:
    job_id = store.submit(NEW, MANY).record.id
    for index in range(3):
        assert claim(store, "one").record.claims == index + 1
        clock.turn(11)
    assert worker(store, "one").claim() is None
    record = store.read("anna", job_id)
    assert record.state == "failed"
    assert record.failure is not None
    assert record.failure.detail == "given up after 3 tries: whatever worked on it died each time"
    assert store.active() == []


def test_a_running_job_is_cancelled_by_its_worker(store: JobStore) -> None:
    job_id = store.submit(NEW, MANY).record.id
    held = claim(store, "one")
    cancelled = store.cancel("anna", job_id)
    assert (cancelled.state, cancelled.cancel_requested) == ("running", True)
    assert not held.renew(Progress(frames_done=1, frames=50))
    held.cancel()
    assert store.read("anna", job_id).state == "cancelled"


def test_a_cancelled_job_whose_worker_died_is_not_worked_on(store: JobStore, clock: Clock) -> None:
    job_id = store.submit(NEW, MANY).record.id
    claim(store, "one")
    store.cancel("anna", job_id)
    clock.turn(11)
    assert worker(store, "two").claim() is None
    assert store.read("anna", job_id).state == "cancelled"


def test_a_cancelled_job_isnt_given_back(store: JobStore) -> None:
    job_id = store.submit(NEW, MANY).record.id
    held = claim(store, "one")
    store.cancel("anna", job_id)
    held.renew(Progress())
    held.release()
    assert store.read("anna", job_id).state == "cancelled"


def test_owners_take_turns_and_their_jobs_keep_their_order(store: JobStore, clock: Clock) -> None:
    order = {}
    for owner in ("anna", "anna", "anna", "bert", "bert"):
        order[store.submit(replace(NEW, owner=owner), MANY).record.id] = f"{owner}{len(order)}"
        clock.turn(0.01)
    claimed = [order[claim(store, "one").record.id] for _ in range(5)]
    assert claimed == ["anna0", "bert3", "anna1", "bert4", "anna2"]


def test_threads_never_claim_the_same_job(store: JobStore, clock: Clock) -> None:
    ids = {store.submit(NEW, MANY).record.id for _ in range(8)}
    with ThreadPoolExecutor(4) as pool:
        claimed = [
            held.record.id
            for held in pool.map(lambda index: worker(store, f"w{index}").claim(), range(8))
            if held is not None
        ]
    assert len(set(claimed)) == len(claimed)
    rest = [held.record.id for held in iter(worker(store, "last").claim, None)]
    assert {*claimed, *rest} == ids
    assert len(claimed) + len(rest) == len(ids)


def test_processes_never_claim_the_same_job(tmp_path: Path) -> None:
    store = JobStore(str(tmp_path))
    ids = {store.submit(NEW, MANY).record.id for _ in range(30)}
    with processes(2) as pool:
        futures = [pool.submit(claim_all, store.uri, f"process{index}") for index in range(2)]
        one, two = (future.result() for future in futures)
    assert sorted([*one, *two]) == sorted(ids)
