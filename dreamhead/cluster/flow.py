"""The Ray Data graph: spans in, finished chunks out, through three pools of actors."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionResources
from ray.data._internal.execution.backpressure_policy import ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY
from ray.data._internal.execution.backpressure_policy.resource_budget_backpressure_policy import (
    ResourceBudgetBackpressurePolicy,
)
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from dreamhead.cluster.actors import AnalyseSpans, LandmarkChunks, RenderChunks, spans_row
from dreamhead.cluster.backpressure import WaitingRows
from dreamhead.cluster.pools import Pools, spare_cpus
from dreamhead.cluster.session import cluster_nodes
from dreamhead.config import DubSettings, PoolSettings
from dreamhead.errors import ClusterError
from dreamhead.records import Chunk, Span

LEAST_DEATHS = 3
"""Actors of one pool that may die one after the other while they start, before the run is ended."""

Constructor = tuple[DubSettings, str, str]
"""What every stage is built from: settings, checkpoint uri, work uri."""

RUNTIME_ENV = {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}}
"""Networks of several actors share a machine's cores: threads that wait for each other must not spin meanwhile."""


@dataclass(frozen=True)
class Stages:
    """The callable classes that the three pools run."""

    analyse: type[Any] = AnalyseSpans
    landmarks: type[Any] = LandmarkChunks
    render: type[Any] = RenderChunks


def flow(
    groups: Sequence[Sequence[Span]], pools: Pools, constructor: Constructor, stages: Stages | None = None
) -> Iterator[Chunk]:
    """Run groups of spans through the stages; yields each chunk as it ends, in any order, failed ones too.

    Raises ClusterError when Ray gives up, or nothing happened for `no_progress_timeout_s`.
    """
    settings = constructor[0]
    most_spans = max(len(group) for group in groups)
    retries = settings.pools.max_attempts * most_spans
    context = data_context(retries, settings.pools.no_progress_timeout_s, list(pools.named().values()))
    leave_cpus_to_finishing(context, pools)
    with DataContext.current(context):
        dataset = _graph(groups, pools, constructor, stages or Stages())
        for row in _rows(dataset, settings.pools.no_progress_timeout_s, "pools.no_progress_timeout_s"):
            yield Chunk.from_json(str(row["chunk"]))


def through_pool(
    items: Sequence[dict[str, str]],
    actor: type[Any],
    constructor: tuple[object, ...],
    pool: PoolSettings,
    max_map_retries: int,
    no_progress_timeout_s: float,
) -> Iterator[dict[str, Any]]:
    """Run items through one pool of actors; yields what comes of each as it ends, in any order.

    Raises ClusterError when Ray gives up, or nothing happened for `no_progress_timeout_s`.
    """
    most = len(items)
    pool = pool.model_copy(update={"min_size": min(pool.min_size, most), "max_size": min(pool.max_size, most)})
    with DataContext.current(data_context(max_map_retries, no_progress_timeout_s, [pool])):
        # One item is one block is one task: a failure or a lost machine costs one of them.
        dataset = ray.data.from_items(list(items), override_num_blocks=most)
        yield from _rows(_stage(dataset, actor, pool, constructor), no_progress_timeout_s, "no_progress_timeout_s")


def _rows(dataset: Dataset, timeout_s: float, setting: str) -> Iterator[dict[str, Any]]:
    try:
        yield from dataset.iter_rows()
    except ExecutionTimeoutError as error:
        raise ClusterError(f"nothing was finished for {timeout_s:g} s ({setting}): {error}") from error
    except RayError as error:
        raise ClusterError(f"Ray ended the run: {str(error).strip().splitlines()[-1]}") from error


def _graph(groups: Sequence[Sequence[Span]], pools: Pools, constructor: Constructor, stages: Stages) -> Dataset:
    # One row is one block is one task; Parquet readers and `from_items` without a count would pack rows together.
    spans = ray.data.from_items([spans_row(group) for group in groups], override_num_blocks=len(groups))
    analysed = _stage(spans, stages.analyse, pools.analyse, constructor)
    spoken = _stage(analysed, stages.landmarks, pools.landmarks, constructor)
    return _stage(spoken, stages.render, pools.render, constructor)


def _stage(dataset: Dataset, actor: type[Any], pool: PoolSettings, constructor: tuple[object, ...]) -> Dataset:
    # Chunks are long and uneven: one that waits behind another is better given to a free actor.
    strategy = ActorPoolStrategy(min_size=pool.min_size, max_size=pool.max_size, max_tasks_in_flight_per_actor=1)
    return dataset.map_batches(
        actor,
        fn_constructor_args=constructor,
        batch_size=1,
        compute=strategy,
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus or None,
        label_selector=pool.label_selector or None,
        runtime_env=RUNTIME_ENV,
    )


def data_context(max_map_retries: int, no_progress_timeout_s: float, pools: Sequence[PoolSettings]) -> DataContext:
    """Ray Data's settings for rows that each are a piece of work, and whose failures travel as rows."""
    context = DataContext.get_current().copy()
    # A block is at least a row; with the usual size a span's chunks would wait for each other, and run on one actor.
    context.target_max_block_size = 1
    # A dropped block would be a hole in a video. Failures travel as rows instead.
    context.max_errored_blocks = 0
    # Any other exception is tried again; the stages count the tries outside the process, and give up by themselves.
    context.retried_map_errors = True
    context.max_map_retries = max_map_retries
    # The actors try again by themselves, as Ray would do so without a pause. One that can't start at all is replaced
    # by another, perhaps on a better machine: as often as all of a pool may have met the same trouble at once.
    context.max_consecutive_actor_init_deaths = max(LEAST_DEATHS, *(pool.max_size for pool in pools))
    context.execution_no_progress_timeout_s = no_progress_timeout_s
    # With one task in flight an actor's utilisation never exceeds 1, and Ray's own threshold never grows a pool.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    # Ray's other policies count bytes in the object store, which rows of kilobytes never fill.
    policies = [ResourceBudgetBackpressurePolicy, WaitingRows]
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return context


def leave_cpus_to_finishing(context: DataContext, pools: Pools) -> None:
    """Keep pools that grow from taking the CPUs that finished videos need to be published."""
    if all(pool.max_size == pool.min_size for pool in pools.named().values()):
        return
    spare = spare_cpus(sum(node.cpus for node in cluster_nodes()))
    with warnings.catch_warnings():
        # What is to take its place chooses machines, and can't leave a share of each.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        context.execution_options.exclude_resources = ExecutionResources(cpu=spare)
