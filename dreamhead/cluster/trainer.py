"""Train one stage on Ray Train: workers that come and go, and what they write, told where the command runs."""

import math
import signal
import tempfile
import uuid
from collections.abc import Sequence
from typing import Any

import ray.train
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, get_device

# What `ray.train` itself gives at run time; a type checker finds the first version there.
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from dreamhead.cluster.follow import RestartNotes, followed, last_line
from dreamhead.cluster.pools import Node
from dreamhead.cluster.session import cluster_nodes
from dreamhead.cluster.training_progress import TrainingProgress
from dreamhead.errors import ClusterError, TrainingError
from dreamhead.training.loop import Watcher
from dreamhead.training.plan import Plan
from dreamhead.training.settings import WorkersSettings
from dreamhead.training.stage import train_stage

ASK_EVERY = 10
"""Steps after which all workers ask whether one of their machines is about to be taken away."""
COLLECTIVE_TIMEOUT_S = 3600
"""The others wait this long for the first worker, which validates and saves."""


def train_on_ray(plan: Plan, progress: TrainingProgress) -> None:
    """Train a stage to its end; workers that die are started again and go on from the last checkpoint.

    Raises:
        ClusterError: the workers don't fit the cluster, or died too often.
        TrainingError: the training itself can't go on.
        KeyboardInterrupt: the workers were stopped.
    """
    workers = plan.settings.workers
    nodes = cluster_nodes()
    use_gpu = any(node.gpus for node in nodes) if workers.use_gpu == "auto" else workers.use_gpu
    check_workers_fit(workers, nodes, use_gpu)
    notes = RestartNotes(plan.folder_uri)
    with tempfile.TemporaryDirectory() as scratch, followed(plan.folder_uri, notes, progress):
        # Ray's own record of the run isn't needed: what there is to resume from lies in the run's folder.
        run = RunConfig(
            name=f"{plan.stage}-{uuid.uuid4().hex[:8]}",
            storage_path=scratch,
            failure_config=FailureConfig(
                max_failures=workers.max_failures, max_preemption_failures=workers.max_preemption_failures
            ),
            callbacks=[notes],
        )
        trainer = TorchTrainer(
            _work,
            train_loop_config={"plan": plan},
            torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
            scaling_config=_scaling(workers, use_gpu),
            run_config=run,
        )
        failure = _fit(trainer)
    if failure:
        raise TrainingError(failure)


def check_workers_fit(workers: WorkersSettings, nodes: Sequence[Node], use_gpu: bool) -> None:
    """Refuse what would wait for ever: raises ClusterError when the fewest workers don't fit the machines."""
    room = 0
    for node in nodes:
        fits = math.floor(node.cpus / workers.cpus_per_worker + 1e-9)
        room += min(fits, int(node.gpus)) if use_gpu else fits
    if room < workers.least:
        each = f"{workers.cpus_per_worker:g} CPUs" + (" and a GPU" if use_gpu else "")
        cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
        raise ClusterError(
            f"workers: {workers.least} with {each} each don't fit: the cluster has {cpus:g} CPUs and {gpus:g} GPUs on "
            f"{len(nodes)} machines, room for {room}; lower num_workers or cpus_per_worker, or set use_gpu to false"
        )


def _scaling(workers: WorkersSettings, use_gpu: bool) -> ScalingConfig:
    resources = {"CPU": workers.cpus_per_worker, **({"GPU": 1.0} if use_gpu else {})}
    return ScalingConfig(num_workers=workers.num_workers, use_gpu=use_gpu, resources_per_worker=resources)


def _fit(trainer: TorchTrainer) -> str:
    """Run to the end; why it can't go on, or ""."""
    before = signal.getsignal(signal.SIGINT)
    try:
        result: Any = trainer.fit()
        return str(result.return_value or "")
    except SystemExit:
        # Ray's answer to Ctrl-C, once its workers are stopped.
        raise KeyboardInterrupt from None
    except (TrainingFailedError, RayError) as error:
        reason = f"training failed: {_reason(error)}; the same command goes on from the last checkpoint"
        raise ClusterError(reason) from error
    finally:
        signal.signal(signal.SIGINT, before)


def _reason(error: Exception) -> str:
    """The first of the workers' own errors, in one line."""
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    for rank, failure in sorted(failures.items()):
        return f"worker {rank}: {last_line(failure)}"
    return str(error).strip().partition("\n")[0]


def _work(config: dict[str, Any]) -> str:
    """In each worker; why the training can't go on, which starting anew wouldn't change, or ""."""
    plan: Plan = config["plan"]
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, int(plan.settings.workers.cpus_per_worker)))
    try:
        train_stage(plan, device, _WorkerWatcher())
    except TrainingError as error:
        return str(error)
    return ""


class _WorkerWatcher(Watcher):
    """Saves before a machine is taken away, and tells Ray how far the training is."""

    def __init__(self) -> None:
        self._leaving: set[str] = set()
        self._line: dict[str, Any] = {}

    def wants_save(self, step: int) -> bool:
        if step % ASK_EVERY:
            return False
        info = ray.train.get_preemption_info()
        leaving = set(info.preempted_node_to_ranks) if info is not None else set()
        is_new = not leaving <= self._leaving
        self._leaving |= leaving
        return is_new

    def noted(self, line: dict[str, Any]) -> None:
        self._line = line

    def saved(self, step: int) -> None:
        ray.train.report({**self._line, "step": step})
