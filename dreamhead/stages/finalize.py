"""Stage 4: join a job's chunks, mux its speech, verify and publish the output."""

import logging
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from dreamhead import __version__, storage
from dreamhead.errors import ClusterError, DiskFullError, DreamheadError, NoFaceError, QualityError
from dreamhead.media.join import join, verify
from dreamhead.media.speech_track import Speech
from dreamhead.records import Chunk, Job, Route
from dreamhead.scratch import scratch_folder
from dreamhead.stages import results
from dreamhead.stages.artefacts import save_json
from dreamhead.stages.attempts import publish_failure, retried
from dreamhead.stages.device import limit_threads
from dreamhead.stages.prepare import PreparedJob, published_row
from dreamhead.stages.results import Tally
from dreamhead.stages.review.job import review
from dreamhead.stages.review.record import review_columns
from dreamhead.stages.source import Source, open_source
from dreamhead.stages.work import Work, settings_digest

logger = logging.getLogger(__name__)


def finalize(prepared: PreparedJob, work: Work, weights_digest: str, tally: Tally) -> dict[str, Any]:
    """Publish a job's output from its chunks in the work directory; returns the job's results row.

    A job of which a chunk is missing, or that has no usable face at all, ends as a failed row. Storage that fails is
    tried again. What a process that died had published already is left as it is.
    """
    job, failed_uri = prepared.job, work.failed_uri(prepared.job)
    try:
        published = published_row(job, work, tally)
        if published is not None:
            return published
        made = partial(_finalize, prepared, work, weights_digest, tally)
        return retried(made, work.settings.pools.max_attempts, f"job {job.job_id}")
    except (DiskFullError, ClusterError) as error:
        return results.failed(job, error, tally)
    except QualityError as error:
        return results.failed(job, publish_failure(failed_uri, error), tally) | review_columns(job, work)
    except DreamheadError as error:
        return results.failed(job, publish_failure(failed_uri, error), tally)


def _finalize(prepared: PreparedJob, work: Work, weights_digest: str, tally: Tally) -> dict[str, Any]:
    began = time.perf_counter()
    limit_threads(work.settings)
    chunks = work.finished_chunks(prepared.job)
    _check_tiles(prepared, chunks)
    _check_face(prepared, chunks)
    _publish(prepared, chunks, work)
    digests = {"weights_digest": weights_digest, "settings_digest": settings_digest(work.settings)}
    row = results.succeeded(
        prepared.job, chunks, tally, duration_s=prepared.duration_s, warnings=prepared.warnings, digests=digests
    )
    row |= review_columns(prepared.job, work)
    row["seconds"]["finalize"] = time.perf_counter() - began
    _record(prepared, row, work)
    return row


def tiles(chunks: Sequence[Chunk], frames: int) -> bool:
    """Whether sorted chunks cover [0, frames) without gap or overlap."""
    if not chunks or chunks[0].start != 0 or chunks[-1].stop != frames:
        return False
    return all(before.stop == after.start for before, after in pairwise(chunks))


def _check_tiles(prepared: PreparedJob, chunks: Sequence[Chunk]) -> None:
    if not tiles(chunks, prepared.frames):
        got = ", ".join(f"{chunk.start} to {chunk.stop}" for chunk in chunks) or "none"
        raise ClusterError(
            f"the chunks don't cover frames 0 to {prepared.frames}; got {got}; run the same command again"
        )


def _check_face(prepared: PreparedJob, chunks: Sequence[Chunk]) -> None:
    total: dict[str, int] = {}
    for chunk in chunks:
        for name, count in chunk.route_counts.items():
            total[name] = total.get(name, 0) + count
    if not {Route.DUB.name, Route.OUTSIDE_SEGMENTS.name} & total.keys():
        reasons = ", ".join(f"{name} in {count}" for name, count in sorted(total.items()))
        raise NoFaceError(f"{prepared.job.video_uri}: no usable face in any of its {prepared.frames} frames: {reasons}")


def _publish(prepared: PreparedJob, chunks: Sequence[Chunk], work: Work) -> None:
    source, job = open_source(prepared.job, work), prepared.job
    timeline = source.timeline
    with scratch_folder() as folder:
        output = folder / f"output{Path(job.output_uri).suffix}"
        join(
            [chunk.chunk_uri for chunk in chunks],
            [int(timeline.pts[chunk.start]) for chunk in chunks],
            source.video,
            timeline,
            speech_of(job, source),
            output,
            work.settings.output,
            tags_of(source),
        )
        info = verify(output, timeline.frame_count, (source.video.width, source.video.height))
        review(prepared, chunks, work, info)
        storage.publish(output, job.output_uri)
    logger.info("job %s: %s published", job.job_id, job.output_uri)


def speech_of(job: Job, source: Source) -> Speech:
    """The job's speech, and where it goes in the output."""
    timeline = source.timeline
    return Speech(audio=source.audio, start_s=timeline.speech_start_s, end_s=timeline.duration_s, language=job.language)


def tags_of(source: Source) -> dict[str, str]:
    """The output's metadata: the source's title, and a word on how it was made."""
    title = {"title": source.video.title} if source.video.title else {}
    return {**title, "comment": f"Dubbed by DreamHead {__version__}: the mouth is synthetic"}


def _record(prepared: PreparedJob, row: dict[str, Any], work: Work) -> None:
    """Mark the job as done, so that the next run of the same command leaves it alone."""
    job = prepared.job
    record = {"output_uri": job.output_uri, "bytes": storage.size(job.output_uri), "row": row}
    save_json(work.result_uri(job), record)
