"""What goes wrong on a farm: actors that die, crash, hang or raise, a full disk. Only the job in question fails."""

import numpy as np
import pytest

from dreamhead.cluster import driver
from dreamhead.cluster.command import REFUSED, SOME_FAILED, SUCCEEDED
from dreamhead.cluster.flow import Stages
from tests.cluster.farm import ONE, Farm
from tests.cluster.faulty import FaultyRenderChunks

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning"),
]


@pytest.fixture
def faulty(farm: Farm, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> Farm:
    """Five jobs of four chunks each, on actors that fail where a file says so, and hang for at most 3 s."""
    flow, stages = driver.flow, Stages(render=FaultyRenderChunks)
    monkeypatch.setattr(driver, "flow", lambda groups, pools, constructor, _: flow(groups, pools, constructor, stages))
    farm.rows = [farm.rows[0] | {"job_id": name, "output_uri": f"out/{name}.mp4"} for name in FAULTS_BY_JOB]
    farm.write_manifest()
    farm.configure(ONE, pools={"chunk_timeout_s": 3})
    (farm.folder / "faults").mkdir()
    return farm


FAULTS_BY_JOB = {"good": "", "killed": "kill once", "poison": "segfault", "slow": "hang", "raising": "raise"}


def put_faults(farm: Farm, faults: dict[str, str]) -> None:
    for job, fault in faults.items():
        if fault:
            (farm.folder / "faults" / f"{job}-6").write_text(fault)


def tries(farm: Farm, job: str) -> int:
    path = farm.folder / "faults" / f"{job}-6.tries"
    return len(path.read_text()) if path.exists() else 0


def test_only_the_jobs_with_a_poisoned_chunk_fail_and_stay_failed_until_told(
    faulty: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    put_faults(faulty, FAULTS_BY_JOB)
    status, rows = faulty.run()
    by_job = {row["job_id"]: row for row in rows}
    assert status == SOME_FAILED
    ended = {job: row["status"] for job, row in by_job.items()}
    assert ended == {
        "good": "succeeded",
        "killed": "succeeded",
        "poison": "failed",
        "slow": "failed",
        "raising": "failed",
    }
    given_up = "frames 6 to 12 of job {} was given up after 3 tries, the last failed with: {}"
    died = "the process died (out of memory, or a crash in native code)"
    assert by_job["poison"]["error"] == given_up.format("poison", died)
    assert by_job["slow"]["error"] == given_up.format("slow", "TimeoutError: it took longer than 3 s")
    assert by_job["raising"]["error"] == given_up.format("raising", "RuntimeError: out of memory on the GPU")
    assert {job: tries(faulty, job) for job in FAULTS_BY_JOB} == {
        "good": 0,
        "killed": 1,
        "poison": 3,
        "slow": 3,
        "raising": 3,
    }
    assert by_job["killed"]["attempts"] == 5  # Four chunks, one of them twice.
    np.testing.assert_array_equal(*[video(faulty, job) for job in ("good", "killed")])

    # The same command leaves them alone, the faults being gone or not.
    for path in (faulty.folder / "faults").iterdir():
        path.unlink()
    status, rows = faulty.run()
    again = {row["job_id"]: row for row in rows}
    assert status == SOME_FAILED
    assert {job: row["error"] for job, row in again.items()} == {job: row["error"] for job, row in by_job.items()}
    assert again["poison"]["warnings"] == "failed in an earlier run; --retry-failed tries it again"
    assert [row["chunks_rendered"] for row in rows] == [0] * 5

    status, rows = faulty.run("work", "--retry-failed")
    assert status == SUCCEEDED
    # What had been rendered of them before they failed isn't rendered again.
    rendered = {row["job_id"]: row["chunks_rendered"] for row in rows}
    assert (rendered["good"], rendered["killed"]) == (0, 0)
    assert all(1 <= rendered[job] <= 4 for job in ("poison", "slow", "raising"))
    np.testing.assert_array_equal(*[video(faulty, job) for job in ("good", "poison")])
    assert "5 jobs succeeded, 0 failed" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["kill once", "raise once"])
def test_an_actor_that_cannot_start_is_replaced(faulty: Farm, fault: str) -> None:
    (faulty.folder / "faults" / "start").write_text(fault)
    del faulty.rows[2:]
    faulty.write_manifest()
    status, rows = faulty.run()
    assert (status, {row["status"] for row in rows}) == (SUCCEEDED, {"succeeded"})
    assert not (faulty.folder / "faults" / "start").exists()


def test_a_full_disk_ends_the_run_and_fails_no_job_for_good(faulty: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    put_faults(faulty, {"good": "fill disk"})
    assert faulty.run()[0] == REFUSED
    assert "DiskFullError: " in capsys.readouterr().err
    rows = faulty.rows_of_results()
    assert len(rows) == len(FAULTS_BY_JOB)
    assert {row["error_type"] for row in rows if row["status"] == "failed"} == {"DiskFullError"}
    (faulty.folder / "faults" / "good-6").unlink()
    status, rows = faulty.run()
    assert (status, {row["status"] for row in rows}) == (SUCCEEDED, {"succeeded"})


def video(farm: Farm, job: str) -> bytes:
    return np.frombuffer((farm.folder / "out" / f"{job}.mp4").read_bytes(), np.uint8)
