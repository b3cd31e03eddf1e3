"""Pools: sized for any machine, refused when they'd hang."""

import pytest

from dreamhead.cluster.pools import FINALIZE_CPUS, Node, needed_cpus, plan_pools
from dreamhead.config import PoolSettings, PoolsSettings
from dreamhead.errors import ClusterError


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
def test_what_is_sized_here_fits_without_gpus(cpus: int) -> None:
    pools = plan_pools(PoolsSettings(), [Node(cpus, 0)], use_gpus=True)
    assert 0.5 * cpus < needed_cpus(pools) <= cpus
    assert not any(pool.num_gpus for pool in pools.named().values())


@pytest.mark.parametrize(("nodes", "gpus"), [([Node(16, 1)], 1), ([Node(0, 0), Node(8, 0), Node(8, 8)], 8)])
def test_every_gpu_renders(nodes: list[Node], gpus: int) -> None:
    pools = plan_pools(PoolsSettings(), nodes, use_gpus=True)
    assert (pools.render.min_size, pools.render.num_gpus, pools.render.num_cpus) == (gpus, 0.8, 0)
    assert (pools.landmarks.min_size, pools.landmarks.num_gpus) == (1, 0.2)


def test_gpus_are_left_alone_when_the_device_is_the_cpu() -> None:
    pools = plan_pools(PoolsSettings(), [Node(4, 4)], use_gpus=False)
    assert pools.render.num_gpus == 0


def test_given_pools_stay_as_they_are() -> None:
    given = PoolSettings(min_size=2, max_size=5, num_cpus=0.5)
    pools = plan_pools(PoolsSettings(analyse=given), [Node(8, 0)], use_gpus=True)
    assert pools.analyse is given


def test_pools_that_eat_all_cpus_are_refused_with_what_to_change() -> None:
    settings = PoolsSettings(
        analyse=PoolSettings(min_size=2, max_size=2), landmarks=PoolSettings(), render=PoolSettings()
    )
    with pytest.raises(
        ClusterError,
        match=r"need 4.25 CPUs \(analyse 2 x 1, landmarks 1 x 1, render 1 x 1 and 0.25 for finalising\), "
        r"the cluster has 4: lower pools.<name>.min_size or pools.<name>.num_cpus, or add nodes",
    ):
        plan_pools(settings, [Node(4, 0)], use_gpus=True)


def test_gpus_that_arent_there_are_refused() -> None:
    with pytest.raises(ClusterError, match=r"need 1 GPUs .*the cluster has 0"):
        plan_pools(PoolsSettings(render=PoolSettings(num_gpus=1.0)), [Node(8, 0)], use_gpus=True)


def test_shares_that_fit_in_sum_and_on_no_gpu_are_refused() -> None:
    render = PoolSettings(min_size=3, max_size=3, num_cpus=0, num_gpus=0.6)
    landmarks = PoolSettings(num_cpus=0)
    with pytest.raises(ClusterError, match=r"no node has room for each actor of the render pool \(0 CPUs, 0.6 GPUs\)"):
        plan_pools(PoolsSettings(render=render, landmarks=landmarks), [Node(8, 2)], use_gpus=True)


def test_an_actor_larger_than_a_node_is_refused() -> None:
    render = PoolSettings(num_cpus=3)
    with pytest.raises(ClusterError, match="no node has room for each actor of the render pool"):
        plan_pools(PoolsSettings(render=render), [Node(2, 0)] * 4, use_gpus=True)


def test_finalising_finds_room() -> None:
    pools = plan_pools(PoolsSettings(), [Node(2, 0)], use_gpus=True)
    reserved = sum(pool.min_size * pool.num_cpus for pool in pools.named().values())
    assert 2 - reserved >= FINALIZE_CPUS
