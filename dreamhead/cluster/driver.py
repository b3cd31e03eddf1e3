"""Run a manifest on Ray: check the jobs, render what is missing, finalise each job as its last chunk ends."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ray.remote_function import RemoteFunction

from dreamhead.cluster.checking import check, longest_wait_s
from dreamhead.cluster.finishing import Finishing
from dreamhead.cluster.flow import Stages, flow
from dreamhead.cluster.pools import Node, Pools, plan_pools
from dreamhead.cluster.progress import BatchProgress
from dreamhead.cluster.session import cluster_nodes, wait_for_nodes
from dreamhead.cluster.table import ResultsTable
from dreamhead.config import DubSettings
from dreamhead.errors import ClusterError, DiskFullError, DreamheadError
from dreamhead.records import Chunk, Job, Span
from dreamhead.stages import results
from dreamhead.stages.opening import open_work
from dreamhead.stages.prepare import PreparedJob
from dreamhead.stages.results import NOTHING, Row, Tally
from dreamhead.stages.work import Work

logger = logging.getLogger(__name__)


class BatchRun:
    """One run of a manifest's jobs. Expects Ray to be there; the table and the progress belong to the caller.

    Args:
        retry_failed: try again what an earlier run gave up.
        clean: delete a job's chunks once its output is published.
        stages: what the pools run.
        finish: the task that ends a job; the real one unless given.
    """

    def __init__(
        self,
        settings: DubSettings,
        checkpoint_uri: str,
        work_uri: str,
        table: ResultsTable,
        progress: BatchProgress,
        *,
        retry_failed: bool = False,
        clean: bool = False,
        stages: Stages | None = None,
        finish: RemoteFunction | None = None,
    ) -> None:
        self._constructor = (settings, checkpoint_uri, work_uri)
        self._settings = settings
        self._table = table
        self._progress = progress
        self._retry_failed = retry_failed
        self._work, weights_digest = open_work(settings, checkpoint_uri, work_uri)
        self._finishing = Finishing(self._work, weights_digest, clean=clean, finish=finish)
        self._stages = stages
        self._open: dict[str, _OpenJob] = {}
        """Jobs whose chunks are still coming."""
        self._left: dict[str, Job] = {}
        """Jobs without a row."""

    def __call__(self, jobs: Sequence[Job]) -> None:
        """Dub every job, or say in the table why not.

        Raises a DreamheadError where the whole run can't go on; the jobs that it leaves are then failed
        rows, and the next run goes on with them.
        """
        self._left = {job.job_id: job for job in jobs}
        try:
            pools = self._plan_pools()
            prepared = self._check(jobs)
            self._progress.plan(
                len(prepared), sum(job.frames for job in prepared), sum(job.frames_done for job in prepared), pools
            )
            for job in prepared:
                self._open[job.job.job_id] = _OpenJob(job)
                if not job.spans:
                    self._start_finishing(job.job.job_id)
            if groups := group_spans(prepared, self._work):
                self._render(groups, pools)
            self._end_all(self._finishing.ended(wait_s=longest_wait_s(self._work)))
        except DreamheadError as error:
            self._give_up(error)
            raise

    def _plan_pools(self) -> Pools:
        settings, use_gpus = self._settings.pools, self._settings.device != "cpu"

        def fits(nodes: Sequence[Node]) -> bool:
            try:
                plan_pools(settings, nodes, use_gpus=use_gpus)
            except ClusterError:
                return False
            return True

        wait_for_nodes(settings, fits)
        nodes = cluster_nodes()
        if self._settings.device == "cuda" and not any(node.gpus for node in nodes):
            raise ClusterError("device: cuda was asked for, but no node of the cluster has a GPU; allowed: auto, cpu")
        return plan_pools(settings, nodes, use_gpus=use_gpus)

    def _check(self, jobs: Sequence[Job]) -> list[PreparedJob]:
        """Those that are to be dubbed; the others, whose rows are known, end here."""
        prepared: list[PreparedJob] = []
        cpus = sum(node.cpus for node in cluster_nodes())
        answers = check(jobs, self._work, retry_failed=self._retry_failed, cpus=cpus)
        for count, answer in enumerate(answers, start=1):
            self._progress.checked(count)
            if not isinstance(answer, PreparedJob):
                self._end(answer)
            elif answer.result is not None:
                self._end(answer.result)
            else:
                prepared.append(answer)
        return longest_first(prepared)

    def _render(self, groups: Sequence[Sequence[Span]], pools: Pools) -> None:
        for chunk in flow(groups, pools, self._constructor, self._stages):
            _refuse_full_disk(chunk.error)
            self._progress.chunk(chunk)
            job = self._open.get(chunk.job.job_id)
            if job is not None:
                job.add(chunk)
                if chunk.error:
                    self._end(results.failed(chunk.job, chunk.error, job.tally))
                elif job.is_complete:
                    self._start_finishing(chunk.job.job_id)
            self._end_all(self._finishing.ended(wait_s=0.0))
        # Another run may have made what this one still waits for.
        for job_id in list(self._open):
            self._start_finishing(job_id)

    def _start_finishing(self, job_id: str) -> None:
        job = self._open.pop(job_id)
        self._finishing.start(job.prepared, job.tally)

    def _end_all(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._end(row)

    def _end(self, row: Row) -> None:
        self._tell(row)
        _refuse_full_disk(f"{row['error_type']}: {row['error']}")

    def _tell(self, row: Row) -> None:
        self._open.pop(row["job_id"], None)
        self._left.pop(row["job_id"], None)
        self._table.add(row)
        self._progress.job(row)

    def _give_up(self, error: DreamheadError) -> None:
        try:
            # Those that are being published are nearly done; those that find no machine aren't waited for any longer.
            for row in self._finishing.ended(wait_s=self._settings.pools.finalize_timeout_s):
                self._tell(row)
        except ClusterError as unended:
            logger.warning("%s", unended)
        for job_id, job in self._left.items():
            tally = self._open[job_id].tally if job_id in self._open else NOTHING
            self._table.add(results.failed(job, error, tally))


class _OpenJob:
    """A job whose chunks are still coming."""

    def __init__(self, prepared: PreparedJob) -> None:
        self.prepared = prepared
        self.tally = Tally()
        self._frames_left = prepared.frames - prepared.frames_done
        self._rendered: set[int] = set()

    def add(self, chunk: Chunk) -> None:
        self.tally = self.tally.plus(chunk)
        # A chunk of an earlier run, in a span that isn't whole, comes by as well; Ray may bring one twice.
        if chunk.attempt and not chunk.error and chunk.start not in self._rendered:
            self._rendered.add(chunk.start)
            self._frames_left -= chunk.stop - chunk.start

    @property
    def is_complete(self) -> bool:
        return self._frames_left <= 0


def longest_first(prepared: Sequence[PreparedJob]) -> list[PreparedJob]:
    """In the order of the work: a long video that starts last would keep one actor busy at the end, the others idle."""
    return sorted(prepared, key=lambda job: (-job.frames, job.job.row))


def group_spans(prepared: Sequence[PreparedJob], work: Work) -> list[list[Span]]:
    """Spans of the same video, range and analysis settings together, so that each is walked once for all languages."""
    groups: dict[tuple[str, str, int, int], list[Span]] = defaultdict(list)
    for job in prepared:
        for span in job.spans:
            key = (job.job.video_digest, work.analysis_fingerprint(job.job), span.start, span.stop)
            groups[key].append(span)
    return list(groups.values())


def _refuse_full_disk(error: str) -> None:
    kind, _, message = error.partition(": ")
    if kind == DiskFullError.__name__:
        raise DiskFullError(message)
