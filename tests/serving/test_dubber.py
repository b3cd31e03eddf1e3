"""Jobs from the store through the real stages: the batch job's output, progress, cancel, take-over, failures."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamhead import storage
from dreamhead.media.audio import write_wav
from dreamhead.serving import dubber as dubber_module
from dreamhead.serving import engine as engine_module
from dreamhead.serving.dubber import Dubber
from dreamhead.serving.engine import Engine
from dreamhead.serving.jobs import JobStore, Limits
from dreamhead.serving.leases import Worker
from dreamhead.serving.records import JobRecord, Options

# The fixtures' own classes; conftest modules can't be imported.
Studio = Any
LocalStages = Any

MANY = Limits(all_jobs=1000, jobs_of_one=1000)
DEADLINE_S = 60


@pytest.fixture(autouse=True)
def _quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubber_module, "BEAT_S", 0.05)


@pytest.fixture
def store(studio: Studio) -> JobStore:
    """On a real clock."""
    return JobStore(studio.settings.storage)


@asynccontextmanager
async def dubbing(store: JobStore, stages: LocalStages, studio: Studio, name: str = "one") -> AsyncIterator[Dubber]:
    """A dubber that works until the block's end."""
    settings = studio.settings
    worker = Worker(store, name, lease_s=settings.lease_s, max_claims=settings.max_claims)
    dubber = Dubber(
        store,
        worker,
        Engine(settings, stages),
        at_once=settings.jobs_at_once,
        poll_s=settings.poll_s,
        job_timeout_s=settings.job_timeout_s,
    )
    task = asyncio.create_task(dubber.run())
    try:
        yield dubber
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(condition: Callable[[], bool]) -> None:
    """Wait; a condition that never holds fails the test."""
    for _ in range(DEADLINE_S * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"it didn't come about within {DEADLINE_S} s")


async def ended(store: JobStore, job_id: str) -> JobRecord:
    """The job's record, once it is over."""
    await until(lambda: store.read("anna", job_id).is_over)
    return store.read("anna", job_id)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run one test's coroutine."""
    asyncio.run(work())  # type: ignore[arg-type]


def test_a_job_gives_the_batch_jobs_output(studio: Studio, stages: LocalStages, store: JobStore) -> None:
    async def work() -> None:
        job_id = store.submit(studio.new_job(), MANY).record.id
        async with dubbing(store, stages, studio):
            record = await ended(store, job_id)
        assert (record.state, record.failure) == ("succeeded", None)
        assert record.result is not None
        assert (record.result.frames, record.result.dubbed_frames) == (24, 24)
        output = Path(record.result.output_uri).read_bytes()
        assert output == studio.dub_directly("direct")
        assert (record.result.bytes, record.result.output_uri) == (len(output), store.result_uri(job_id))
        assert record.result.digest == storage.content_digest(record.result.output_uri)
        assert sorted(stages.rendered) == [0, 6, 12, 18]
        curves = json.loads(storage.read_bytes(record.result.curve_uri))
        assert curves["times_s"] == [round(frame / 25, 4) for frame in range(24)]
        assert sum(value is not None for value in curves["new"]) == 24

    run(work)


def test_a_job_whose_curves_cant_be_made_succeeds_without(
    studio: Studio, stages: LocalStages, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise storage.StorageError("gone")

    async def work() -> None:
        monkeypatch.setattr(engine_module, "save_lips", fails)
        job_id = store.submit(studio.new_job(), MANY).record.id
        async with dubbing(store, stages, studio):
            record = await ended(store, job_id)
        assert record.state == "succeeded"
        assert not storage.exists(record.result.curve_uri)

    run(work)


def test_progress_is_told_and_a_few_chunks_are_in_flight(studio: Studio, stages: LocalStages, store: JobStore) -> None:
    async def work() -> None:
        studio.settings = studio.settings.model_copy(update={"chunks_at_once": 2})
        stages.allowed = asyncio.Semaphore(0)
        job_id = store.submit(studio.new_job(), MANY).record.id
        async with dubbing(store, stages, studio):
            await until(lambda: stages.most_at_once == 2)
            await until(lambda: store.read("anna", job_id).progress.frames == 24)
            assert store.read("anna", job_id).progress.eta_s is None
            stages.allowed.release()
            await until(lambda: store.read("anna", job_id).progress.frames_done > 0)
            record = store.read("anna", job_id)
            assert (record.state, record.progress.frames_done, record.progress.frames) == ("running", 6, 24)
            assert record.progress.eta_s is not None
            assert record.progress.eta_s > 0
            for _ in range(3):
                stages.allowed.release()
            assert (await ended(store, job_id)).progress.frames_done == 24
        assert stages.most_at_once == 2

    run(work)


def test_a_cancelled_job_stops_and_renders_no_other_chunk(studio: Studio, stages: LocalStages, store: JobStore) -> None:
    async def work() -> None:
        stages.allowed = asyncio.Semaphore(1)
        job_id = store.submit(studio.new_job(), MANY).record.id
        async with dubbing(store, stages, studio):
            await until(lambda: store.read("anna", job_id).progress.frames_done > 0)
            assert store.cancel("anna", job_id).state == "running"
            assert (await ended(store, job_id)).state == "cancelled"
            for _ in range(3):
                stages.allowed.release()
            await asyncio.sleep(0.2)
        assert len(stages.rendered) == 1
        assert not storage.exists(store.result_uri(job_id))

    run(work)


def test_a_dubber_that_stops_gives_its_jobs_back_and_the_next_renders_only_the_rest(
    studio: Studio, stages: LocalStages, store: JobStore
) -> None:
    async def work() -> None:
        stages.allowed = asyncio.Semaphore(2)
        job_id = store.submit(studio.new_job(), MANY).record.id
        async with dubbing(store, stages, studio):
            await until(lambda: len(stages.rendered) == 2)
        record = store.read("anna", job_id)
        assert (record.state, record.lease, record.claims) == ("queued", None, 0)
        stages.allowed = asyncio.Semaphore(1000)
        async with dubbing(store, stages, studio, "two"):
            record = await ended(store, job_id)
        assert record.state == "succeeded"
        assert sorted(stages.rendered) == [0, 6, 12, 18]
        assert Path(record.result.output_uri).read_bytes() == studio.dub_directly("direct")

    run(work)


def test_a_job_of_a_dubber_that_died_is_taken_over(studio: Studio, stages: LocalStages, store: JobStore) -> None:
    async def work() -> None:
        job_id = store.submit(studio.new_job(), MANY).record.id
        dead = Worker(store, "dead", lease_s=0.5, max_claims=3).claim()
        assert dead is not None
        async with dubbing(store, stages, studio):
            record = await ended(store, job_id)
        assert (record.state, record.claims) == ("succeeded", 2)

    run(work)


def test_whoever_lost_its_lease_leaves_the_job_alone(studio: Studio, stages: LocalStages, store: JobStore) -> None:
    async def work() -> None:
        stages.allowed = asyncio.Semaphore(0)
        job_id = store.submit(studio.new_job(), MANY).record.id
        async with dubbing(store, stages, studio):
            await until(lambda: stages.most_at_once > 0)
            other = store.read("anna", job_id).lease.model_copy(update={"holder": "two", "token": "another"})
            store.update(job_id, lambda record: record.model_copy(update={"lease": other}))
            await asyncio.sleep(0.3)
            for _ in range(4):
                stages.allowed.release()
            await asyncio.sleep(0.3)
            assert stages.rendered == []
        assert store.read("anna", job_id).lease.token == "another"

    run(work)


@pytest.mark.parametrize(
    ("change", "kind", "detail"),
    [
        ({"video_uri": "/nowhere/clip.mp4"}, "InputError", "video_uri: the video: can't look up: No such file"),
        (
            {"options": Options(on_longer_audio="error"), "audio_uri": "long"},
            "InputError",
            "the speech is 1.04 s longer",
        ),
        (
            {"options": Options(on_longer_audio="freeze"), "audio_uri": "long"},
            "InputError",
            "at most 1.5 s are allowed",
        ),
    ],
)
def test_a_job_that_cant_be_dubbed_fails_with_the_reason(
    studio: Studio,
    stages: LocalStages,
    store: JobStore,
    make_tone: Callable[..., str],
    change: dict[str, Any],
    kind: str,
    detail: str,
) -> None:
    async def work() -> None:
        long = {"audio_uri": make_tone("long.wav", 2.0)} if "audio_uri" in change else {}
        job_id = store.submit(studio.new_job(**change | long), MANY).record.id
        studio.settings = studio.settings.model_copy(update={"max_duration_s": 1.5})
        async with dubbing(store, stages, studio):
            record = await ended(store, job_id)
        assert record.state == "failed"
        assert record.failure is not None
        assert record.failure.type == kind
        assert detail in record.failure.detail
        assert str(studio.folder) not in record.failure.detail

    run(work)


def test_warnings_name_the_inputs_and_not_where_they_lie(studio: Studio, store: JobStore, stages: LocalStages) -> None:
    silent = studio.folder / "silent.wav"
    write_wav(silent, np.zeros(16_000, np.float32), 16_000)

    async def work() -> None:
        async with dubbing(store, stages, studio):
            record = await ended(store, store.submit(studio.new_job(audio_uri=str(silent)), MANY).record.id)
        assert record.result is not None
        assert "the speech: the speech is silent all through" in record.result.warnings
        assert str(studio.folder) not in record.result.warnings

    run(work)


def test_a_defect_fails_its_job_and_no_other(studio: Studio, stages: LocalStages, store: JobStore) -> None:
    async def work() -> None:
        async with dubbing(store, stages, studio):
            stages.defect = "secret: 42"
            failed = await ended(store, store.submit(studio.new_job(), MANY).record.id)
            stages.defect = ""
            succeeded = await ended(store, store.submit(studio.new_job(), MANY).record.id)
        assert failed.state == "failed"
        assert failed.failure.detail == "an internal error (ZeroDivisionError) ended this job"
        assert succeeded.state == "succeeded"

    run(work)


def test_a_job_that_takes_too_long_is_given_up_whoever_worked_on_it(
    studio: Studio, stages: LocalStages, store: JobStore
) -> None:
    async def work() -> None:
        stages.allowed = asyncio.Semaphore(0)
        job_id = store.submit(studio.new_job(), MANY).record.id
        async with dubbing(store, stages, studio):
            await until(lambda: stages.most_at_once > 0)
        # The time of the first worker counts, that of waiting for the second doesn't.
        worked_s = store.read("anna", job_id).worked_s
        assert worked_s > 0
        await asyncio.sleep(0.5)
        assert store.read("anna", job_id).worked_s == worked_s
        studio.settings = studio.settings.model_copy(update={"job_timeout_s": worked_s + 0.3})
        async with dubbing(store, stages, studio, "two"):
            record = await ended(store, job_id)
            stages.allowed.release()
            other = store.submit(studio.new_job(), MANY).record.id
            stages.allowed = asyncio.Semaphore(1000)
            await until(lambda: store.read("anna", other).state == "running")
        assert record.state == "failed"
        assert record.failure.type == "TimeoutError"
        assert record.failure.detail.startswith("the job isn't done after ")
        assert record.worked_s >= worked_s + 0.3

    run(work)


def test_storage_that_fails_for_a_while_ends_nothing(
    studio: Studio, stages: LocalStages, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise storage.StorageError("down")

    async def work() -> None:
        stages.allowed = asyncio.Semaphore(1)
        job_id = store.submit(studio.new_job(), MANY).record.id
        async with dubbing(store, stages, studio):
            await until(lambda: len(stages.rendered) == 1)
            with monkeypatch.context() as patch:
                patch.setattr(JobStore, "update", fails)
                patch.setattr(JobStore, "active", fails)
                await asyncio.sleep(0.3)
            for _ in range(3):
                stages.allowed.release()
            assert (await ended(store, job_id)).state == "succeeded"

    run(work)


@pytest.mark.parametrize("turns", range(4))
def test_a_dubber_that_is_woken_and_cancelled_at_once_ends(
    studio: Studio, stages: LocalStages, store: JobStore, turns: int
) -> None:
    async def work() -> None:
        worker = Worker(store, "one", lease_s=2, max_claims=3)
        dubber = Dubber(store, worker, Engine(studio.settings, stages), at_once=1, poll_s=60, job_timeout_s=60)
        task = asyncio.create_task(dubber.run())
        await asyncio.sleep(0.1)
        dubber.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=10)
        assert done

    run(work)
