"""What is removed, and when: old jobs, purged ones, lost uploads; nothing that is still used, and all in the end."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings
from dreamhead.errors import StorageError
from dreamhead.serving import purging
from dreamhead.serving.checkpoints import stage_arguments
from dreamhead.serving.dubber import Dubber
from dreamhead.serving.engine import Engine
from dreamhead.serving.jobs import JobStore, Limits, NewJob, created_at, utc_now
from dreamhead.serving.leases import Worker
from dreamhead.serving.purging import LATE_S, ORPHAN_S, Purges
from dreamhead.serving.records import Options, Result, curve_uri_of
from dreamhead.serving.sweeping import Sweeper
from dreamhead.serving.uses import Input, Inputs, Uses
from dreamhead.stages.opening import open_work
from dreamhead.stages.work import Work
from tests.tiny import tiny_checkpoint

# The fixtures' own classes; conftest modules can't be imported.
Clock = Any
Studio = Any
LocalStages = Any

MANY = Limits(all_jobs=1000, jobs_of_one=1000)
DAY_S = 24 * 3600.0


@pytest.fixture
def work(base: str, tmp_path: Path) -> Work:
    """A work directory below the store."""
    checkpoint = Checkpoint.load(str(tiny_checkpoint(tmp_path / "checkpoint")))
    return Work(storage.join(base, "work"), DubSettings(), checkpoint)


def sweeper(store: JobStore, work: Work, keep_days: float = 30) -> Sweeper:
    return Sweeper(store, work, keep_days)


def files_of(store: JobStore) -> list[str]:
    """All that the store holds, but for locks."""
    uris = [uri for uri in storage.list_files(store.uri) if not uri.endswith("/.lock")]
    return [uri for uri in uris if "/checkpoint/" not in uri]


def finished(store: JobStore, work: Work, upload: str = "u", **values: Any) -> str:
    """A job that was uploaded and is over, with all that one leaves behind."""
    uris = {name: store.upload_uri(upload, name) for name in ("video", "audio")}
    given = {"owner": "anna", "options": Options(webhook_url="https://h.example/"), "content": "c"} | values
    new = NewJob(video_uri=uris["video"], audio_uri=uris["audio"], **given)
    job_id = store.submit(new, MANY).record.id
    held = Worker(store, "w", lease_s=60, max_claims=3).claim()
    assert held is not None
    folder = storage.join(work.uri, "jobs", job_id)
    result = store.result_uri(job_id)
    for uri in (*uris.values(), result, curve_uri_of(result), f"{folder}/a/chunk.json", f"{folder}/a/chunk.mp4"):
        storage.write_bytes(uri, b"x")
    video = Input(kind="video", digest="vvv", facts=(f"{work.uri}/inputs/v.npz",))
    audio = Input(kind="audio", digest=f"aaa{upload}", facts=())
    Uses(store.uri, store.clock).add(job_id, Inputs(inputs=(video, audio)))
    for uri in (f"{work.uri}/analysis/vvv/x/shot.npz", f"{work.uri}/speech/aaa{upload}/x/0.npz", *video.facts):
        storage.write_bytes(uri, b"x")
    counts: dict[str, Any] = {"frames": 1, "dubbed_frames": 1, "passed_through": {}}
    held.succeed(Result(output_uri=store.result_uri(job_id), bytes=1, digest="d", **counts))
    return job_id


def test_a_job_is_removed_when_it_was_over_for_long(store: JobStore, work: Work, clock: Clock) -> None:
    job_id = finished(store, work, idempotency_key="order 66")
    assert abs(created_at(job_id) - clock()) < timedelta(seconds=1)
    before = files_of(store)
    clock.turn(29.9 * DAY_S)
    sweeper(store, work).sweep(find_old=True)
    assert files_of(store) == before
    clock.turn(0.2 * DAY_S)
    sweeper(store, work, keep_days=0).sweep(find_old=True)
    assert files_of(store) == before
    sweeper(store, work).sweep(find_old=True)
    assert store.page("anna", 10) == ([], "")
    assert [uri.split("/")[-2] for uri in files_of(store)] == ["inputs", "purges"]
    clock.turn(LATE_S)
    sweeper(store, work).sweep(find_old=False)
    assert files_of(store) == []


def test_jobs_that_go_on_are_never_old(store: JobStore, work: Work, clock: Clock) -> None:
    new = NewJob(owner="anna", video_uri="v.mp4", audio_uri="a.wav", options=Options(), content="c")
    waits, runs = (store.submit(new, MANY).record.id for _ in range(2))
    assert Worker(store, "w", lease_s=60, max_claims=3).claim() is not None
    clock.turn(400 * DAY_S)
    sweeper(store, work).sweep(find_old=True)
    assert {record.id for record in store.active()} == {waits, runs}


def test_what_jobs_share_goes_with_the_last_one(store: JobStore, work: Work) -> None:
    first, second = finished(store, work, "one"), finished(store, work, "two")
    Purges(store).begin(store.read("anna", first))
    sweeper(store, work).sweep(find_old=False)
    left = "\n".join(files_of(store))
    assert "/analysis/vvv/" in left
    assert "/inputs/v.npz" in left
    assert "/speech/aaaone/" not in left
    assert "/speech/aaatwo/" in left
    assert f"/jobs/{first}/" not in left
    assert "/uploads/one/" not in left
    Purges(store).begin(store.read("anna", second))
    sweeper(store, work).sweep(find_old=False)
    assert "/work/" not in "\n".join(files_of(store))


def test_files_that_a_request_named_stay(store: JobStore, work: Work, base: str, clock: Clock) -> None:
    theirs = storage.join(base, "their", "clip.mp4")
    storage.write_bytes(theirs, b"x")
    new = NewJob(owner="anna", video_uri=theirs, audio_uri=theirs, options=Options(), content="c")
    store.cancel("anna", store.submit(new, MANY).record.id)
    clock.turn(31 * DAY_S)
    for _ in range(2):
        sweeper(store, work).sweep(find_old=True)
        clock.turn(LATE_S)
    assert files_of(store) == [theirs]


def test_what_is_written_late_is_removed_too(store: JobStore, work: Work, clock: Clock) -> None:
    job_id = finished(store, work)
    Purges(store).begin(store.read("anna", job_id))
    sweeper(store, work).sweep(find_old=False)
    late = [f"{work.uri}/jobs/{job_id}/a/chunk-2.mp4", store.result_uri(job_id)]
    for uri in late:
        storage.write_bytes(uri, b"x")
    clock.turn(LATE_S - 1)
    sweeper(store, work).sweep(find_old=False)
    assert set(late) <= set(files_of(store))
    clock.turn(2)
    sweeper(store, work).sweep(find_old=False)
    assert files_of(store) == []


def test_a_removal_that_died_anywhere_is_gone_on_with(
    store: JobStore, work: Work, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_many = storage.delete_many
    for survives in range(0, 25, 8 if storage.is_remote(store.uri) else 1):
        job_id = finished(store, work, f"u{survives}")
        left = survives

        def dies(uris: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise StorageError("killed")
            delete_many(uris)

        with monkeypatch.context() as patch:
            patch.setattr(storage, "delete_many", dies)
            try:
                Purges(store).begin(store.read("anna", job_id))
                sweeper(store, work).sweep(find_old=False)
            except StorageError:
                pass
        for _ in range(2):
            clock.turn(max(LATE_S, purging.CLAIM_S))
            sweeper(store, work).sweep(find_old=False)
        assert files_of(store) == [], f"it died after {survives} deletions"
    assert left > 0, "the last one was to survive"


def test_several_sweepers_remove_each_job_once(store: JobStore, work: Work, clock: Clock) -> None:
    for index in range(6):
        finished(store, work, f"u{index}")
    clock.turn(31 * DAY_S)
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: sweeper(store, work).sweep(find_old=True), range(3)))
        clock.turn(LATE_S)
    assert files_of(store) == []


def test_a_key_may_be_used_again_after_its_job_is_gone(store: JobStore, work: Work, clock: Clock) -> None:
    first = finished(store, work, idempotency_key="order 66")
    Purges(store).begin(store.read("anna", first))
    sweeper(store, work).sweep(find_old=False)
    second = finished(store, work, idempotency_key="order 66")
    assert second != first
    clock.turn(LATE_S)
    sweeper(store, work).sweep(find_old=False)
    new = NewJob(
        owner="anna",
        video_uri="v",
        audio_uri="a",
        options=Options(),
        content="c",
        idempotency_key="order 66",
    )
    assert store.submit(new, MANY).record.id == second


def test_an_upload_whose_request_died_is_removed(store: JobStore, work: Work, clock: Clock) -> None:
    used = finished(store, work, "used")
    for upload in ("used", "lost"):
        storage.write_bytes(store.incoming_uri("anna", upload), clock().isoformat().encode())
    lost = store.upload_uri("lost", "video.png")
    storage.write_bytes(lost, b"x")
    clock.turn(ORPHAN_S - 1)
    sweeper(store, work).sweep(find_old=True)
    assert storage.exists(lost), "its request may still go on"
    clock.turn(2)
    sweeper(store, work).sweep(find_old=True)
    assert not storage.exists(lost)
    assert storage.exists(store.read("anna", used).video_uri)
    assert storage.list_files(storage.join(store.uri, "incoming")) == []


def test_a_job_waits_while_what_it_would_use_is_removed(tmp_path: Path) -> None:
    uses = Uses(str(tmp_path))
    one = Input(kind="video", digest="v", facts=())
    first, second = ("0" * 42 + digit for digit in "12")
    uses.add(first, Inputs(inputs=(one,)))
    order: list[str] = []
    began = threading.Event()

    def remove(removed: Input) -> None:
        began.set()
        adding.join(0.5)
        order.append(f"removed {removed.digest}")

    def add() -> None:
        began.wait()
        uses.add(second, Inputs(inputs=(one,)))
        order.append("added")

    adding = threading.Thread(target=add)
    adding.start()
    uses.drop(first, remove)
    adding.join()
    assert order == ["removed v", "added"]
    uses.drop(first, remove)
    assert order == ["removed v", "added"], "the second job uses it now"


def test_whoever_died_over_a_removal_is_not_waited_for(tmp_path: Path) -> None:
    uses, later = Uses(str(tmp_path)), Uses(str(tmp_path), lambda: utc_now() + timedelta(seconds=601))
    one = Input(kind="video", digest="v", facts=())
    first, second = ("0" * 42 + digit for digit in "12")
    uses.add(first, Inputs(inputs=(one,)))
    with pytest.raises(ZeroDivisionError):
        uses.drop(first, lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    later.add(second, Inputs(inputs=(one,)))


def test_a_dubbed_job_leaves_nothing_and_the_other_language_is_whole(studio: Studio, stages: LocalStages) -> None:
    store = JobStore(studio.settings.storage)
    arguments = stage_arguments(studio.settings)
    opened, _ = open_work(arguments.settings, arguments.checkpoint_uri, arguments.work_uri)

    async def dubbed(new: NewJob) -> str:
        job_id = store.submit(new, MANY).record.id
        worker = Worker(store, "w", lease_s=10, max_claims=3)
        dubber = Dubber(store, worker, Engine(studio.settings, stages), at_once=1, poll_s=0.05, job_timeout_s=600)
        task = asyncio.create_task(dubber.run())
        while not store.read("anna", job_id).is_over:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task})
        assert store.read("anna", job_id).state == "succeeded"
        return job_id

    first = asyncio.run(dubbed(studio.new_job()))
    second = asyncio.run(dubbed(replace(studio.new_job(), options=Options(seed=1))))
    Purges(store).begin(store.read("anna", first))
    sweeper(store, opened).sweep(find_old=False)
    assert storage.list_files(opened.video_dir("")) != []
    assert storage.list_files(opened.speech_dir("")) != []
    third = asyncio.run(dubbed(replace(studio.new_job(), options=Options(seed=2))))
    for job_id in (second, third):
        Purges(store).begin(store.read("anna", job_id))
        sweeper(store, opened).sweep(find_old=False)
    assert storage.list_files(studio.settings.work_uri) == []
    assert storage.exists(studio.video_uri)


def test_the_sweeper_lives_through_broken_storage(
    store: JobStore, work: Work, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr("dreamhead.serving.sweeping.LOOK_S", 0.02)
    finished(store, work)
    clock.turn(31 * DAY_S)
    pending = Purges.pending
    failures = iter([True, True])

    def fails(self: Purges) -> list[str]:
        if next(failures, False):
            raise StorageError("down")
        return pending(self)

    monkeypatch.setattr(Purges, "pending", fails)

    async def run() -> None:
        task = asyncio.create_task(sweeper(store, work).run())
        while len(files_of(store)) > 2:
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(asyncio.wait_for(run(), 60))
