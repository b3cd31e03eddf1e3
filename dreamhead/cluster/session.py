"""Connect to the Ray cluster that this process runs on, or start one inside the process."""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.autoscaler.sdk import request_resources

from dreamhead.cluster.pools import FINALIZE_CPUS, Node
from dreamhead.config import PoolsSettings
from dreamhead.errors import ClusterError

LOCAL_OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Rows are kilobytes: what Ray would take by itself, a third of the memory, is better left to the frames."""

LOOK_EVERY_S = 1.0
"""How often it is looked whether machines are up."""


@contextmanager
def ray_session(pools: PoolsSettings) -> Iterator[None]:
    """Ray as `ray_with_cpus` gives it, with as many CPUs as the pools that are given need."""
    with ray_with_cpus(_needed(pools)):
        yield


@contextmanager
def ray_with_cpus(needed: int) -> Iterator[None]:
    """Use the Ray that is running in this process, or the cluster that RAY_ADDRESS names, else start one here.

    A Ray started here counts as many CPUs as are needed, if that is more than there are: the machine's cores are then
    shared. What was started or connected here is shut down at the end. Raises ClusterError where Ray isn't to be had.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    with _own_sigterm(), _told_as_cluster_error(address):
        if address and address != "local":
            ray.init(address=address, log_to_driver=False)
        else:
            _start_local(needed)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _told_as_cluster_error(address: str) -> Iterator[None]:
    """Ray raises whatever it likes, plain Exception too, when it can't start or finds no cluster."""
    try:
        yield
    except Exception as error:
        what = f"no Ray cluster at RAY_ADDRESS={address}" if address and address != "local" else "Ray doesn't start"
        raise ClusterError(f"{what}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}") from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the process's own answer to SIGTERM: Ray's raises SystemExit, at which its native code may abort."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if callable(own) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


def cluster_nodes() -> list[Node]:
    """The machines that are up, and what each offers."""
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return [
        Node(
            cpus=float(node["Resources"].get("CPU", 0)),
            gpus=float(node["Resources"].get("GPU", 0)),
            labels=dict(node.get("Labels") or {}),
        )
        for node in alive
    ]


def is_node_lost(node_id: str) -> bool:
    """Whether a machine that was part of the cluster is gone."""
    return bool(node_id) and not any(
        node["NodeID"] == node_id and node["Alive"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
    )


def wait_for_nodes(pools: PoolsSettings, fits: Callable[[Sequence[Node]], bool]) -> None:
    """Ask the autoscaler for the machines that the given pools need, and wait until they are up.

    Waits for `wait_for_nodes_s` at most: whoever goes on then says what is missing.
    """
    given = [pool for pool in (pools.analyse, pools.landmarks, pools.render) if pool is not None]
    if not pools.wait_for_nodes_s or fits(cluster_nodes()):
        return
    actors = [pool for pool in given for _ in range(pool.min_size)]
    # The last is for checking and finalising.
    bundles = [*({"CPU": pool.num_cpus, "GPU": pool.num_gpus} for pool in actors), {"CPU": FINALIZE_CPUS}]
    selectors = [*(dict(pool.label_selector) for pool in actors), {}]
    wanted = [{name: share for name, share in bundle.items() if share} for bundle in bundles]
    request_resources(bundles=wanted, bundle_label_selectors=selectors)
    deadline = time.monotonic() + pools.wait_for_nodes_s
    try:
        while not fits(cluster_nodes()) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
    finally:
        # From here on the pools' actors hold the machines.
        request_resources(bundles=[])


def _needed(pools: PoolsSettings) -> int:
    given = [pool for pool in (pools.analyse, pools.landmarks, pools.render) if pool is not None]
    needed = math.ceil(sum(pool.min_size * pool.num_cpus for pool in given) + FINALIZE_CPUS)
    return needed if len(given) == 3 else needed + 1


def _start_local(needed: int) -> None:
    # Ray's native code reports, as errors on the terminal, what its own issue 53727 calls harmless.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # A process that finalises jobs takes seconds to import what it needs: it is kept until the next job ends.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, needed),
        object_store_memory=LOCAL_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
