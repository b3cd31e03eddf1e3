"""Dub one video in this process: the stages one after the other, without Ray."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from dreamhead.config import DubSettings
from dreamhead.errors import InputError, StorageError
from dreamhead.records import Job
from dreamhead.stages import results
from dreamhead.stages.analyse import AnalyseSpan
from dreamhead.stages.finalize import finalize
from dreamhead.stages.first_look import look_at_inputs
from dreamhead.stages.landmarks import MakeLandmarks
from dreamhead.stages.opening import open_work
from dreamhead.stages.prepare import PreparedJob, prepare
from dreamhead.stages.render import RenderChunk
from dreamhead.stages.results import Tally

Progress = Callable[[int, int], None]
"""Called with the output's frames that are done, and all of them."""


def dub(
    job: Job,
    settings: DubSettings,
    checkpoint_uri: str,
    work_uri: str,
    progress: Progress = lambda done, frames: None,
) -> dict[str, Any]:
    """Dub one job and return its results row; its frames are those of the batch job.

    What an earlier call published below `work_uri` is reused. An input that can't be used gives a failed row; settings
    or weights that can't be used raise ConfigError or CheckpointError.
    """
    work, digest = open_work(settings, checkpoint_uri, work_uri)
    try:
        look_at_inputs(job, work)
        prepared = prepare(job, work)
    except (InputError, StorageError) as error:
        return results.failed(job, error)
    if prepared.result is not None:
        progress(prepared.frames, prepared.frames)
        return prepared.result
    failure, tally = _render(prepared, settings, checkpoint_uri, work_uri, progress)
    return results.failed(prepared.job, failure, tally) if failure else finalize(prepared, work, digest, tally)


def _render(
    prepared: PreparedJob, settings: DubSettings, checkpoint_uri: str, work_uri: str, progress: Progress
) -> tuple[str, Tally]:
    """Render what is missing, up to the first failure, whose text comes back."""
    tally = Tally()
    if not prepared.spans:
        return "", tally
    with closing(AnalyseSpan(settings, checkpoint_uri, work_uri)) as analyse:
        make_landmarks = MakeLandmarks(settings, checkpoint_uri, work_uri)
        render = RenderChunk(settings, checkpoint_uri, work_uri)
        done = prepared.frames_done
        for span in prepared.spans:
            for planned in analyse(span):
                chunk = render(make_landmarks(planned))
                tally = tally.plus(chunk)
                if chunk.error:
                    return chunk.error, tally
                done += (chunk.stop - chunk.start) * (chunk.attempt > 0)
                progress(done, prepared.frames)
        return "", tally
