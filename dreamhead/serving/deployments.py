"""The stages as Serve deployments, and how a worker calls them: what dies on the way is called again."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, ParamSpec, TypeVar, cast

import torch
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from dreamhead.cluster.actors import CUDA_LOST, this_place
from dreamhead.errors import ClusterError
from dreamhead.records import Chunk, Span
from dreamhead.serving.checkpoints import stage_arguments
from dreamhead.serving.settings import ServingSettings
from dreamhead.stages.analyse import AnalyseSpan
from dreamhead.stages.attempts import describe
from dreamhead.stages.landmarks import MakeLandmarks
from dreamhead.stages.render import RenderChunk

logger = logging.getLogger(__name__)

TRIES = 10
"""Calls of one stage for one piece of work. What dies within the stage's own work is given up earlier, by its count."""
PAUSE_S = 0.5
OTHER_CHECKPOINTS = 2
"""Weights besides the service's own that a replica keeps; those used longest ago make room."""

StageT = TypeVar("StageT")
ResultT = TypeVar("ResultT")
P = ParamSpec("P")


class StageThread:
    """The one thread that a stage is made and works in: torch counts a thread's threads, and sums depend on them."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stage")

    def make(self, stage: Callable[..., StageT], settings: ServingSettings, checkpoint: str) -> StageT:
        """The stage, its weights loaded; waits for it."""
        arguments = stage_arguments(settings, checkpoint)
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


class StageReplica(Generic[StageT]):
    """One stage with the service's own weights, loaded before it is ready, and the last others that requests named."""

    def __init__(self, kind: Callable[..., StageT], settings: ServingSettings) -> None:
        self._thread = StageThread()
        self._kind, self._settings = kind, settings
        self._own = self._thread.make(kind, settings, "")

    async def stage(self) -> StageT:
        """The stage with the weights that this request asks for."""
        name = serve.get_multiplexed_model_id()
        return await self._other(name) if name else self._own

    @serve.multiplexed(max_num_models_per_replica=OTHER_CHECKPOINTS)  # type: ignore[untyped-decorator]
    async def _other(self, name: str) -> StageT:
        arguments = stage_arguments(self._settings, name)
        made_with = (arguments.settings, arguments.checkpoint_uri, arguments.work_uri)
        stage = await self._thread.run(self._kind, *made_with, this_place())
        if isinstance(stage, AnalyseSpan):
            # Serve calls this, by its name, when the stage makes room for another one.
            vars(stage)["__del__"] = stage.close
        return stage


class Analyse(StageReplica[AnalyseSpan]):
    """Walks videos, on CPUs: apart from the workers, since it keeps a core busy and they must not."""

    def __init__(self, settings: ServingSettings) -> None:
        super().__init__(AnalyseSpan, settings)

    async def chunks(self, span: Span) -> AsyncIterator[Chunk]:
        """The span's chunks, as they are found."""
        found = walk(await self.stage(), span)
        try:
            while (chunk := await self._thread.run(lambda: next(found, None))) is not None:
                yield chunk
        finally:
            # A generator must end where it ran; one that isn't exhausted is in the middle of a video.
            self._thread.later(found.close)


def walk(stage: AnalyseSpan, span: Span) -> Generator[Chunk, None, None]:
    """The same as a generator, which can be closed."""
    yield from stage(span)


class Landmarks(StageReplica[MakeLandmarks]):
    """Audio to landmarks."""

    def __init__(self, settings: ServingSettings) -> None:
        super().__init__(MakeLandmarks, settings)

    async def make(self, chunk: Chunk) -> Chunk:
        """The chunk with its landmarks."""
        return await self._thread.run(await self.stage(), chunk)


class Render(StageReplica[RenderChunk]):
    """Landmarks to frames."""

    def __init__(self, settings: ServingSettings) -> None:
        super().__init__(RenderChunk, settings)

    async def render(self, chunk: Chunk) -> Chunk:
        """The chunk, rendered and published."""
        return await self._thread.run(await self.stage(), chunk)


class ServeStages:
    """The three deployments, as an engine uses them."""

    def __init__(
        self, analyse: DeploymentHandle[Any], landmarks: DeploymentHandle[Any], render: DeploymentHandle[Any]
    ) -> None:
        self._analyse = analyse.options(stream=True)
        self._landmarks = landmarks
        self._render = render

    async def analyse(self, span: Span, checkpoint: str) -> AsyncIterator[Chunk]:
        """The span's chunks; a second walk finds the same ones, and those that were seen are skipped."""
        seen = 0
        what = f"source frames {span.start} to {span.stop} of job {span.job.job_id}"
        for number in range(1, TRIES + 1):
            index = 0
            try:
                analyse = with_weights(self._analyse, checkpoint)
                found = cast(AsyncIterator[Chunk], analyse.chunks.remote(span))
                async for chunk in found:
                    index += 1
                    if index > seen:
                        seen = index
                        yield chunk
                return
            except (RayError, RayServeException) as error:
                failure = await _again(what, number, error)
        yield _failed(span, failure)

    async def render(self, chunk: Chunk, checkpoint: str) -> Chunk:
        """The chunk, its landmarks made, its frames rendered."""
        landmarks, render = (with_weights(handle, checkpoint) for handle in (self._landmarks, self._render))
        return await _called(render.render, await _called(landmarks.make, chunk))


def with_weights(handle: DeploymentHandle[Any], checkpoint: str) -> DeploymentHandle[Any]:
    """The handle for calls with the weights of that name, which go to replicas that have them where there are such."""
    return handle.options(multiplexed_model_id=checkpoint) if checkpoint else handle


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
