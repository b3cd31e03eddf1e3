"""Dub one video in this process: the stages one after the other, without Ray."""

from collections.abc import Callable
from typing import Any

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings
from dreamhead.errors import ConfigError, InputError, StorageError
from dreamhead.media.encode import check_preset
from dreamhead.records import Job
from dreamhead.stages import results
from dreamhead.stages.analyse import AnalyseSpan
from dreamhead.stages.finalize import finalize
from dreamhead.stages.landmarks import MakeLandmarks
from dreamhead.stages.prepare import PreparedJob, prepare
from dreamhead.stages.render import RenderChunk
from dreamhead.stages.results import Tally
from dreamhead.stages.work import Work

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
        prepared = prepare(job, work)
    except (InputError, StorageError) as error:
        return results.failed(job, error)
    if prepared.result is not None:
        progress(prepared.frames, prepared.frames)
        return prepared.result
    failure, tally = _render(prepared, settings, checkpoint_uri, work_uri, progress)
    return results.failed(prepared.job, failure, tally) if failure else finalize(prepared, work, digest, tally)


def fitted(settings: DubSettings, checkpoint_uri: str) -> DubSettings:
    """The settings with the checkpoint's size of crop, unless they say one themselves; raises CheckpointError."""
    if "crop_size" in settings.analysis.model_fields_set:
        return settings
    size = Checkpoint.load(checkpoint_uri).config.crop_size
    return settings.model_copy(update={"analysis": settings.analysis.model_copy(update={"crop_size": size})})


def open_work(settings: DubSettings, checkpoint_uri: str, work_uri: str) -> tuple[Work, str]:
    """The work directory for these settings, and the digest of the weights; raises CheckpointError, ConfigError."""
    check_preset(settings.output)
    checkpoint = Checkpoint.load(checkpoint_uri)
    trained, wanted = checkpoint.config.crop_size, settings.analysis.crop_size
    if trained != wanted:
        raise ConfigError(f"analysis.crop_size is {wanted}, but the checkpoint was trained for {trained}")
    return Work(work_uri, settings, checkpoint), checkpoint.digest


def _render(
    prepared: PreparedJob, settings: DubSettings, checkpoint_uri: str, work_uri: str, progress: Progress
) -> tuple[str, Tally]:
    """Render what is missing, up to the first failure, whose text comes back."""
    tally = Tally()
    if not prepared.spans:
        return "", tally
    analyse = AnalyseSpan(settings, checkpoint_uri, work_uri)
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
