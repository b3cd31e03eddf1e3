"""Look up how far a job is, without doing anything for it."""

from dataclasses import dataclass
from typing import Literal

from dreamhead import storage
from dreamhead.errors import InputError, StorageError
from dreamhead.records import Job
from dreamhead.stages.artefacts import load_json
from dreamhead.stages.attempts import describe
from dreamhead.stages.plan import chunks_of_shots, spans_of
from dreamhead.stages.prepare import published_row, with_known_digests
from dreamhead.stages.source import Source, known_source
from dreamhead.stages.work import Work

State = Literal["done", "failed", "missing"]


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """How far one job is."""

    job: Job
    state: State
    error: str = ""
    """Why it failed."""
    chunks_done: int = 0
    chunks_failed: int = 0
    chunks_missing: int = 0
    """Planned, and neither done nor failed."""
    spans_ahead: int = 0
    """Stretches of the video that aren't analysed yet, so that nobody knows their chunks."""
    is_checked: bool = True
    """Whether a run has read its inputs yet; before, nobody knows its spans either."""


def job_status(job: Job, work: Work) -> JobStatus:
    """What the work directory says of a job with its settings and weights; inputs that can't be used are failures.

    Inputs are looked up, never read: a manifest may name terabytes.
    """
    try:
        known = with_known_digests(job, work)
        if known is None:
            return JobStatus(job=job, state="missing", is_checked=False)
        row = published_row(known, work)
        if row is not None:
            return JobStatus(job=known, state="done", chunks_done=int(row["chunks"]))
        error = load_json(work.failed_uri(known))["error"] if storage.exists(work.failed_uri(known)) else ""
        source = known_source(known, work)
        if source is None:
            return JobStatus(job=known, state="failed" if error else "missing", error=error, is_checked=bool(error))
        return _unfinished(known, source, work, error)
    except (InputError, StorageError) as error:
        return JobStatus(job=job, state="failed", error=describe(error))


def _unfinished(job: Job, source: Source, work: Work, error: str) -> JobStatus:
    done = work.finished_ranges(job)
    missing: set[tuple[int, int]] = set()
    ahead = 0
    for span in spans_of(job, source, work.settings.analysis.span_s):
        shots = work.shots(job, span.start, span.stop)
        if shots is None:
            ahead += 1
        else:
            planned = {(chunk.start, chunk.stop) for chunk in chunks_of_shots(job, source, shots, work)}
            missing |= planned - done
    failed = _failed_ranges(job, work) - done
    return JobStatus(
        job=job,
        state="failed" if error else "missing",
        error=error,
        chunks_done=len(done),
        chunks_failed=len(failed),
        chunks_missing=len(missing - failed),
        spans_ahead=ahead,
    )


def _failed_ranges(job: Job, work: Work) -> set[tuple[int, int]]:
    """[start, stop) of chunks whose last try, in either stage, failed."""
    failed = set()
    for uri in storage.list_files(work.attempts_dir(job)):
        stage, *bounds = uri.rpartition("/")[2].removesuffix(".json").split("-")
        if stage in ("landmarks", "render") and load_json(uri)["tries"][-1]["error"]:
            failed.add((int(bounds[0]), int(bounds[1])))
    return failed
