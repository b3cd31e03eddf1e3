"""Ray that can't be had, and waiting for machines that an autoscaler starts."""

from collections.abc import Sequence
from typing import Any

import pytest

from dreamhead.cluster import session
from dreamhead.cluster.pools import FINALIZE_CPUS, Node
from dreamhead.config import PoolSettings, PoolsSettings
from dreamhead.errors import ClusterError

GPU = PoolSettings(min_size=2, max_size=4, num_cpus=0, num_gpus=0.8, label_selector={"pool": "gpu"})
SETTINGS = PoolsSettings(analyse=PoolSettings(num_cpus=1), render=GPU, wait_for_nodes_s=60)


class Autoscaler:
    """Starts a machine each time that somebody looks."""

    def __init__(self) -> None:
        self.nodes: list[Node] = [Node(0, 0)]
        self.asked: list[dict[str, Any]] = []

    def look(self) -> list[Node]:
        if self.asked:
            self.nodes.append(Node(8, 1))
        return list(self.nodes)

    def ask(self, **request: Any) -> None:
        self.asked.append(request)


@pytest.fixture
def autoscaler(monkeypatch: pytest.MonkeyPatch) -> Autoscaler:
    machines = Autoscaler()
    monkeypatch.setattr(session, "cluster_nodes", machines.look)
    monkeypatch.setattr(session, "request_resources", machines.ask)
    monkeypatch.setattr(session, "LOOK_EVERY_S", 0.0)
    return machines


def two_gpus(nodes: Sequence[Node]) -> bool:
    return sum(node.gpus for node in nodes) >= 2


def test_what_the_given_pools_need_is_asked_for_until_it_is_there(autoscaler: Autoscaler) -> None:
    session.wait_for_nodes(SETTINGS, two_gpus)
    assert two_gpus(autoscaler.nodes)
    wanted, released = autoscaler.asked
    assert wanted == {
        "bundles": [{"GPU": 0.8}, {"GPU": 0.8}, {"CPU": 1.0}, {"CPU": FINALIZE_CPUS}],
        "bundle_label_selectors": [{"pool": "gpu"}, {"pool": "gpu"}, {}, {}],
    }
    assert released == {"bundles": []}


def test_actors_that_share_a_gpu_are_asked_for_together() -> None:
    landmarks = PoolSettings(min_size=1, num_cpus=0.5, num_gpus=0.2, label_selector={"pool": "gpu"})
    elsewhere = landmarks.model_copy(update={"label_selector": {}})
    whole = PoolSettings(min_size=1, num_cpus=1, num_gpus=2)
    end = ({"CPU": FINALIZE_CPUS}, {})
    both = [({"CPU": 0.5, "GPU": 1.0}, {"pool": "gpu"}), ({"GPU": 0.8}, {"pool": "gpu"})]
    assert session.bundles_of([landmarks, GPU]) == [*both, end]
    assert session.bundles_of([elsewhere, GPU]) == [
        *[({"GPU": 0.8}, {"pool": "gpu"})] * 2,
        ({"CPU": 0.5, "GPU": 0.2}, {}),
        end,
    ]
    assert session.bundles_of([whole, landmarks]) == [
        ({"CPU": 1.0, "GPU": 2.0}, {}),
        (both[0][0] | {"GPU": 0.2}, {"pool": "gpu"}),
        end,
    ]


def test_nothing_is_asked_for_where_all_fits_or_nobody_waits(autoscaler: Autoscaler) -> None:
    session.wait_for_nodes(SETTINGS, lambda nodes: True)
    session.wait_for_nodes(SETTINGS.model_copy(update={"wait_for_nodes_s": 0.0}), two_gpus)
    assert autoscaler.asked == []


def test_the_wait_has_an_end(autoscaler: Autoscaler) -> None:
    session.wait_for_nodes(SETTINGS.model_copy(update={"wait_for_nodes_s": 0.05}), lambda nodes: False)
    assert autoscaler.asked[-1] == {"bundles": []}


@pytest.mark.parametrize(
    ("address", "said"),
    [("", "Ray doesn't start: "), ("10.0.0.1:6379", "no Ray cluster at RAY_ADDRESS=10.0.0.1:6379: ")],
)
def test_ray_that_is_not_to_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    def fail(**_: object) -> None:
        raise Exception("timed out during startup\nand more")  # noqa: TRY002  What Ray raises.

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(ClusterError) as told, session.ray_with_cpus(1):
        pass
    assert str(told.value) == f"{said}Exception: timed out during startup"
