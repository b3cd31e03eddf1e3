"""The driver is killed, interrupted or told to end in the middle: nothing is half there, and a rerun does the rest."""

import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from dreamhead.cluster.command import INTERRUPTED, SUCCEEDED, TERMINATED
from dreamhead.cluster.manifest import read_manifest
from dreamhead.config import DubSettings, load_yaml
from dreamhead.stages.dub import dub
from tests.cluster.farm import Farm

CHUNKS = 64
IN_FLIGHT = 3
"""Chunks that the run was busy with: one an actor."""
PATIENCE_S = 240


def run_until(farm: Farm, chunks: int) -> "subprocess.Popen[str]":
    """The batch command, going on, with at least so many chunks done."""
    process = farm.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(farm.sidecars()) < chunks and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0]
    return process


def finish(farm: Farm, *more: str) -> str:
    """The batch command to its end; what it printed."""
    process = farm.start("work", *more)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == SUCCEEDED, printed
    return printed


def reference(farm: Farm) -> list[bytes]:
    """The outputs of a run that nobody disturbs, without Ray."""
    settings = load_yaml(farm.config, DubSettings)
    for job in read_manifest(str(farm.manifest)).jobs:
        assert dub(job, settings, farm.checkpoint, str(farm.folder / "work-alone"))["status"] == "succeeded"
    outputs = [path.read_bytes() for path in outputs_of(farm)]
    for path in outputs_of(farm):
        path.unlink()
    return outputs


def outputs_of(farm: Farm) -> list[Path]:
    return [farm.folder / "out" / f"{index}.mp4" for index in range(2)]


def test_a_killed_driver_loses_only_what_was_in_flight(long_farm: Farm) -> None:
    farm = long_farm
    wanted = reference(farm)
    process = run_until(farm, 5)
    process.kill()
    process.communicate()
    wait_until_still(farm)
    done = {path: path.stat().st_mtime_ns for path in farm.sidecars()}
    assert 5 <= len(done) < CHUNKS
    assert not any(path.exists() for path in outputs_of(farm))

    process = run_until(farm, len(done) + 5)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == INTERRUPTED
    assert "interrupted; the same command goes on where this one stopped" in printed
    assert "interrupted" in (farm.folder / "report.html").read_text()
    interrupted = len(farm.sidecars())

    process = run_until(farm, interrupted + 5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == TERMINATED
    wait_until_still(farm)
    before = len(farm.sidecars())

    finish(farm)
    rows = farm.rows_of_results()
    assert sum(row["chunks_rendered"] for row in rows) == CHUNKS - before
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert [path.read_bytes() for path in outputs_of(farm)] == wanted
    leftovers = [path for path in farm.folder.rglob("*") if path.name.endswith(".unfinished")]
    assert len(leftovers) <= IN_FLIGHT  # Of the killed processes; never listed, never read.

    # A run of what is finished does nothing, and knows all of it.
    again = finish(farm)
    assert "0 of 2 jobs to do" in again
    assert [(row["status"], row["chunks_rendered"]) for row in farm.rows_of_results()] == [("succeeded", 0)] * 2
    assert np.array_equal([row["frames"] for row in farm.rows_of_results()], [192, 192])


def wait_until_still(farm: Farm) -> None:
    """Actors outlive their driver by a moment, and may publish what they were at."""
    seen, since = len(farm.sidecars()), time.monotonic()
    while time.monotonic() < since + 4:
        if len(farm.sidecars()) != seen:
            seen, since = len(farm.sidecars()), time.monotonic()
        time.sleep(0.1)
