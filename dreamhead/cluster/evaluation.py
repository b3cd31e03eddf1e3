"""Judge tasks on Ray Data: leave out what is done, give the rest to a pool of actors."""

import atexit
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from dreamhead.cluster.actors import CUDA_LOST, patiently
from dreamhead.cluster.flow import through_pool
from dreamhead.cluster.pools import Node, check_room
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
        self._judge = patiently(lambda: ConditionJudge(settings, checkpoint_uri, output_uri))
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
    items = [{"task": task.to_json()} for task in tasks]
    constructor = (settings, checkpoint_uri, output_uri)
    timeout_s = settings.no_progress_timeout_s
    for row in through_pool(items, JudgeConditions, constructor, pool, settings.max_attempts, timeout_s):
        yield Verdict.from_json(str(row["verdict"]))


def plan_pool(settings: EvaluationSettings, nodes: Sequence[Node]) -> PoolSettings:
    """The pool as given, or one for the cluster; raises ClusterError where it doesn't fit."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if settings.dub.device == "cuda" and not gpus:
        raise ClusterError("dub.device: cuda was asked for, but no node of the cluster has a GPU; allowed: auto, cpu")
    pool = settings.pool or _sized(settings, cpus, gpus if settings.dub.device != "cpu" else 0.0)
    return check_room(pool, nodes)


def _sized(settings: EvaluationSettings, cpus: float, gpus: float) -> PoolSettings:
    if gpus:
        size = max(1, min(math.floor(gpus / GPU_SHARE), math.floor(cpus)))
        return PoolSettings(min_size=size, max_size=size, num_cpus=min(1.0, cpus), num_gpus=GPU_SHARE)
    size = max(1, math.floor(cpus / settings.dub.cpu_threads))
    return PoolSettings(min_size=size, max_size=size, num_cpus=min(float(settings.dub.cpu_threads), cpus))
