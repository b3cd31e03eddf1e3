"""Check one job before any work is done for it, and plan what is missing."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from dreamhead import storage
from dreamhead.errors import InputError, StorageError
from dreamhead.media.join import container_of
from dreamhead.media.speech_track import speech_codec
from dreamhead.records import Job, Span
from dreamhead.stages import results
from dreamhead.stages.artefacts import load_json, save_json
from dreamhead.stages.attempts import describe
from dreamhead.stages.face_place import check_face
from dreamhead.stages.plan import chunks_of_shots, spans_of
from dreamhead.stages.results import NOTHING, Tally
from dreamhead.stages.source import Source, digest_of, known_digest, naming_column, open_source
from dreamhead.stages.work import Work

GIVEN_UP = "failed in an earlier run; --retry-failed tries it again"


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A checked job: what its output will be, how much is there of it, and what is missing."""

    job: Job
    frames: int
    """Frames of the output."""
    duration_s: float = 0.0
    """Seconds of the output."""
    warnings: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    """Spans of which a chunk or more is missing."""
    frames_done: int = 0
    """Frames of the chunks that are there."""
    result: dict[str, Any] | None = None
    """The results row, where the output itself is there, or where an earlier run gave the job up."""


def prepare(job: Job, work: Work, *, retry_failed: bool = True) -> PreparedJob:
    """Probe a job's inputs and compare with the work directory.

    With `retry_failed` a job that an earlier run gave up is tried again. Raises InputError, MediaError or StorageError
    that names the column.
    """
    job = with_digests(job, work)
    row = published_row(job, work) or (None if retry_failed else _given_up_row(job, work))
    if row is not None:
        return PreparedJob(job=job, frames=row["frames"] or 0, result=row)
    with _noting_refusal(job, work):
        source = open_source(job, work)
        _check_segments(job, source)
        check_face(job, source)
        _check_output(job)
        _check_speech(job, source)
    # Tries are counted within a run: whoever starts one has changed something, or wants it tried again.
    for uri in storage.list_files(work.attempts_dir(job)):
        storage.delete(uri)
    spans, frames_done = missing_spans(job, source, work)
    timeline = source.timeline
    return PreparedJob(
        job=job,
        frames=timeline.frame_count,
        duration_s=timeline.duration_s,
        warnings=(*source.video.warnings, *source.audio.warnings, *timeline.warnings),
        spans=spans,
        frames_done=frames_done,
    )


@contextmanager
def _noting_refusal(job: Job, work: Work) -> Iterator[None]:
    """Leave word of wrong input for `job_status`, which reads no inputs; the next run looks at them anew."""
    try:
        yield
    except InputError as error:
        with suppress(StorageError):
            save_json(work.failed_uri(job), {"error": describe(error), "is_final": False})
        raise


def missing_spans(job: Job, source: Source, work: Work) -> tuple[tuple[Span, ...], int]:
    """Spans of which a chunk or more is missing, and the frames of all chunks that are there."""
    done = work.finished_ranges(job)
    spans = spans_of(job, source, work.settings.analysis.span_s)
    missing = tuple(span for span in spans if not _is_finished(span, source, work, done))
    return missing, sum(stop - start for start, stop in done)


def _is_finished(span: Span, source: Source, work: Work, done: set[tuple[int, int]]) -> bool:
    shots = work.shots(span.job, span.start, span.stop) if done else None
    if shots is None:
        return False
    return all((chunk.start, chunk.stop) in done for chunk in chunks_of_shots(span.job, source, shots, work))


def with_digests(job: Job, work: Work) -> Job:
    """The job with its inputs' digests; raises InputError that names the column."""
    with naming_column("video_uri"):
        video_digest = digest_of(job.video_uri, work)
    with naming_column("audio_uri"):
        audio_digest = digest_of(job.audio_uri, work)
    return replace(job, video_digest=video_digest, audio_digest=audio_digest)


def with_known_digests(job: Job, work: Work) -> Job | None:
    """The same, or None where a local input would have to be read for it."""
    with naming_column("video_uri"):
        video_digest = known_digest(job.video_uri, work)
    with naming_column("audio_uri"):
        audio_digest = known_digest(job.audio_uri, work)
    if video_digest is None or audio_digest is None:
        return None
    return replace(job, video_digest=video_digest, audio_digest=audio_digest)


def _check_segments(job: Job, source: Source) -> None:
    for segment in job.segments:
        if segment.start_s >= source.timeline.duration_s:
            raise InputError(
                f"segments: {segment.start_s} to {segment.end_s} s begins after the end of {job.video_uri}, "
                f"which lasts {source.timeline.duration_s:.2f} s"
            )


def _check_output(job: Job) -> None:
    if storage.canonical(job.output_uri) in map(storage.canonical, (job.video_uri, job.audio_uri)):
        raise InputError(f"output_uri: {job.output_uri} is an input of the same job; nothing is overwritten")
    with naming_column("output_uri"):
        container_of(job.output_uri)
        _check_writable(job.output_uri.rpartition("/")[0])


def _check_speech(job: Job, source: Source) -> None:
    with naming_column("audio_uri"):
        speech_codec(source.audio, container_of(job.output_uri))


@lru_cache(maxsize=1024)
def _check_writable(directory_uri: str) -> None:
    # Thousands of jobs share a directory.
    storage.check_writable(directory_uri)


def published_row(job: Job, work: Work, tally: Tally = NOTHING) -> dict[str, Any] | None:
    """The row of whoever published the job's output, while that very output is still there.

    `tally` is what this run did for it.
    """
    uri = work.result_uri(job)
    if not storage.exists(uri):
        return None
    record = load_json(uri)
    if record["output_uri"] != job.output_uri or not storage.exists(job.output_uri):
        return None
    return results.repeated(job, record["row"], tally) if storage.size(job.output_uri) == record["bytes"] else None


def _given_up_row(job: Job, work: Work) -> dict[str, Any] | None:
    """The row of a job that failed in an earlier run by what isn't mended by trying again."""
    uri = work.failed_uri(job)
    if not storage.exists(uri):
        return None
    failure = load_json(uri)
    return results.failed(job, failure["error"]) | {"warnings": GIVEN_UP} if failure["is_final"] else None
