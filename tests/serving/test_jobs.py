"""The store of jobs: who sees what, in which order, how often a request makes a job, and how one ends."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from dreamhead import storage
from dreamhead.errors import StorageError
from dreamhead.serving.jobs import (
    JobStore,
    KeyReusedError,
    Limits,
    NewJob,
    QueueFullError,
    UnknownJobError,
    is_id,
    new_id,
    utc_now,
)
from dreamhead.serving.leases import Worker
from dreamhead.serving.records import Options

Clock = Any  # The fixture's own class; conftest modules can't be imported.

NEW = NewJob(owner="anna", video_uri="v.mp4", audio_uri="a.wav", options=Options(seed=3), content="c")
MANY = Limits(all_jobs=1000, jobs_of_one=1000)


def test_a_job_is_there_once_it_was_submitted(store: JobStore) -> None:
    submitted = store.submit(NEW, MANY)
    record = JobStore(store.uri, store.clock).read("anna", submitted.record.id)
    assert record == submitted.record
    assert not submitted.is_replay
    assert (record.state, record.owner, record.video_uri, record.options.seed) == ("queued", "anna", "v.mp4", 3)
    assert record.created_at == record.updated_at == store.clock()
    assert [active.id for active in store.active()] == [record.id]


def test_ids_cant_be_guessed_and_sort_the_newest_first() -> None:
    now = utc_now()
    ids = [new_id(now) for _ in range(100)]
    assert all(map(is_id, ids))
    assert len({job_id[11:] for job_id in ids}) == 100
    assert not any(map(is_id, ["", "../../etc/passwd", ids[0] + "0", ids[0][:-1] + "/", ids[0].upper() + "G"]))


@pytest.mark.parametrize("job_id", ["nothing", "../owners/anna", "0" * 43])
def test_a_job_that_isnt_there_is_unknown(store: JobStore, job_id: str) -> None:
    with pytest.raises(UnknownJobError, match="there is no job"):
        store.read("anna", job_id)


def test_nobody_sees_or_cancels_another_owners_job(store: JobStore) -> None:
    record = store.submit(NEW, MANY).record
    for action in (store.read, store.cancel):
        with pytest.raises(UnknownJobError, match=f"there is no job {record.id}"):
            action("bert", record.id)
    assert store.page("bert", 10) == ([], "")
    assert store.read("anna", record.id).state == "queued"


def test_pages_go_from_the_newest_to_the_oldest(store: JobStore, clock: Clock) -> None:
    ids = []
    for _ in range(5):
        ids.append(store.submit(NEW, MANY).record.id)
        clock.turn(0.01)
        store.submit(replace(NEW, owner="bert"), MANY)
        clock.turn(0.01)
    pages, after = [], ""
    while True:
        records, after = store.page("anna", 2, after)
        pages.append([record.id for record in records])
        if not after:
            break
    assert pages == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
    assert store.page("anna", 5)[1] == ""


def test_the_same_key_makes_one_job(store: JobStore) -> None:
    keyed = replace(NEW, idempotency_key="order 66")
    first = store.submit(keyed, MANY)
    full = Limits(all_jobs=1, jobs_of_one=1)
    again = store.submit(keyed, full)
    assert (first.is_replay, again.is_replay) == (False, True)
    assert again.record.id == first.record.id
    with pytest.raises(KeyReusedError, match="used with another request before"):
        store.submit(replace(keyed, content="d"), MANY)
    assert store.submit(replace(keyed, owner="bert"), MANY).record.id != first.record.id
    assert len(store.page("anna", 10)[0]) == 1


def test_the_same_key_at_the_same_moment_makes_one_job(store: JobStore) -> None:
    keyed = replace(NEW, idempotency_key="order 66")
    with ThreadPoolExecutor(8) as pool:
        submitted = list(pool.map(lambda _: store.submit(keyed, MANY), range(8)))
    assert len({one.record.id for one in submitted}) == 1
    assert [one.is_replay for one in submitted].count(False) == 1
    assert len(store.active()) == 1


def test_a_key_whose_job_was_never_written_makes_it_later(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = replace(NEW, idempotency_key="order 66")
    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "_queue", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.submit(keyed, MANY)
    assert store.page("anna", 10) == ([], "")
    record = store.submit(keyed, MANY).record
    assert store.submit(keyed, MANY).record.id == record.id
    assert [active.id for active in store.active()] == [record.id]


def test_full_queues_take_no_more(store: JobStore) -> None:
    limits = Limits(all_jobs=3, jobs_of_one=2)
    first = store.submit(NEW, limits).record
    store.submit(NEW, limits)
    with pytest.raises(QueueFullError, match="2 of your jobs are waiting or running"):
        store.submit(NEW, limits)
    store.submit(replace(NEW, owner="bert"), limits)
    with pytest.raises(QueueFullError, match="3 jobs are waiting or running"):
        store.submit(replace(NEW, owner="carl"), limits)
    store.cancel("anna", first.id)
    store.submit(NEW, limits)


def test_a_waiting_job_is_cancelled_at_once_and_a_finished_one_stays(store: JobStore) -> None:
    record = store.submit(NEW, MANY).record
    cancelled = store.cancel("anna", record.id)
    assert (cancelled.state, cancelled.revision) == ("cancelled", 1)
    assert store.active() == []
    assert store.cancel("anna", record.id) == cancelled
    assert Worker(store, "w", lease_s=10, max_claims=3).claim() is None


def test_changes_of_many_threads_all_count(store: JobStore) -> None:
    job_id = store.submit(NEW, MANY).record.id

    def claim_more(_: int) -> None:
        store.update(job_id, lambda record: record.model_copy(update={"claims": record.claims + 1}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(claim_more, range(12)))
    record = store.read("anna", job_id)
    assert (record.claims, record.revision) == (12, 12)


def test_what_a_dead_process_left_is_tidied(store: JobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    over = store.submit(NEW, MANY).record
    mark = storage.join(store.uri, "active", "anna", over.id)
    content = storage.read_bytes(mark)
    store.cancel("anna", over.id)
    storage.write_bytes(mark, content)
    stray = storage.join(store.uri, "active", "anna", new_id(clock()))
    storage.write_bytes(stray, content)
    assert store.active() == []
    assert not storage.exists(mark)
    assert storage.exists(stray), "it may be a job that is being submitted"
    clock.turn(3601)
    assert store.active() == []
    assert not storage.exists(stray)


def test_a_record_that_cant_be_read_keeps_no_other_back(store: JobStore) -> None:
    bad, good = (store.submit(NEW, MANY).record for _ in range(2))
    storage.write_bytes(storage.join(store.uri, "jobs", f"{bad.id}.json"), b'{"id": 1}')
    assert [record.id for record in store.active()] == [good.id]
    with pytest.raises(StorageError, match=f"{bad.id}.json: not a job of this version of DreamHead: "):
        store.read("anna", bad.id)
