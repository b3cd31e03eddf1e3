"""Size the three pools for a cluster, and refuse, before anything starts, what would hang."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dreamhead.config import PoolSettings, PoolsSettings
from dreamhead.errors import ClusterError

FINALIZE_CPUS = 0.25
"""CPUs that one finalising task reserves: it copies streams, and must find room beside the pools."""
FINALIZE_SHARE = 0.05
"""Of a cluster's CPUs, left to checking and finalising: with one at a time, short jobs would queue for it."""

# A render actor keeps a core busy by itself, the walk of a video half of one beside it, landmarks hardly any.
CPU_SHARES = {"analyse": 0.5, "landmarks": 0.25, "render": 1.0}
GPU_SHARES = {"landmarks": 0.2, "render": 0.8}
RENDER_GPUS_PER_LANDMARKS = 32
"""One landmarks actor feeds that many GPUs that render; with fewer, each GPU it takes a share of renders less."""


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pools:
    """The three pools as they run."""

    analyse: PoolSettings
    landmarks: PoolSettings
    render: PoolSettings

    def named(self) -> dict[str, PoolSettings]:
        """The pools by name, in the order of the work."""
        return {"analyse": self.analyse, "landmarks": self.landmarks, "render": self.render}


def plan_pools(settings: PoolsSettings, nodes: Sequence[Node], *, use_gpus: bool) -> Pools:
    """Take the pools that the settings give, size the others from the cluster, and check that all fit.

    Raises ClusterError that says what to change.
    """
    cpus, gpus = sum(node.cpus for node in nodes), int(sum(node.gpus for node in nodes))
    sized = _with_gpus(cpus, gpus) if use_gpus and gpus else _without_gpus(cpus)
    given: Mapping[str, PoolSettings | None] = {
        "analyse": settings.analyse,
        "landmarks": settings.landmarks,
        "render": settings.render,
    }
    pools = Pools(**{name: given[name] or sized[name] for name in sized})
    check_fit(pools, nodes)
    return pools


def needed_cpus(pools: Pools) -> float:
    """CPUs that the pools and one finalising task reserve at their smallest."""
    return sum(pool.min_size * pool.num_cpus for pool in pools.named().values()) + FINALIZE_CPUS


def check_fit(pools: Pools, nodes: Sequence[Node]) -> None:
    """Refuse pools whose actors can't all be placed at their smallest size: Ray would wait for ever, in silence."""
    _check_total("CPUs", needed_cpus(pools), sum(node.cpus for node in nodes), pools, "num_cpus")
    needed_gpus = sum(pool.min_size * pool.num_gpus for pool in pools.named().values())
    _check_total("GPUs", needed_gpus, sum(node.gpus for node in nodes), pools, "num_gpus")
    _check_packing(pools, nodes)


def spare_cpus(cpus: float) -> float:
    """CPUs of a cluster that are left to checking and finalising."""
    return max(FINALIZE_CPUS, FINALIZE_SHARE * cpus)


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node's labels are what Ray's `label_selector` asks for: value, !value, in(a,b) or !in(a,b)."""
    return all(_selects(wanted, labels.get(key)) for key, wanted in selector.items())


def _selects(wanted: str, value: str | None) -> bool:
    negated, text = wanted.startswith("!"), wanted.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", text)
    allowed = [part.strip() for part in listed[1].split(",")] if listed else [text]
    return (value in allowed) != negated


def _without_gpus(cpus: float) -> dict[str, PoolSettings]:
    """As many groups of three actors as fit; on a small machine one group, its shares made smaller."""
    room = cpus - spare_cpus(cpus)
    group = sum(CPU_SHARES.values())
    size = max(1, math.floor(room / group))
    scale = min(1.0, max(room, 0.0) / group)
    return {name: _fixed(size, num_cpus=math.floor(share * scale * 100) / 100) for name, share in CPU_SHARES.items()}


def _with_gpus(cpus: float, gpus: int) -> dict[str, PoolSettings]:
    """CPUs walk the videos; each GPU renders, and a few run the small landmarks network beside that."""
    room = cpus - spare_cpus(cpus)
    analyse = _fixed(max(1, math.floor(room)), num_cpus=min(1.0, max(0.0, math.floor(room * 100) / 100)))
    landmarks = _fixed(math.ceil(gpus / RENDER_GPUS_PER_LANDMARKS), num_cpus=0.0, num_gpus=GPU_SHARES["landmarks"])
    render = _fixed(gpus, num_cpus=0.0, num_gpus=GPU_SHARES["render"])
    return {"analyse": analyse, "landmarks": landmarks, "render": render}


def _fixed(size: int, *, num_cpus: float, num_gpus: float = 0.0) -> PoolSettings:
    return PoolSettings(min_size=size, max_size=size, num_cpus=num_cpus, num_gpus=num_gpus)


def _check_total(kind: str, needed: float, there: float, pools: Pools, key: str) -> None:
    if needed <= there + 1e-6:
        return
    parts = ", ".join(f"{name} {pool.min_size} x {getattr(pool, key):g}" for name, pool in pools.named().items())
    spare = f" and {FINALIZE_CPUS:g} for finalising" if kind == "CPUs" else ""
    raise ClusterError(
        f"the pools need {needed:g} {kind} ({parts}{spare}), the cluster has {there:g}: "
        f"lower pools.<name>.min_size or pools.<name>.{key}, or add nodes"
    )


def check_room(pool: PoolSettings, nodes: Sequence[Node]) -> PoolSettings:
    """The pool, if it fits the cluster alone; raises ClusterError that says what to lower."""
    room = sum(_room(pool, node) for node in nodes if selects(pool.label_selector, node.labels))
    if room < pool.min_size:
        raise ClusterError(
            f"the cluster has room for {room} actors of {pool.num_cpus:g} CPUs and {pool.num_gpus:g} GPUs, "
            f"pool.min_size is {pool.min_size}: lower pool.min_size, pool.num_cpus or pool.num_gpus, or add nodes"
        )
    return pool


def _room(pool: PoolSettings, node: Node) -> int:
    by_cpu = node.cpus // pool.num_cpus if pool.num_cpus else float(pool.min_size)
    by_gpu = node.gpus // pool.num_gpus if pool.num_gpus else float(pool.min_size)
    return int(min(by_cpu, by_gpu))


def _check_packing(pools: Pools, nodes: Sequence[Node]) -> None:
    """Place the actors one by one, largest first, as Ray can't split one over machines or GPUs."""
    cpus = [node.cpus for node in nodes]
    gpus = [[1.0] * int(node.gpus) for node in nodes]
    actors = [
        # Those that may run on few nodes first, else on the largest share of one.
        (bool(pool.label_selector), pool.num_gpus, pool.num_cpus, name)
        for name, pool in pools.named().items()
        for _ in range(pool.min_size)
    ]
    for is_choosy, num_gpus, num_cpus, name in sorted(actors, reverse=True):
        selector = pools.named()[name].label_selector
        allowed = (index for index, node in enumerate(nodes) if selects(selector, node.labels))
        if not any(_place(cpus, gpus, index, num_cpus, num_gpus) for index in allowed):
            labels = f", labels {dict(selector)}" if is_choosy else ""
            raise ClusterError(
                f"no node has room for each actor of the {name} pool ({num_cpus:g} CPUs, {num_gpus:g} GPUs{labels}): "
                f"lower pools.{name}.min_size, pools.{name}.num_cpus or pools.{name}.num_gpus, or add nodes"
            )


def _place(cpus: list[float], gpus: list[list[float]], index: int, num_cpus: float, num_gpus: float) -> bool:
    free = gpus[index]
    whole = math.ceil(num_gpus) if num_gpus >= 1 else 1
    share = min(num_gpus, 1.0)
    fitting = [place for place, left in enumerate(free) if left >= share - 1e-6]
    if cpus[index] < num_cpus - 1e-6 or (num_gpus and len(fitting) < whole):
        return False
    cpus[index] -= num_cpus
    if num_gpus:
        for place in fitting[:whole]:
            free[place] -= share
    return True
