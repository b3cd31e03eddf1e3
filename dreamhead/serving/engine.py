"""One job through the batch job's own stages; everything that the service knows of them is here."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol

from dreamhead.errors import DreamheadError, InputError, StorageError
from dreamhead.records import Chunk, Job, Span
from dreamhead.serving.checkpoints import Works
from dreamhead.serving.records import Failure, Result
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.uses import Input, Inputs, Uses
from dreamhead.stages import results
from dreamhead.stages.finalize import finalize
from dreamhead.stages.first_look import look_at_inputs
from dreamhead.stages.prepare import PreparedJob, prepare, with_digests
from dreamhead.stages.results import Tally
from dreamhead.stages.review.lips import save_lips
from dreamhead.stages.source import facts_of_audio, facts_of_video
from dreamhead.stages.work import Work
from dreamhead.storage import content_digest, exists, size

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]
"""Called with the output's frames that are rendered, and all of them."""


class Stages(Protocol):
    """The stages, wherever they run. A failure is the `error` of a chunk."""

    def analyse(self, span: Span, checkpoint: str) -> AsyncIterator[Chunk]:
        """The span's chunks, as they are found, with the weights of that name."""
        ...

    async def render(self, chunk: Chunk, checkpoint: str) -> Chunk:
        """The chunk with its landmarks made and its frames rendered, with the weights of that name."""
        ...


class Engine:
    """Dubs jobs; what an earlier try published is not made again."""

    def __init__(self, settings: ServingSettings, stages: Stages) -> None:
        self._works = Works(settings)
        # Weights that can't be read are told at the start.
        self.work, _ = self._works.open("")
        """Names of the work directory's files, with the service's own weights."""
        self._uses = Uses(settings.storage)
        self._stages = stages
        self._chunks_at_once = settings.chunks_at_once
        self._max_duration_s = settings.max_duration_s

    async def dub(self, job: Job, report: Report, checkpoint: str = "") -> Result | Failure:
        """Publish the job's output, made with the weights of that name, "" being the service's own.

        A job that is cancelled leaves its chunks in flight to their end.
        """
        try:
            work, digest = await asyncio.to_thread(self._works.open, checkpoint)
            prepared = await asyncio.to_thread(self._prepare, job, work)
            self._check_duration(prepared)
        except DreamheadError as error:
            return _outcome(results.failed(job, error))
        if prepared.result is not None:
            return await asyncio.to_thread(_ended, prepared.job, work, prepared.result)
        failure, tally = await self._render(prepared, report, checkpoint)
        if failure:
            return _outcome(results.failed(prepared.job, failure, tally))
        row = await asyncio.to_thread(finalize, prepared, work, digest, tally)
        return await asyncio.to_thread(_ended, prepared.job, work, row)

    def _prepare(self, job: Job, work: Work) -> PreparedJob:
        job = with_digests(job, work)
        video = Input(kind="video", digest=job.video_digest, facts=tuple(facts_of_video(job, work)))
        audio = Input(kind="audio", digest=job.audio_digest, facts=tuple(facts_of_audio(job, work)))
        self._uses.add(job.job_id, Inputs(inputs=(video, audio)))
        # A crash here would take along the other jobs that this process holds.
        look_at_inputs(job, work)
        return prepare(job, work)

    def _check_duration(self, prepared: PreparedJob) -> None:
        if prepared.duration_s > self._max_duration_s:
            raise InputError(
                f"the output would last {prepared.duration_s:.1f} s; at most {self._max_duration_s:g} s are allowed"
            )

    async def _render(self, prepared: PreparedJob, report: Report, checkpoint: str) -> tuple[str, Tally]:
        """Render what is missing, up to the first failure, whose text comes back."""
        flight = _Flight(self._stages, checkpoint, self._chunks_at_once)
        frames_done, tally = prepared.frames_done, Tally()
        report(frames_done, prepared.frames)
        try:
            async with aclosing(flight.rendered(prepared.spans)) as rendered:
                async for chunk in rendered:
                    tally = tally.plus(chunk)
                    if chunk.error:
                        return chunk.error, tally
                    # A chunk of an earlier try, in a span that isn't whole, comes by as well.
                    frames_done += (chunk.stop - chunk.start) * (chunk.attempt > 0)
                    report(frames_done, prepared.frames)
        finally:
            flight.stop()
        return "", tally


class _Flight:
    """The chunks of one job that are being worked on."""

    def __init__(self, stages: Stages, checkpoint: str, at_once: int) -> None:
        self._stages, self._checkpoint = stages, checkpoint
        self._room = asyncio.Semaphore(at_once)
        self._tasks: set[asyncio.Task[None]] = set()
        self._rendered: asyncio.Queue[Chunk | None] = asyncio.Queue()

    async def rendered(self, spans: tuple[Span, ...]) -> AsyncGenerator[Chunk, None]:
        """The chunks of all spans, as they are rendered; what goes wrong in a stage that isn't ours is raised."""
        walk = self._start(self._walk(spans))
        walk.add_done_callback(lambda _: self._rendered.put_nowait(None))
        while (chunk := await self._rendered.get()) is not None:
            yield chunk
        await walk

    def stop(self) -> None:
        """Ask for nothing more."""
        for task in self._tasks:
            task.cancel()

    async def _walk(self, spans: tuple[Span, ...]) -> None:
        pending: list[asyncio.Task[None]] = []
        for span in spans:
            async for chunk in self._stages.analyse(span, self._checkpoint):
                await self._room.acquire()
                pending.append(self._start(self._render(chunk)))
        await asyncio.gather(*pending)

    async def _render(self, chunk: Chunk) -> None:
        try:
            is_settled = bool(chunk.error or chunk.chunk_uri)
            self._rendered.put_nowait(chunk if is_settled else await self._stages.render(chunk, self._checkpoint))
        finally:
            self._room.release()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _ended(job: Job, work: Work, row: dict[str, Any]) -> Result | Failure:
    """What a results row says; a success gets its curves, as long as the work directory has what they need."""
    outcome = _outcome(row)
    if isinstance(outcome, Result) and not exists(outcome.curve_uri):
        try:
            save_lips(outcome.curve_uri, job, work)
        except StorageError as error:
            logger.warning("job %s: has no curves of its lips: %s", job.job_id, error)
    return outcome


def _outcome(row: dict[str, Any]) -> Result | Failure:
    """What a results row says."""
    if row["status"] != "succeeded":
        return Failure(type=row["error_type"], detail=row["error"])
    return Result(
        output_uri=row["output_uri"],
        bytes=size(row["output_uri"]),
        digest=content_digest(row["output_uri"]),
        frames=row["frames"],
        dubbed_frames=row["dubbed_frames"],
        passed_through=row["passed_through"],
        warnings=row["warnings"],
    )
