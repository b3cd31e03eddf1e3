"""Check a manifest's jobs side by side, in groups that share videos, before any of them is rendered."""

import logging
import math
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import ray
from ray.exceptions import RayError

from dreamhead.errors import ClusterError, InputError, StorageError
from dreamhead.records import Job
from dreamhead.stages import results
from dreamhead.stages.deadline import TOO_SLOW, Deadline
from dreamhead.stages.prepare import PreparedJob, prepare
from dreamhead.stages.results import Row
from dreamhead.stages.work import Work

CHECK_CPUS = 0.5
"""CPUs that one checking task reserves: it mostly waits for storage."""
MOST_JOBS = 64
"""Of one task; a task's own cost is then small beside that of its jobs."""
TASKS_PER_CPU = 4
MOST_TASKS = 512
"""Of a run: the driver needs a millisecond for each, also on a cluster with many thousand cores."""
AT_ONCE = 16
"""Jobs that one task checks side by side."""
CHECK_RETRIES, FINISH_RETRIES = 1, 2
"""How often Ray starts a task of checking, or of finalising, again when its process died or took too long."""
PROCESS_START_S = 120.0
"""At most, of a process that imports what a task needs, on a busy machine."""
LOST = "the process died, or took longer than pools.finalize_timeout_s"

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


def check(jobs: Sequence[Job], work: Work, *, retry_failed: bool, cpus: float) -> Iterator[PreparedJob | Row]:
    """Yield each job as it is checked, in any order: prepared, or the failed row of one that can't be dubbed.

    Raises ClusterError when no task ended for as long as `longest_wait_s` says.
    """
    # Put once: otherwise it would travel with each task.
    work_ref = ray.put(work)

    def start(group: list[Job]) -> "ray.ObjectRef[list[PreparedJob | Row]]":
        return check_group.remote(group, work_ref, retry_failed)

    waiting = {start(group): group for group in grouped(jobs, cpus)}
    while waiting:
        for done in ended_of(waiting, wait_s=longest_wait_s(work)):
            group = waiting.pop(done)
            try:
                yield from ray.get(done)
            except RayError as error:
                if len(group) > 1:
                    # One file that kills its reader must not take the others along.
                    waiting |= {start([job]): [job] for job in group}
                else:
                    job = group[0]
                    looked_into = f"it was looking into {job.video_uri} and {job.audio_uri}"
                    yield results.failed(job, f"{died(error)}; {looked_into}")


def longest_wait_s(work: Work) -> float:
    """How long no task of checking or finalising may end: then there is no machine for them, and none may come."""
    pools = work.settings.pools
    tries = 1 + max(CHECK_RETRIES, FINISH_RETRIES)
    return max(pools.no_progress_timeout_s, tries * (pools.finalize_timeout_s + PROCESS_START_S))


def ended_of(refs: "Collection[ray.ObjectRef[ResultT]]", *, wait_s: float) -> "list[ray.ObjectRef[ResultT]]":
    """All tasks that ended, of some; where `wait_s` isn't 0 at least one, or ClusterError after so many seconds."""
    # Each call goes over all of them: one for each that ended would take the square of their number.
    ended, going_on = ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
    if wait_s and not ended:
        ended, _ = ray.wait(going_on, timeout=wait_s, fetch_local=False)
        if not ended:
            raise ClusterError(
                f"none of {len(going_on)} tasks that check or finalise jobs ended for {wait_s:g} s "
                f"(pools.no_progress_timeout_s, or {1 + FINISH_RETRIES} times pools.finalize_timeout_s): "
                "are there machines with free CPUs?"
            )
    return ended


def grouped(jobs: Sequence[Job], cpus: float) -> list[list[Job]]:
    """Jobs in groups small enough for every CPU; those of one video together, as it is then read once."""
    tasks = min(MOST_TASKS, max(1.0, cpus * TASKS_PER_CPU))
    size = max(1, min(MOST_JOBS, math.ceil(len(jobs) / tasks)))
    ordered = sorted(jobs, key=lambda job: (job.video_uri, job.row))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def died(error: RayError) -> str:
    """The text of a task that brought no answer."""
    cause = getattr(error, "cause", None)
    return f"{type(cause).__name__}: {cause}" if cause is not None else f"{type(error).__name__}: {LOST}"


def limit(work: Work, what: str) -> Deadline:
    """The limit of one checking or finalising task."""
    seconds = work.settings.pools.finalize_timeout_s
    return Deadline(seconds, partial(os._exit, TOO_SLOW), lambda reason: logger.error("%s: %s", what, reason))


@ray.remote(num_cpus=CHECK_CPUS, max_retries=CHECK_RETRIES)
def check_group(jobs: list[Job], work: Work, retry_failed: bool) -> list[PreparedJob | Row]:
    """Check some jobs; a failed results row for each that can't be dubbed."""
    with limit(work, f"checking {len(jobs)} jobs"), ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda job: _check(job, work, retry_failed), jobs))


def _check(job: Job, work: Work, retry_failed: bool) -> PreparedJob | Row:
    try:
        return prepare(job, work, retry_failed=retry_failed)
    except (InputError, StorageError) as error:
        return results.failed(job, error)
