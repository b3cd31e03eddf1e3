"""One job through the batch job's own stages; everything that the service knows of them is here."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from dreamhead.config import DubSettings
from dreamhead.errors import DreamheadError, InputError
from dreamhead.records import Chunk, Job, Segment, Span
from dreamhead.serving.records import Failure, JobRecord, Result
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.uses import Input, Inputs, Uses
from dreamhead.stages import results
from dreamhead.stages.finalize import finalize
from dreamhead.stages.opening import fitted, open_work
from dreamhead.stages.prepare import PreparedJob, prepare, with_digests
from dreamhead.stages.results import Tally
from dreamhead.stages.source import facts_of_audio, facts_of_video
from dreamhead.storage import content_digest, size

Report = Callable[[int, int], None]
"""Called with the output's frames that are rendered, and all of them."""


class Stages(Protocol):
    """The stages, wherever they run. A failure is the `error` of a chunk."""

    def analyse(self, span: Span) -> AsyncIterator[Chunk]:
        """The span's chunks, as they are found."""
        ...

    async def render(self, chunk: Chunk) -> Chunk:
        """The chunk with its landmarks made and its frames rendered."""
        ...


@dataclass(frozen=True)
class StageArguments:
    """What each stage's class is made with."""

    settings: DubSettings
    checkpoint_uri: str
    work_uri: str


def stage_arguments(settings: ServingSettings) -> StageArguments:
    """For the service's stages; raises CheckpointError, ConfigError."""
    return StageArguments(fitted(settings.dub, settings.checkpoint), settings.checkpoint, settings.work_uri)


class Engine:
    """Dubs jobs; what an earlier try published is not made again."""

    def __init__(self, settings: ServingSettings, stages: Stages) -> None:
        arguments = stage_arguments(settings)
        self.work, self._digest = open_work(arguments.settings, arguments.checkpoint_uri, arguments.work_uri)
        """Names of the work directory's files."""
        self._uses = Uses(settings.storage)
        self._stages = stages
        self._chunks_at_once = settings.chunks_at_once
        self._max_duration_s = settings.max_duration_s

    async def dub(self, job: Job, report: Report) -> Result | Failure:
        """Publish the job's output. A job that is cancelled leaves its chunks in flight to their end."""
        try:
            prepared = await asyncio.to_thread(self._prepare, job)
            self._check_duration(prepared)
        except DreamheadError as error:
            return _outcome(results.failed(job, error))
        if prepared.result is not None:
            return await asyncio.to_thread(_outcome, prepared.result)
        failure, tally = await self._render(prepared, report)
        if failure:
            return _outcome(results.failed(prepared.job, failure, tally))
        row = await asyncio.to_thread(finalize, prepared, self.work, self._digest, tally)
        return await asyncio.to_thread(_outcome, row)

    def _prepare(self, job: Job) -> PreparedJob:
        job = with_digests(job, self.work)
        video = Input(kind="video", digest=job.video_digest, facts=tuple(facts_of_video(job, self.work)))
        audio = Input(kind="audio", digest=job.audio_digest, facts=tuple(facts_of_audio(job, self.work)))
        self._uses.add(job.job_id, Inputs(inputs=(video, audio)))
        return prepare(job, self.work)

    def _check_duration(self, prepared: PreparedJob) -> None:
        if prepared.duration_s > self._max_duration_s:
            raise InputError(
                f"the output would last {prepared.duration_s:.1f} s; at most {self._max_duration_s:g} s are allowed"
            )

    async def _render(self, prepared: PreparedJob, report: Report) -> tuple[str, Tally]:
        """Render what is missing, up to the first failure, whose text comes back."""
        flight = _Flight(self._stages, self._chunks_at_once)
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

    def __init__(self, stages: Stages, at_once: int) -> None:
        self._stages = stages
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
            async for chunk in self._stages.analyse(span):
                await self._room.acquire()
                pending.append(self._start(self._render(chunk)))
        await asyncio.gather(*pending)

    async def _render(self, chunk: Chunk) -> None:
        try:
            is_settled = bool(chunk.error or chunk.chunk_uri)
            self._rendered.put_nowait(chunk if is_settled else await self._stages.render(chunk))
        finally:
            self._room.release()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def job_of(record: JobRecord, output_uri: str) -> Job:
    """The stages' job of a stored one."""
    options = record.options
    return Job(
        job_id=record.id,
        row=0,
        video_uri=record.video_uri,
        audio_uri=record.audio_uri,
        output_uri=output_uri,
        seed=options.seed,
        segments=tuple(Segment(part.start_s, part.end_s) for part in options.segments),
        face=options.face,
        on_longer_audio=options.on_longer_audio,
        language=options.language,
        consent_id=options.consent_id,
    )


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
