"""Jobs that end in tasks of their own: no row is lost, whatever happens to the task, its storage or its machines."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from dreamhead.cluster import checking, driver, finishing
from dreamhead.cluster.driver import BatchRun
from dreamhead.cluster.finishing import Finishing
from dreamhead.cluster.pools import Pools
from dreamhead.cluster.progress import BatchProgress
from dreamhead.cluster.table import ResultsTable
from dreamhead.config import DubSettings, PoolSettings, PoolsSettings
from dreamhead.errors import ClusterError, DiskFullError, StorageError
from dreamhead.records import Job
from dreamhead.stages import results
from dreamhead.stages.opening import fitted
from dreamhead.stages.prepare import PreparedJob
from dreamhead.stages.results import NOTHING, Row, Tally
from dreamhead.stages.work import Work
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.ray


@ray.remote(num_cpus=1000)
def never(*arguments: Any) -> Row:
    """No machine is large enough."""
    raise AssertionError


@ray.remote(num_cpus=0.25)
def disk_is_full(prepared: PreparedJob, work: Work, digest: str, tally: Tally, clean: bool) -> Row:
    """The first job's output finds no room."""
    job = prepared.job
    return results.failed(job, "DiskFullError: no space left") if job.row == 0 else results.failed(job, "MediaError: x")


def job(row: int) -> Job:
    return Job(job_id=f"job{row}", row=row, video_uri="v", audio_uri="a", output_uri=f"{row}.mp4")


class Run:
    """A run of three jobs whose chunks are all there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table = ResultsTable(str(folder / "results.parquet"))
        self._checkpoint = str(tiny_checkpoint(folder / "checkpoint"))
        self._work_uri = str(folder / "work")
        self.settings = fitted(DubSettings(device="cpu"), self._checkpoint)
        one = PoolSettings(min_size=1, max_size=1, num_cpus=0.5)
        pools = Pools(analyse=one, landmarks=one, render=one)
        monkeypatch.setattr(BatchRun, "_plan_pools", lambda self: pools)
        monkeypatch.setattr(driver, "check", self._checked)
        self.answers: list[PreparedJob | Row] = [PreparedJob(job=job(row), frames=10) for row in range(3)]

    def _checked(self, jobs: Sequence[Job], *arguments: Any, **more: Any) -> Iterator[PreparedJob | Row]:
        yield from self.answers

    def __call__(self, finish: Any) -> None:
        progress = BatchProgress(Console(file=io.StringIO()), 3)
        BatchRun(self.settings, self._checkpoint, self._work_uri, self.table, progress, finish=finish)(
            [*map(job, range(3))]
        )

    def errors(self) -> list[str]:
        """How each job ended, by row."""
        return [f"{row['error_type']}: {row['error']}" for row in self.table.rows]


@pytest.fixture
def run(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_a_disk_that_is_full_when_a_job_ends_loses_no_row(run: Run) -> None:
    with pytest.raises(DiskFullError, match="no space left"):
        run(disk_is_full)
    assert run.errors()[0] == "DiskFullError: no space left"
    assert set(run.errors()[1:]) <= {"MediaError: x", "DiskFullError: no space left"}
    assert len(run.errors()) == 3


def test_a_disk_that_is_full_when_jobs_are_checked_loses_no_row(run: Run) -> None:
    run.answers[1] = results.failed(job(1), DiskFullError("no space left"))
    with pytest.raises(DiskFullError):
        run(disk_is_full)
    assert run.errors() == ["DiskFullError: no space left"] * 3


def test_jobs_that_no_machine_finishes_end_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "longest_wait_s", lambda work: 0.5)
    run.settings = run.settings.model_copy(update={"pools": PoolsSettings(finalize_timeout_s=0.5)})
    with pytest.raises(ClusterError, match=r"none of 3 tasks .* ended for 0.5 s .* free CPUs"):
        run(never)
    assert [error.partition(":")[0] for error in run.errors()] == ["ClusterError"] * 3


def test_the_longest_wait_is_longer_than_any_task(tmp_path: Path) -> None:
    class AnyWork:
        settings = DubSettings.model_validate({"pools": {"finalize_timeout_s": 9000.0}})

    work: Any = AnyWork()
    tries = 1 + finishing.finish_job._default_options["max_retries"]
    assert checking.longest_wait_s(work) > tries * 9000.0


def test_a_published_job_stays_so_when_its_chunks_cannot_be_deleted(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise StorageError("connection refused")

    monkeypatch.setattr(finishing, "free_job", refuse)
    finishing._free(job(0), None)  # type: ignore[arg-type]


def test_what_ended_is_told_once(ray_session: None) -> None:
    work: Any = None
    ends = Finishing(work, "", clean=False, finish=disk_is_full)
    for row in (1, 2):
        ends.start(PreparedJob(job=job(row), frames=1), NOTHING)
    assert sorted(row["job_id"] for row in ends.ended(wait_s=60.0)) == ["job1", "job2"]
    assert list(ends.ended(wait_s=60.0)) == []
