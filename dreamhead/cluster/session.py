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
from dreamhead.config import PoolSettings, PoolsSettings
from dreamhead.errors import ClusterError

LOCAL_OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Rows are kilobytes: what Ray would take by itself, a third of the memory, is better left to the frames."""

GPU_DIGITS = 4
"""Decimal places that Ray counts resources to."""

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
    bundles = bundles_of(given)
    request_resources(
        bundles=[bundle for bundle, _ in bundles], bundle_label_selectors=[selector for _, selector in bundles]
    )
    deadline = time.monotonic() + pools.wait_for_nodes_s
    try:
        while not fits(cluster_nodes()) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
    finally:
        # From here on the pools' actors hold the machines.
        request_resources(bundles=[])


def bundles_of(pools: Sequence[PoolSettings]) -> list[tuple[dict[str, float], dict[str, str]]]:
    """Resources and label selectors to ask the autoscaler for: what the smallest pools need, and one finalising task.

    Actors that share a GPU are one bundle: the autoscaler reckons in floating point, in which 0.2 of a GPU doesn't fit
    beside 0.8, and would start a machine for each.
    """
    actors = sorted((pool for pool in pools for _ in range(pool.min_size)), key=lambda pool: -pool.num_gpus)
    bundles: list[tuple[dict[str, float], dict[str, str]]] = []
    for pool in actors:
        selector = dict(pool.label_selector)
        for bundle, others in bundles:
            shared = round(bundle.get("GPU", 0.0) + pool.num_gpus, GPU_DIGITS)
            if pool.num_gpus and others == selector and shared <= 1:
                bundle["GPU"], bundle["CPU"] = shared, bundle["CPU"] + pool.num_cpus
                break
        else:
            bundles.append(({"CPU": pool.num_cpus, "GPU": pool.num_gpus}, selector))
    bundles.append(({"CPU": FINALIZE_CPUS}, {}))
    return [({name: share for name, share in bundle.items() if share}, selector) for bundle, selector in bundles]


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
