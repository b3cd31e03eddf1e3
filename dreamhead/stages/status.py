"""Look up how far a job is, without doing anything for it."""

from dataclasses import dataclass
from typing import Literal

from dreamhead import storage
from dreamhead.errors import InputError, StorageError
from dreamhead.records import Job
from dreamhead.stages.artefacts import load_json
from dreamhead.stages.attempts import describe
from dreamhead.stages.plan import chunks_of_shots, spans_of
from dreamhead.stages.prepare import published_row, with_digests
from dreamhead.stages.source import open_source
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


def job_status(job: Job, work: Work) -> JobStatus:
    """What the work directory says of a job with its settings and weights; inputs that can't be used are failures."""
    try:
        job = with_digests(job, work)
        row = published_row(job, work)
        if row is not None:
            return JobStatus(job=job, state="done", chunks_done=int(row["chunks"]))
        return _unfinished(job, work)
    except (InputError, StorageError) as error:
        return JobStatus(job=job, state="failed", error=describe(error))


def _unfinished(job: Job, work: Work) -> JobStatus:
    source = open_source(job, work)
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
    error = load_json(work.failed_uri(job))["error"] if storage.exists(work.failed_uri(job)) else ""
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
