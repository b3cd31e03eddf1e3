"""The stages as Serve deployments, and how a worker calls them: what dies on the way is called again."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

import torch
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from dreamhead.cluster.actors import CUDA_LOST, this_place
from dreamhead.errors import ClusterError
from dreamhead.records import Chunk, Span
from dreamhead.serving.engine import stage_arguments
from dreamhead.serving.settings import ServingSettings
from dreamhead.stages.analyse import AnalyseSpan
from dreamhead.stages.attempts import describe
from dreamhead.stages.landmarks import MakeLandmarks
from dreamhead.stages.render import RenderChunk

logger = logging.getLogger(__name__)

TRIES = 10
"""Calls of one stage for one piece of work. What dies within the stage's own work is given up earlier, by its count."""
PAUSE_S = 0.5

StageT = TypeVar("StageT")
ResultT = TypeVar("ResultT")
P = ParamSpec("P")


class StageThread:
    """The one thread that a stage is made and works in: torch counts a thread's threads, and sums depend on them."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stage")

    def make(self, stage: Callable[..., StageT], settings: ServingSettings) -> StageT:
        """The stage, its weights loaded; waits for it."""
        arguments = stage_arguments(settings)
        made_with = (arguments.settings, arguments.checkpoint_uri, arguments.work_uri)
        # The place lets a try that takes too long end this process: Serve starts another, and the call is made again.
        return self._pool.submit(stage, *made_with, this_place()).result()

    async def run(self, work: Callable[P, ResultT], *args: P.args, **kwargs: P.kwargs) -> ResultT:
        """Do it there. A caller that goes away leaves it running; the next one waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: _or_die(work, *args, **kwargs))

    def later(self, work: Callable[[], object]) -> None:
        """Have it done there, and don't wait."""
        self._pool.submit(work)


def _or_die(work: Callable[P, ResultT], *args: P.args, **kwargs: P.kwargs) -> ResultT:
    try:
        return work(*args, **kwargs)
    except torch.AcceleratorError:
        # The GPU's context is lost with all that is in it: only a new process gets another.
        os._exit(CUDA_LOST)


class Analyse:
    """Walks videos, on CPUs: apart from the workers, since it keeps a core busy and they must not."""

    def __init__(self, settings: ServingSettings) -> None:
        self._thread = StageThread()
        self._stage = self._thread.make(AnalyseSpan, settings)

    async def chunks(self, span: Span) -> AsyncIterator[Chunk]:
        """The span's chunks, as they are found."""
        found = self._walk(span)
        try:
            while (chunk := await self._thread.run(lambda: next(found, None))) is not None:
                yield chunk
        finally:
            # A generator must end where it ran; one that isn't exhausted is in the middle of a video.
            self._thread.later(found.close)

    def _walk(self, span: Span) -> Generator[Chunk, None, None]:
        yield from self._stage(span)


class Landmarks:
    """Audio to landmarks."""

    def __init__(self, settings: ServingSettings) -> None:
        self._thread = StageThread()
        self._stage = self._thread.make(MakeLandmarks, settings)

    async def make(self, chunk: Chunk) -> Chunk:
        """The chunk with its landmarks."""
        return await self._thread.run(self._stage, chunk)


class Render:
    """Landmarks to frames."""

    def __init__(self, settings: ServingSettings) -> None:
        self._thread = StageThread()
        self._stage = self._thread.make(RenderChunk, settings)

    async def render(self, chunk: Chunk) -> Chunk:
        """The chunk, rendered and published."""
        return await self._thread.run(self._stage, chunk)


class ServeStages:
    """The three deployments, as an engine uses them."""

    def __init__(
        self, analyse: DeploymentHandle[Any], landmarks: DeploymentHandle[Any], render: DeploymentHandle[Any]
    ) -> None:
        self._analyse = analyse.options(stream=True)
        self._landmarks = landmarks
        self._render = render

    async def analyse(self, span: Span) -> AsyncIterator[Chunk]:
        """The span's chunks; a second walk finds the same ones, and those that were seen are skipped."""
        seen = 0
        what = f"source frames {span.start} to {span.stop} of job {span.job.job_id}"
        for number in range(1, TRIES + 1):
            index = 0
            try:
                found = cast(AsyncIterator[Chunk], self._analyse.chunks.remote(span))
                async for chunk in found:
                    index += 1
                    if index > seen:
                        seen = index
                        yield chunk
                return
            except (RayError, RayServeException) as error:
                failure = await _again(what, number, error)
        yield _failed(span, failure)

    async def render(self, chunk: Chunk) -> Chunk:
        """The chunk, its landmarks made, its frames rendered."""
        return await _called(self._render.render, await _called(self._landmarks.make, chunk))


async def _called(method: Any, chunk: Chunk) -> Chunk:
    what = f"frames {chunk.start} to {chunk.stop} of job {chunk.job.job_id}"
    for number in range(1, TRIES + 1):
        try:
            done: Chunk = await method.remote(chunk)
        except (RayError, RayServeException) as error:
            failure = await _again(what, number, error)
        else:
            return done
    return replace(chunk, error=describe(failure))


async def _again(what: str, number: int, error: Exception) -> ClusterError:
    """Wait before another call; what to say if there is none."""
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    logger.warning("%s: call %d of %d failed: %s", what, number, TRIES, reason)
    await asyncio.sleep(PAUSE_S)
    return ClusterError(f"{what} was given up after {TRIES} calls, the last failed with: {reason}")


def _failed(span: Span, error: ClusterError) -> Chunk:
    start, stop = span.start, span.stop
    return Chunk(
        job=span.job,
        start=start,
        stop=stop,
        shot_start=start,
        shot_stop=stop,
        analysis_uri="",
        error=describe(error),
    )
