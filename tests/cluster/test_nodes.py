"""A cluster of several nodes with GPUs that aren't real: work spreads, a node that is lost costs a few chunks."""

import json
import time
from collections.abc import Iterator

import pytest
from ray._private.node import Node
from ray.cluster_utils import Cluster

from dreamhead.cluster.command import REFUSED, SUCCEEDED
from tests.cluster.farm import Farm

PATIENCE_S = 240
POOLS = {
    "analyse": {"num_cpus": 0.5, "label_selector": {"pool": "cpu"}},
    "landmarks": {"num_cpus": 0, "num_gpus": 0.2, "min_size": 2, "max_size": 2},
    "render": {"num_cpus": 0, "num_gpus": 0.8, "min_size": 2, "max_size": 2},
}
"""On two nodes with a GPU each, and one without."""
SPANS = range(16)
"""Of 192 frames, half a second each."""


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, Node]]:
    """A head without work, a node for analysis and two with a GPU, the last of which comes along."""
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.add_node(num_cpus=1, labels={"pool": "cpu"})
    gpu_nodes = [nodes.add_node(num_cpus=1, num_gpus=1, labels={"pool": "gpu"}) for _ in range(2)]
    yield nodes, gpu_nodes[-1]
    nodes.shutdown()


def machines_of(farm: Farm, stage: str) -> set[str]:
    """Machines on which this run tried a piece of the stage's work."""
    folder = farm.folder / "work" / "jobs"
    records = [json.loads(path.read_text())["tries"] for path in sorted(folder.rglob(f"attempts/{stage}-*.json"))]
    return {one["node"] for tries in records for one in tries}


def test_work_spreads_over_both_pools_and_a_lost_node_is_made_up_for(
    long_farm: Farm, machines: tuple[Cluster, Node]
) -> None:
    farm, (cluster, gpu_node) = long_farm, machines
    languages = [farm.rows[0] | {"job_id": f"more{n}", "seed": n, "output_uri": f"out/more{n}.mp4"} for n in range(3)]
    farm.rows += languages
    farm.write_manifest()
    farm.configure({}, pools=POOLS)
    process = farm.start(RAY_ADDRESS=cluster.address)
    deadline = time.monotonic() + PATIENCE_S
    while len(machines_of(farm, "render")) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]
    cluster.remove_node(gpu_node, allow_graceful=False)
    # Both pools want their two actors each: there must be room for them again.
    cluster.add_node(num_cpus=1, num_gpus=1, labels={"pool": "gpu"})
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == SUCCEEDED, printed
    rows = farm.rows_of_results()
    assert [(row["status"], row["frames"], row["chunks"]) for row in rows] == [("succeeded", 192, 32)] * 5
    assert sum(row["chunks_rendered"] for row in rows) == 5 * 32
    # One walked the video for all languages; of the others each machine had its share.
    assert len(machines_of(farm, "analyse")) == 1
    assert len(list((farm.folder / "work" / "analysis").rglob("shot-*.npz"))) == len(SPANS)
    assert len(machines_of(farm, "landmarks")) >= 2
    # The machine that took the lost one's place rendered as well.
    assert len(machines_of(farm, "render")) == 3


def test_pools_that_no_node_fits_are_refused_with_what_to_change(farm: Farm, machines: tuple[Cluster, Node]) -> None:
    cluster, _ = machines
    farm.configure({}, pools=POOLS | {"render": POOLS["render"] | {"label_selector": {"pool": "big"}}})
    process = farm.start(RAY_ADDRESS=cluster.address)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == REFUSED
    assert "no node has room for each actor of the render pool (0 CPUs, 0.8 GPUs, labels {'pool': 'big'})" in printed
