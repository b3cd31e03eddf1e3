"""Judge tasks on Ray Data: leave out what is done, give the rest to a pool of actors."""

import atexit
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import ray
import torch
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from dreamhead.cluster.actors import CUDA_LOST
from dreamhead.cluster.flow import RUNTIME_ENV, data_context
from dreamhead.cluster.pools import Node
from dreamhead.config import PoolSettings
from dreamhead.errors import ClusterError
from dreamhead.evaluation.judge import ConditionJudge
from dreamhead.evaluation.records import Task, Verdict
from dreamhead.evaluation.settings import EvaluationSettings

GPU_SHARE = 0.25
"""Of a GPU, for one actor: most of its time goes into finding faces, on a CPU."""

Batch = dict[str, NDArray[Any]]


class JudgeConditions:
    """One row with a task to one row with its verdict: Ray Data's callable class."""

    def __init__(self, settings: EvaluationSettings, checkpoint_uri: str, output_uri: str) -> None:
        self._judge = ConditionJudge(settings, checkpoint_uri, output_uri)
        atexit.register(self._judge.close)

    def __call__(self, batch: Batch) -> Iterator[dict[str, list[str]]]:
        for text in batch["task"]:
            try:
                yield {"verdict": [self._judge(Task.from_json(str(text))).to_json()]}
            except torch.AcceleratorError:
                os._exit(CUDA_LOST)


def judge_all(
    tasks: Sequence[Task], pool: PoolSettings, settings: EvaluationSettings, checkpoint_uri: str, output_uri: str
) -> Iterator[Verdict]:
    """Yield a verdict for each task as it ends, in any order. Expects Ray to be there.

    Raises ClusterError when Ray gives up, or nothing happened for `no_progress_timeout_s`.
    """
    with DataContext.current(data_context(settings.max_attempts, settings.no_progress_timeout_s)):
        # One row is one block is one task: a failure or a lost machine costs one condition of one clip.
        rows = ray.data.from_items([{"task": task.to_json()} for task in tasks], override_num_blocks=len(tasks))
        judged = rows.map_batches(
            JudgeConditions,
            fn_constructor_args=(settings, checkpoint_uri, output_uri),
            batch_size=1,
            compute=ActorPoolStrategy(
                min_size=min(pool.min_size, len(tasks)),
                max_size=min(pool.max_size, len(tasks)),
                max_tasks_in_flight_per_actor=1,
            ),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus or None,
            runtime_env=RUNTIME_ENV,
        )
        try:
            for row in judged.iter_rows():
                yield Verdict.from_json(str(row["verdict"]))
        except ExecutionTimeoutError as error:
            raise ClusterError(
                f"nothing was judged for {settings.no_progress_timeout_s:g} s (no_progress_timeout_s): {error}"
            ) from error
        except RayError as error:
            raise ClusterError(f"Ray ended the run: {str(error).strip().splitlines()[-1]}") from error


def plan_pool(settings: EvaluationSettings, nodes: Sequence[Node]) -> PoolSettings:
    """The pool as given, or one for the cluster; raises ClusterError where it doesn't fit."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if settings.dub.device == "cuda" and not gpus:
        raise ClusterError("dub.device: cuda was asked for, but no node of the cluster has a GPU; allowed: auto, cpu")
    pool = settings.pool or _sized(settings, cpus, gpus if settings.dub.device != "cpu" else 0.0)
    room = sum(_room(pool, node) for node in nodes)
    if room < pool.min_size:
        raise ClusterError(
            f"the cluster has room for {room} actors of {pool.num_cpus:g} CPUs and {pool.num_gpus:g} GPUs, "
            f"pool.min_size is {pool.min_size}: lower pool.min_size, pool.num_cpus or pool.num_gpus, or add nodes"
        )
    return pool


def _sized(settings: EvaluationSettings, cpus: float, gpus: float) -> PoolSettings:
    if gpus:
        size = max(1, min(math.floor(gpus / GPU_SHARE), math.floor(cpus)))
        return PoolSettings(min_size=size, max_size=size, num_cpus=min(1.0, cpus), num_gpus=GPU_SHARE)
    size = max(1, math.floor(cpus / settings.dub.cpu_threads))
    return PoolSettings(min_size=size, max_size=size, num_cpus=min(float(settings.dub.cpu_threads), cpus))


def _room(pool: PoolSettings, node: Node) -> int:
    by_cpu = node.cpus // pool.num_cpus if pool.num_cpus else float(pool.min_size)
    by_gpu = node.gpus // pool.num_gpus if pool.num_gpus else float(pool.min_size)
    return int(min(by_cpu, by_gpu))
