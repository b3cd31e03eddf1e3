"""Claim jobs and take them through the engine, several at once, as long as this process lives."""

import asyncio
import logging
import time

from dreamhead.errors import DreamheadError, StorageError
from dreamhead.serving.engine import Engine
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.leases import HeldJob, LeaseLostError, Worker
from dreamhead.serving.records import Failure, JobRecord, Progress, Result

logger = logging.getLogger(__name__)

BEAT_S = 1.0
"""Seconds between records of progress, where there is some."""


class JobTimeoutError(DreamheadError):
    """A job has been worked on for longer than one may be."""


class Pace:
    """Frames rendered so far, and how long the rest will take at this pace."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: int | None = None
        self._done = self._frames = 0

    def report(self, done: int, frames: int) -> None:
        """Take note of frames that are rendered, and of all."""
        if self._first is None:
            # What an earlier try rendered says nothing about the pace of this one.
            self._first = done
        self._done, self._frames = done, frames

    def progress(self) -> Progress:
        """As it stands now."""
        fresh = self._done - (self._first or 0)
        pace = fresh / (time.monotonic() - self._began)
        eta_s = round((self._frames - self._done) / pace, 1) if fresh else None
        return Progress(frames_done=self._done, frames=self._frames, eta_s=eta_s)


class Dubber:
    """Works through the store's jobs; several of these, in as many processes, share them by their leases."""

    def __init__(
        self,
        store: JobStore,
        worker: Worker,
        engine: Engine,
        *,
        at_once: int,
        poll_s: float,
        job_timeout_s: float,
    ) -> None:
        self._store = store
        self._worker = worker
        self._engine = engine
        self._at_once = at_once
        self._poll_s = poll_s
        self._job_timeout_s = job_timeout_s
        self._woken = asyncio.Event()
        self._working: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """There may be a new job: look now."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; the jobs in hand are then given back, unfinished."""
        try:
            while True:
                await self._claim_as_many_as_fit()
                await self._rest()
        finally:
            for task in self._working:
                task.cancel()
            if self._working:
                await asyncio.wait(self._working)

    async def _claim_as_many_as_fit(self) -> None:
        try:
            while len(self._working) < self._at_once:
                held = await asyncio.to_thread(self._worker.claim)
                if held is None:
                    return
                task = asyncio.get_running_loop().create_task(self._work(held))
                self._working.add(task)
                task.add_done_callback(self._over)
        except StorageError as error:
            logger.warning("the queue can't be read, and is tried again: %s", error)

    async def _rest(self) -> None:
        woken = asyncio.get_running_loop().create_task(self._woken.wait())
        try:
            # `wait_for` may lose a cancellation that comes with the time-out (CPython issue 86296), and work for ever.
            await asyncio.wait({woken}, timeout=self._poll_s)
        finally:
            woken.cancel()
        self._woken.clear()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self.wake()
        if not task.cancelled() and (error := task.exception()):
            logger.error("a job was left alone, and is claimed again once its lease is over", exc_info=error)

    async def _work(self, held: HeldJob) -> None:
        """One job, from its claim to its end."""
        record, pace = held.record, Pace()
        logger.info("job %s: begun, claim %d", record.id, record.claims)
        job = record.to_job(self._store.result_uri(record.id))
        dub = asyncio.get_running_loop().create_task(self._engine.dub(job, pace.report, record.options.checkpoint))
        try:
            wanted = await self._hold(held, dub, pace)
        except asyncio.CancelledError:
            await _stop(dub)
            await asyncio.to_thread(held.release)
            logger.info("job %s: given back", record.id)
            raise
        except LeaseLostError as error:
            logger.warning("%s", error)
            await _stop(dub)
            return
        except JobTimeoutError as error:
            logger.warning("job %s: %s", record.id, error)
            await _stop(dub)
            await asyncio.to_thread(held.fail, Failure(type="TimeoutError", detail=str(error)))
            return
        await _stop(dub)
        await asyncio.to_thread(_end, held, dub if wanted else None)

    async def _hold(self, held: HeldJob, dub: "asyncio.Task[Result | Failure]", pace: Pace) -> bool:
        """Keep the lease until the work is done or isn't wanted any more; whether it was done."""
        recorded, renewed = held.record.progress, time.monotonic()
        while not dub.done():
            await asyncio.wait({dub}, timeout=BEAT_S)
            progress = pace.progress()
            is_news = (progress.frames_done, progress.frames) != (recorded.frames_done, recorded.frames)
            is_due = is_news or time.monotonic() - renewed > self._worker.beat_s
            try:
                wanted = await asyncio.to_thread(*((held.renew, progress) if is_due else (held.is_wanted,)))
            except StorageError as error:
                logger.warning("job %s: its lease can't be renewed, which is tried again: %s", held.record.id, error)
                continue
            if is_due:
                recorded, renewed = progress, time.monotonic()
            if dub.done():
                break
            if not wanted:
                return False
            if held.worked_s > self._job_timeout_s:
                raise JobTimeoutError(f"the job isn't done after {self._job_timeout_s:g} s of work; it is given up")
        return True


async def _stop(dub: "asyncio.Task[Result | Failure]") -> None:
    dub.cancel()
    await asyncio.wait({dub})


def _end(held: HeldJob, dub: "asyncio.Task[Result | Failure] | None") -> None:
    """Record how the job ended; without a task, it was cancelled."""
    if dub is None:
        held.cancel()
    elif error := dub.exception():
        # A defect of ours: the log tells us all, the client what it can use.
        logger.error("job %s failed", held.record.id, exc_info=error)
        held.fail(Failure(type="InternalError", detail=f"an internal error ({type(error).__name__}) ended this job"))
    else:
        _record(held, dub.result())
    logger.info("job %s: %s", held.record.id, held.record.state)


def _record(held: HeldJob, outcome: Result | Failure) -> None:
    if isinstance(outcome, Result):
        warnings = without_uris(held.record, outcome.warnings)
        held.succeed(outcome.model_copy(update={"warnings": warnings}))
    else:
        detail = without_uris(held.record, outcome.detail)
        held.fail(outcome.model_copy(update={"detail": detail}))


def without_uris(record: JobRecord, text: str) -> str:
    """The text with the inputs' names in the place of where they lie."""
    return text.replace(record.video_uri, "the video").replace(record.audio_uri, "the speech")
