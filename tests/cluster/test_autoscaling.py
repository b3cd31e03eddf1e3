"""A cluster that is a head alone: Ray's autoscaler brings the machines that a manifest needs, and ends them."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from dreamhead.cluster.command import SUCCEEDED
from tests.cluster.farm import Farm
from tests.cluster.test_nodes import PATIENCE_S, POOLS, machines_of
from tests.cluster.test_submit import RAY, environment, free_ports, wait_for

HEAD = "ray.head.default"
CONFIG: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": 4,
    "upscaling_speed": 1,
    "idle_timeout_minutes": 0.05,
    "head_node_type": HEAD,
    # Each machine is a raylet on this one.
    "provider": {
        # Ray's own name for this provider wants a file that isn't in its wheel.
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
    },
    "available_node_types": {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 2}, "labels": {"pool": "cpu"}, "node_config": {}, "max_workers": 2},
        "gpu": {"resources": {"CPU": 1, "GPU": 1}, "labels": {"pool": "gpu"}, "node_config": {}, "max_workers": 2},
    },
    **{name: {} for name in ("auth", "docker", "file_mounts", "head_node", "worker_nodes")},
    **{name: [] for name in ("initialization_commands", "setup_commands", "cluster_synced_files")},
    **{name: [] for name in ("head_setup_commands", "worker_setup_commands")},
    **{name: [] for name in ("head_start_ray_commands", "worker_start_ray_commands")},
}


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of Ray and of the dashboard; the head does no work, its autoscaler starts machines that aren't real."""
    folder = tmp_path_factory.mktemp("autoscaling")
    gcs, dashboard, client, agent, metrics = free_ports(5)
    config = CONFIG | {"provider": CONFIG["provider"] | {"gcs_address": f"127.0.0.1:{gcs}"}}
    (folder / "cluster.json").write_text(json.dumps(config))
    fake = {
        "RAY_FAKE_CLUSTER": "1",
        # As `ray up` and KubeRay start it: Ray's first autoscaler knows no labels.
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
            *(f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-cpus=0"),
            *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--metrics-export-port={metrics}", f"--object-store-memory={128 * 1024 * 1024}"),
            f"--autoscaling-config={folder / 'cluster.json'}",
        ],
        env=environment() | fake,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{dashboard}"
    wait_for(url + "/api/version", process)
    yield f"127.0.0.1:{gcs}", url
    process.terminate()
    process.wait(timeout=60)
    log.close()


def pools_of_machines(url: str) -> list[str]:
    """The label `pool` of each machine that is up; the head has none."""
    with urllib.request.urlopen(url + "/api/v0/nodes", timeout=30) as response:
        nodes = json.load(response)["data"]["result"]["result"]
    return sorted(node["labels"]["pool"] for node in nodes if node["state"] == "ALIVE" and "pool" in node["labels"])


def test_machines_come_with_the_work_and_go_after_it(farm: Farm, head: tuple[str, str]) -> None:
    address, url = head
    del farm.rows[2]
    farm.write_manifest()
    farm.configure({}, pools=POOLS | {"wait_for_nodes_s": PATIENCE_S})
    assert pools_of_machines(url) == []
    process = farm.start(RAY_ADDRESS=address, RAY_AUTH_MODE="disabled")
    most: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        most = max(most, pools_of_machines(url), key=len)
        time.sleep(0.5)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == SUCCEEDED, printed
    assert most == ["cpu", "gpu", "gpu"]
    assert [row["status"] for row in farm.rows_of_results()] == ["succeeded"] * 2
    assert len(machines_of(farm, "analyse")) == 1
    while pools_of_machines(url) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert pools_of_machines(url) == []
