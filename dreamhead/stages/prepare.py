"""Check one job before any work is done for it, and plan what is missing."""

from dataclasses import dataclass, replace
from typing import Any

from dreamhead import storage
from dreamhead.errors import InputError
from dreamhead.media.join import container_of
from dreamhead.records import Chunk, Job, Span
from dreamhead.stages.artefacts import load_json
from dreamhead.stages.plan import chunks_of_shots, spans_of
from dreamhead.stages.results import repeated
from dreamhead.stages.source import Source, naming_column, open_source
from dreamhead.stages.work import Work


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A checked job: what its output will be, what is there of it, and what is missing."""

    job: Job
    frames: int
    """Frames of the output."""
    duration_s: float
    """Seconds of the output."""
    warnings: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    """Spans of which a chunk or more is missing."""
    done: tuple[Chunk, ...] = ()
    """Chunks of the other spans."""
    result: dict[str, Any] | None = None
    """The results row, where the output itself is there."""


def prepare(job: Job, work: Work) -> PreparedJob:
    """Probe a job's inputs and compare with the work directory. Raises InputError or MediaError naming the column."""
    job = _with_digests(job)
    source = open_source(job)
    _check_segments(job, source)
    _check_output(job)
    timeline = source.timeline
    prepared = PreparedJob(
        job=job, frames=timeline.frame_count, duration_s=timeline.duration_s, warnings=timeline.warnings
    )
    row = _published_row(job, work)
    if row is not None:
        return replace(prepared, result=row)
    # Tries are counted within a run: whoever starts one has changed something, or wants it tried again.
    for uri in storage.list_files(work.attempts_dir(job)):
        storage.delete(uri)
    spans, done = _missing(job, source, work)
    return replace(prepared, spans=spans, done=done)


def _missing(job: Job, source: Source, work: Work) -> tuple[tuple[Span, ...], tuple[Chunk, ...]]:
    missing: list[Span] = []
    done: list[Chunk] = []
    for span in spans_of(job, source, work.settings.analysis.span_s):
        chunks = _finished_chunks(span, source, work)
        if chunks is None:
            missing.append(span)
        else:
            done.extend(chunks)
    return tuple(missing), tuple(done)


def _finished_chunks(span: Span, source: Source, work: Work) -> list[Chunk] | None:
    """The chunks of a span, or None unless all of them are there."""
    shots = work.shots(span.job, span.start, span.stop)
    if shots is None:
        return None
    chunks: list[Chunk] = []
    for chunk in chunks_of_shots(span.job, source, shots, work):
        finished = work.finished(chunk)
        if finished is None:
            return None
        chunks.append(finished)
    return chunks


def _with_digests(job: Job) -> Job:
    with naming_column("video_uri"):
        video_digest = storage.content_digest(job.video_uri)
    with naming_column("audio_uri"):
        audio_digest = storage.content_digest(job.audio_uri)
    return replace(job, video_digest=video_digest, audio_digest=audio_digest)


def _check_segments(job: Job, source: Source) -> None:
    for segment in job.segments:
        if segment.start_s >= source.timeline.duration_s:
            raise InputError(
                f"segments: {segment.start_s} to {segment.end_s} s begins after the end of {job.video_uri}, "
                f"which lasts {source.timeline.duration_s:.2f} s"
            )


def _check_output(job: Job) -> None:
    if job.output_uri in (job.video_uri, job.audio_uri):
        raise InputError(f"output_uri: {job.output_uri} is an input of the same job; nothing is overwritten")
    with naming_column("output_uri"):
        container_of(job.output_uri)
        storage.check_writable(job.output_uri.rpartition("/")[0])


def _published_row(job: Job, work: Work) -> dict[str, Any] | None:
    """The row of an earlier run, while the very output that it published is still there."""
    uri = work.result_uri(job)
    if not storage.exists(uri):
        return None
    record = load_json(uri)
    if record["output_uri"] != job.output_uri or not storage.exists(job.output_uri):
        return None
    return repeated(job, record["row"]) if storage.size(job.output_uri) == record["bytes"] else None
