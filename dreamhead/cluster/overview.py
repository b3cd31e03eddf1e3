"""How far a manifest is, and what of it can be freed: looked up in the work directory, without Ray."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dreamhead.cluster.only_run import refuse_runs
from dreamhead.cluster.places import Places
from dreamhead.records import Job
from dreamhead.stages.clean import Freed, free_abandoned, free_analysis, free_job, free_other_settings
from dreamhead.stages.opening import open_work
from dreamhead.stages.status import JobStatus, job_status
from dreamhead.stages.work import Work

AT_ONCE = 16
"""Jobs that are looked up side by side: it mostly waits for storage."""

ResultT = TypeVar("ResultT")


def statuses(places: Places) -> Iterator[JobStatus]:
    """How far each job of the manifest is, in the manifest's order; its bad rows are failures."""
    work, _ = open_work(places.settings, places.checkpoint_uri, places.work_uri)
    known = {row["row"]: _bad_row(row["row"], row["job_id"], row["error"]) for row in places.manifest.failed}
    found = _side_by_side(places, lambda job: job_status(job, work))
    known |= {status.job.row: status for status in found}
    return (known[row] for row in sorted(known))


def free(places: Places, *, analysis: bool, other_settings: bool, dry_run: bool, say: Callable[[str], None]) -> Freed:
    """Delete what the manifest's published jobs no longer need; returns what was, or would be, deleted.

    What killed processes left half-written in the work directory, or beside outputs, goes as well. Raises ClusterError
    while a run is at work in the work directory: whatever its manifest is, it may need any of this.

    Args:
        analysis: also the analysis of videos whose every job is published.
        other_settings: also what was made for these jobs with other settings, weights or inputs.
        dry_run: delete nothing.
        say: takes a line for people.
    """
    if not dry_run:
        refuse_runs(places.runs_uri, places.work_uri, say)
    work, _ = open_work(places.settings, places.checkpoint_uri, places.work_uri)
    found = list(_side_by_side(places, lambda job: job_status(job, work)))
    done = [status.job for status in found if status.state == "done"]
    freed = free_abandoned(places.manifest.jobs, work, dry_run=dry_run)
    for job in done:
        freed = freed.plus(free_job(job, work, dry_run=dry_run))
        if other_settings:
            freed = freed.plus(free_other_settings(job, work, dry_run=dry_run))
    if analysis:
        freed = freed.plus(free_analysis(_of_finished_videos(found, work), work, dry_run=dry_run))
    return freed


def _of_finished_videos(found: list[JobStatus], work: Work) -> list[Job]:
    jobs = Counter(status.job.video_uri for status in found)
    done = Counter(status.job.video_uri for status in found if status.state == "done")
    return [status.job for status in found if jobs[status.job.video_uri] == done[status.job.video_uri]]


def _side_by_side(places: Places, look: Callable[[Job], ResultT]) -> Iterator[ResultT]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(look, places.manifest.jobs)


def _bad_row(row: int, job_id: str, error: str) -> JobStatus:
    job = Job(job_id=job_id, row=row, video_uri="", audio_uri="", output_uri="")
    return JobStatus(job=job, state="failed", error=error)
