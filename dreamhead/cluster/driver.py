"""Run a manifest on Ray: check the jobs, render what is missing, finalise each job as its last chunk ends."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from dreamhead.cluster.flow import flow
from dreamhead.cluster.pools import FINALIZE_CPUS, Pools, plan_pools
from dreamhead.cluster.progress import BatchProgress
from dreamhead.cluster.session import cluster_nodes
from dreamhead.cluster.table import ResultsTable
from dreamhead.config import DubSettings
from dreamhead.errors import ClusterError, InputError, StorageError
from dreamhead.records import Chunk, Job, Span
from dreamhead.stages import results
from dreamhead.stages.dub import open_work
from dreamhead.stages.finalize import finalize
from dreamhead.stages.prepare import PreparedJob, prepare
from dreamhead.stages.work import Work

Row = dict[str, Any]

PREPARE_CPUS = 0.5
"""CPUs that one checking task reserves: it mostly waits for storage."""


class BatchRun:
    """One run of a manifest's jobs. Expects Ray to be there; the table and the progress belong to the caller."""

    def __init__(
        self,
        settings: DubSettings,
        checkpoint_uri: str,
        work_uri: str,
        table: ResultsTable,
        progress: BatchProgress,
    ) -> None:
        self._constructor = (settings, checkpoint_uri, work_uri)
        self._settings = settings
        self._table = table
        self._progress = progress
        self._work, self._weights_digest = open_work(settings, checkpoint_uri, work_uri)
        self._open: dict[str, PreparedJob] = {}
        self._chunks: dict[str, list[Chunk]] = defaultdict(list)
        self._finalizing: dict[ray.ObjectRef[Row], Job] = {}

    def __call__(self, jobs: Sequence[Job]) -> None:
        """Dub every job, or say in the table why not. Raises ClusterError where the whole run can't go on."""
        pools = self._plan_pools()
        prepared = self._prepare(jobs)
        self._progress.plan(
            len(prepared),
            sum(job.frames for job in prepared),
            sum(chunk.stop - chunk.start for job in prepared for chunk in job.done),
        )
        for job in prepared:
            self._open[job.job.job_id] = job
            self._chunks[job.job.job_id].extend(job.done)
            if not job.spans:
                self._start_finalizing(job)
        groups = group_spans(prepared, self._work)
        try:
            if groups:
                self._render(groups, pools)
            self._collect(wait=True)
        except ClusterError as error:
            self._give_up(error)
            raise

    def _plan_pools(self) -> Pools:
        nodes = cluster_nodes()
        if self._settings.device == "cuda" and not any(node.gpus for node in nodes):
            raise ClusterError("device: cuda was asked for, but no node of the cluster has a GPU; allowed: auto, cpu")
        return plan_pools(self._settings.pools, nodes, use_gpus=self._settings.device != "cpu")

    def _prepare(self, jobs: Sequence[Job]) -> list[PreparedJob]:
        """Check all jobs side by side; those that can't be dubbed, or already are, end here."""
        waiting = {prepare_job.remote(job, self._work): job for job in jobs}
        prepared: list[PreparedJob] = []
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            answer = _answer(done, waiting.pop(done))
            if not isinstance(answer, PreparedJob):
                self._end(answer)
            elif answer.result is not None:
                self._end(answer.result)
            else:
                prepared.append(answer)
        # The longest first: a long video that starts last would keep one actor busy at the end, and the others idle.
        return sorted(prepared, key=lambda job: (-job.frames, job.job.row))

    def _render(self, groups: Sequence[Sequence[Span]], pools: Pools) -> None:
        for chunk in flow(groups, pools, self._constructor):
            self._progress.chunk(chunk)
            job = self._open.get(chunk.job.job_id)
            if job is not None:
                self._chunks[job.job.job_id].append(chunk)
                chunks = self._chunks[job.job.job_id]
                if chunk.error:
                    self._end(results.failed(job.job, chunk.error, chunks))
                elif sum(part.stop - part.start for part in chunks) == job.frames:
                    self._start_finalizing(job)
            self._collect(wait=False)
        for job in list(self._open.values()):
            self._start_finalizing(job)

    def _start_finalizing(self, job: PreparedJob) -> None:
        """The job's last chunk is there, or none will come: join what there is."""
        del self._open[job.job.job_id]
        chunks = self._chunks.pop(job.job.job_id, [])
        self._finalizing[finalize_job.remote(job, chunks, self._work, self._weights_digest)] = job.job

    def _collect(self, *, wait: bool) -> None:
        while self._finalizing:
            done, _ = ray.wait(list(self._finalizing), timeout=None if wait else 0)
            if not done:
                return
            self._end(_answer(done[0], self._finalizing.pop(done[0])))

    def _end(self, row: Row) -> None:
        self._open.pop(row["job_id"], None)
        self._table.add(row)
        self._progress.job(row["job_id"], row["status"], f"{row['error_type']}: {row['error']}")

    def _give_up(self, error: ClusterError) -> None:
        self._collect(wait=True)
        for job in list(self._open.values()):
            self._end(results.failed(job.job, error))


def group_spans(prepared: Sequence[PreparedJob], work: Work) -> list[list[Span]]:
    """Spans of the same video, range and analysis settings together, so that each is walked once for all languages."""
    groups: dict[tuple[str, str, int, int], list[Span]] = defaultdict(list)
    for job in prepared:
        for span in job.spans:
            key = (job.job.video_digest, work.analysis_fingerprint(job.job), span.start, span.stop)
            groups[key].append(span)
    return list(groups.values())


def _answer(ref: "ray.ObjectRef[Any]", job: Job) -> Any:
    """A task's answer; one that died, or failed in a way that isn't ours, fails its job alone."""
    try:
        return ray.get(ref)
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        return results.failed(job, f"{type(cause).__name__}: {cause}")


@ray.remote(num_cpus=PREPARE_CPUS)
def prepare_job(job: Job, work: Work) -> PreparedJob | Row:
    """Check one job; a failed results row where it can't be dubbed."""
    try:
        return prepare(job, work)
    except (InputError, StorageError) as error:
        return results.failed(job, error)


@ray.remote(num_cpus=FINALIZE_CPUS)
def finalize_job(prepared: PreparedJob, chunks: list[Chunk], work: Work, weights_digest: str) -> Row:
    """Join one job's chunks, and publish its output."""
    return finalize(prepared, chunks, work, weights_digest)
