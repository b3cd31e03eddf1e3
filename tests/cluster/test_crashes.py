"""A decoder that crashes the process of a checking or a finalising task costs its own job only."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray

from dreamhead.cluster import checking
from dreamhead.cluster.checking import CHECK_RETRIES, FINISH_RETRIES, check
from dreamhead.cluster.finishing import Finishing
from dreamhead.config import DubSettings
from dreamhead.records import Job
from dreamhead.stages import results
from dreamhead.stages.opening import fitted, open_work
from dreamhead.stages.prepare import PreparedJob
from dreamhead.stages.results import NOTHING, Row, Tally
from dreamhead.stages.work import Work
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.ray

NAMES = ("one", "poison", "two")
DIED = "WorkerCrashedError: the process died, or took longer than pools.finalize_timeout_s"


def decode(job: Job) -> None:
    """A decoder's stand-in: each try leaves a mark and, over poison, a dead process."""
    with Path(f"{job.output_uri}.tries").open("a") as tries:
        tries.write("x")
    if job.job_id == "poison":
        os.kill(os.getpid(), signal.SIGSEGV)


@ray.remote(num_cpus=0.25, max_retries=CHECK_RETRIES)
def check_group(jobs: list[Job], work: Work, retry_failed: bool) -> list[PreparedJob | Row]:
    for job in jobs:
        decode(job)
    return [PreparedJob(job=job, frames=10) for job in jobs]


@ray.remote(num_cpus=0.25, max_retries=FINISH_RETRIES)
def finish_job(prepared: PreparedJob, work: Work, weights_digest: str, tally: Tally, clean: bool) -> Row:
    decode(prepared.job)
    return results.failed(prepared.job, "MediaError: not joined here")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    checkpoint = str(tiny_checkpoint(tmp_path / "checkpoint"))
    return open_work(fitted(DubSettings(device="cpu"), checkpoint), checkpoint, str(tmp_path / "work"))[0]


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    return [
        Job(job_id=name, row=row, video_uri="clip.mp4", audio_uri=f"{name}.wav", output_uri=str(tmp_path / name))
        for row, name in enumerate(NAMES)
    ]


def tries(job: Job) -> int:
    return len(Path(f"{job.output_uri}.tries").read_text())


def test_a_crash_in_a_group_is_found_by_checking_each_alone(
    ray_session: None, monkeypatch: pytest.MonkeyPatch, work: Work, jobs: list[Job]
) -> None:
    monkeypatch.setattr(checking, "check_group", check_group)
    # As one group: a machine with few CPUs checks them so.
    found: list[Any] = list(check(jobs, work, retry_failed=True, cpus=0.1))
    assert {one.job.job_id for one in found if isinstance(one, PreparedJob)} == {"one", "two"}
    (row,) = (one for one in found if not isinstance(one, PreparedJob))
    assert (row["job_id"], row["status"], row["error_type"]) == ("poison", "failed", "WorkerCrashedError")
    told = f"{row['error_type']}: {row['error']}"
    assert told == f"{DIED}; it was looking into clip.mp4 and poison.wav"
    assert tries(jobs[1]) == 2 * (1 + CHECK_RETRIES), "with its group, and alone"


def test_a_crash_at_the_end_of_a_job_fails_that_job(ray_session: None, work: Work, jobs: list[Job]) -> None:
    finishing = Finishing(work, "digest", clean=False, finish=finish_job)
    for job in jobs:
        finishing.start(PreparedJob(job=job, frames=10), NOTHING)
    ended = {row["job_id"]: f"{row['error_type']}: {row['error']}" for row in finishing.ended(wait_s=120)}
    assert ended == {"one": "MediaError: not joined here", "poison": DIED, "two": "MediaError: not joined here"}
    assert [tries(job) for job in jobs] == [1, 1 + FINISH_RETRIES, 1]
