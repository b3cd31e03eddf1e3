"""The stages as Ray Data's callable classes: rows of JSON in and out, the work done by `dreamhead.stages`."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import ray
from numpy.typing import NDArray

from dreamhead.cluster.session import is_node_lost
from dreamhead.config import DubSettings
from dreamhead.errors import CheckpointError, StorageError
from dreamhead.records import Chunk, Job, Span
from dreamhead.scratch import sweep_scratch
from dreamhead.stages.attempts import Place
from dreamhead.stages.deadline import TOO_SLOW

Batch = dict[str, NDArray[Any]]
Rows = dict[str, list[object]]

StageT = TypeVar("StageT")

PAUSES_S = (5.0, 20.0, 60.0)
"""Between the tries to make a stage."""

CUDA_LOST = 70
"""Exit status of an actor whose GPU context is lost: Ray starts another one, which tries the chunk again."""

logger = logging.getLogger(__name__)

# Each actor imports its own stage: what the others need takes seconds to import, and hundreds of megabytes.


def this_place() -> Place:
    """This actor's machine; the end of its process brings another one."""
    node = ray.get_runtime_context().get_node_id()
    return Place(node=node, is_lost=is_node_lost, end_process=partial(os._exit, TOO_SLOW))


class AnalyseSpans:
    """One row of spans, the same range of one video for several jobs, to one row a chunk, as they come."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str) -> None:
        from dreamhead.stages.analyse import AnalyseSpan

        self._analyse = patiently(lambda: AnalyseSpan(settings, checkpoint_uri, work_uri, this_place()))

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for text in batch["spans"]:
            for span in spans_from_json(str(text)):
                for chunk in self._analyse(span):
                    yield to_rows(chunk, "analyse")


class LandmarkChunks:
    """One chunk to one chunk."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str) -> None:
        from dreamhead.stages.landmarks import MakeLandmarks

        self._make_landmarks = patiently(lambda: MakeLandmarks(settings, checkpoint_uri, work_uri, this_place()))

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for chunk in chunks_of(batch):
            with without_lost_gpu():
                yield to_rows(self._make_landmarks(chunk), "landmarks")


class RenderChunks:
    """One chunk to one chunk."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str) -> None:
        from dreamhead.stages.render import RenderChunk

        self._render = patiently(lambda: RenderChunk(settings, checkpoint_uri, work_uri, this_place()))

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for chunk in chunks_of(batch):
            with without_lost_gpu():
                yield to_rows(self._render(chunk), "render")


def patiently(make: Callable[[], StageT]) -> StageT:
    """Make a stage, again after a pause where its weights can't be read or the GPU is still another process's.

    An actor that can't be made is lost for good, and a chunk that it had in hand ends the run. The driver has checked
    settings and weights before, so what is wrong with weights here is most likely the way to them.
    """
    sweep_scratch()
    for pause_s in PAUSES_S:
        try:
            return make()
        except (StorageError, CheckpointError, OSError, RuntimeError) as error:
            logger.warning("%s: %s; trying again in %g s", type(error).__name__, error, pause_s)
            time.sleep(pause_s)
    return make()


@contextmanager
def without_lost_gpu() -> Iterator[None]:
    """End the process when its GPU context is lost, since nothing in it can compute any more."""
    from torch import AcceleratorError

    try:
        yield
    except AcceleratorError:
        os._exit(CUDA_LOST)


def spans_row(spans: Sequence[Span]) -> dict[str, str]:
    """The row of spans that cover the same range of the same video, one a job, so that it is walked once."""
    return {"spans": json.dumps([[span.job.to_json(), span.start, span.stop] for span in spans])}


def spans_from_json(text: str) -> Iterator[Span]:
    """Read what `spans_row` wrote."""
    for job, start, stop in json.loads(text):
        yield Span(job=Job.from_json(job), start=start, stop=stop)


def chunks_of(batch: Batch) -> list[Chunk]:
    """The chunks of a batch."""
    return [Chunk.from_json(str(text)) for text in batch["chunk"]]


def to_rows(chunk: Chunk, stage: str) -> Rows:
    """A batch of one row, which says that this actor has done the stage's work."""
    actor = ray.get_runtime_context().get_actor_id() or ""
    done = replace(chunk, workers={**chunk.workers, stage: actor})
    return {name: [value] for name, value in done.to_row().items()}
