"""Finalise each job in a task of its own, while others are still rendered."""

import logging
from collections.abc import Iterator

import ray
from ray.exceptions import RayError
from ray.remote_function import RemoteFunction

from dreamhead.cluster.checking import FINISH_RETRIES, died, ended_of, limit
from dreamhead.cluster.pools import FINALIZE_CPUS
from dreamhead.errors import StorageError
from dreamhead.records import Job
from dreamhead.scratch import sweep_scratch
from dreamhead.stages import results
from dreamhead.stages.clean import free_job
from dreamhead.stages.prepare import PreparedJob
from dreamhead.stages.results import Row, Tally
from dreamhead.stages.work import Work

logger = logging.getLogger(__name__)


class Finishing:
    """Jobs whose chunks are there and whose outputs aren't yet.

    Args:
        weights_digest: for the results.
        clean: whether a published job's chunks are deleted at once.
        finish: the task; `finish_job` unless given.
    """

    def __init__(self, work: Work, weights_digest: str, *, clean: bool, finish: RemoteFunction | None = None) -> None:
        # Put once: otherwise it would travel with each of thousands of tasks.
        self._work = ray.put(work)
        self._weights_digest = weights_digest
        self._clean = clean
        self._finish = finish or finish_job
        self._going_on: dict[ray.ObjectRef[Row], Job] = {}

    def start(self, prepared: PreparedJob, tally: Tally) -> None:
        """The job's last chunk is there, or none will come: join what there is."""
        ref = self._finish.remote(prepared, self._work, self._weights_digest, tally, self._clean)
        self._going_on[ref] = prepared.job

    def ended(self, *, wait_s: float) -> Iterator[Row]:
        """The rows of jobs that ended since; of all, where `wait_s` isn't 0.

        Raises ClusterError when none ended for `wait_s` seconds: its tasks may never find a machine.
        """
        while self._going_on and (ended := ended_of(self._going_on, wait_s=wait_s)):
            for ref in ended:
                job = self._going_on.pop(ref)
                try:
                    yield ray.get(ref)
                except RayError as error:
                    yield results.failed(job, died(error))


def _free(job: Job, work: Work) -> None:
    try:
        free_job(job, work)
    except StorageError as error:
        # The output is published all the same, and `dreamhead clean` can do it later.
        logger.warning("job %s: its chunks stay: %s", job.job_id, error)


@ray.remote(num_cpus=FINALIZE_CPUS, max_retries=FINISH_RETRIES)
def finish_job(prepared: PreparedJob, work: Work, weights_digest: str, tally: Tally, clean: bool) -> Row:
    """Join one job's chunks, look at its output, and publish it."""
    # What looks at faces takes seconds to import, and the driver, which starts these tasks, needs none of it.
    from dreamhead.stages.finalize import finalize

    sweep_scratch()
    with limit(work, f"finalising job {prepared.job.job_id}"):
        row = finalize(prepared, work, weights_digest, tally)
        if clean and row["status"] == "succeeded":
            _free(prepared.job, work)
        return row
