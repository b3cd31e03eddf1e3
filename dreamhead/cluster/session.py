"""Connect to the Ray cluster that this process runs on, or start one inside the process."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from dreamhead.cluster.pools import FINALIZE_CPUS, Node
from dreamhead.config import PoolsSettings

LOCAL_OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Rows are kilobytes: what Ray would take by itself, a third of the memory, is better left to the frames."""


@contextmanager
def ray_session(pools: PoolsSettings) -> Iterator[None]:
    """Ray as `ray_with_cpus` gives it, with as many CPUs as the pools that are given need."""
    with ray_with_cpus(_needed(pools)):
        yield


@contextmanager
def ray_with_cpus(needed: int) -> Iterator[None]:
    """Use the Ray that is running in this process, or the cluster that RAY_ADDRESS names, else start one here.

    A Ray started here counts as many CPUs as are needed, if that is more than there are: the machine's cores are then
    shared. What was started or connected here is shut down at the end.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if address and address != "local":
        ray.init(address=address, log_to_driver=False)
    else:
        _start_local(needed)
    try:
        yield
    finally:
        ray.shutdown()


def cluster_nodes() -> list[Node]:
    """The machines that are up, and what each offers."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return [Node(cpus=float(offer.get("CPU", 0)), gpus=float(offer.get("GPU", 0))) for offer in resources]


def _needed(pools: PoolsSettings) -> int:
    given = [pool for pool in (pools.analyse, pools.landmarks, pools.render) if pool is not None]
    needed = math.ceil(sum(pool.min_size * pool.num_cpus for pool in given) + FINALIZE_CPUS)
    return needed if len(given) == 3 else needed + 1


def _start_local(needed: int) -> None:
    # Ray's native code reports, as errors on the terminal, what its own issue 53727 calls harmless.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, needed),
        object_store_memory=LOCAL_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
