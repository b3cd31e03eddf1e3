"""As a farm uses it: `ray start`, `ray job submit`, and the outputs are there."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.farm import ROOT, Farm, environment_with

RAY = str(Path(sys.executable).with_name("ray"))
PATIENCE_S = 240


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def environment() -> dict[str, str]:
    """Without a token: one that lies in the home directory would make Ray ask for it."""
    bin_path = str(Path(sys.executable).parent)
    given = environment_with(RAY_AUTH_MODE="disabled", PATH=f"{bin_path}:/usr/bin:/bin")
    return {key: value for key, value in given.items() if key not in ("RAY_ADDRESS", "PYTHONPATH")}


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the job server of a cluster of one node, started by `ray start`."""
    gcs, dashboard, client, agent, metrics = free_ports(5)
    log = (tmp_path_factory.mktemp("head") / "head.log").open("w")
    head = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
            *(f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
            *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--metrics-export-port={metrics}", "--num-cpus=4", f"--object-store-memory={128 * 1024 * 1024}"),
        ],
        env=environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{dashboard}"
    wait_for(url + "/api/version", head)
    yield url
    head.terminate()
    head.wait(timeout=60)
    log.close()


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"{url} doesn't answer; the head's exit status is {process.poll()}")


def submit(address: str, farm: Farm, *more: str) -> "subprocess.CompletedProcess[str]":
    job = ["python", "ray_jobs/batch_render.py", *farm.arguments("work", *more)]
    return subprocess.run(
        [RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT), "--", *job],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_submitted_manifest_is_dubbed(farm: Farm, address: str) -> None:
    done = submit(address, farm)
    # One row is bad: the job says so by its status, and the others are there.
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 jobs succeeded, 1 failed; results in" in done.stdout
    assert [row["status"] for row in farm.rows_of_results()] == ["succeeded", "succeeded", "failed"]
    assert [frames.shape for frames in farm.frames()] == [(24, 256, 256, 3)] * 2

    del farm.rows[2]
    farm.write_manifest()
    again = submit(address, farm)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 of 2 jobs to do" in again.stdout
