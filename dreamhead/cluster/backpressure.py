"""How many rows may wait before a pool of actors: Ray Data's own limits count bytes, and these rows have none to speak
of."""

from typing import TYPE_CHECKING

from ray.data._internal.execution.backpressure_policy import BackpressurePolicy
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

if TYPE_CHECKING:
    from ray.data._internal.execution.interfaces.physical_operator import PhysicalOperator

WAITING_RATIO = 3
"""Chunks that may wait before a pool, for each actor that it has or starts: enough that no actor idles, and few enough
that a fast stage doesn't run ahead over all videos, with their files on the disk and their rows in the driver's
memory."""


class WaitingRows(BackpressurePolicy):
    """Holds a stage while `WAITING_RATIO` rows wait for each actor of the next.

    A stage that is held starts nothing, and what its tasks yield stays with them, so their actors aren't free either.
    Ray lets a row through nevertheless when nothing else in the graph moves, so that no graph can stand still.
    """

    def can_add_input(self, op: "PhysicalOperator") -> bool:
        """False while too many rows wait behind this stage."""
        room = self._room(op)
        return room is None or room > 0

    def max_task_output_bytes_to_read(self, op: "PhysicalOperator") -> int | None:
        """About the bytes of as many rows as there is room for; None, no limit, for what no pool takes."""
        room = self._room(op)
        if room is None:
            return None
        return max(0, room) * int(op.metrics.average_bytes_per_output or 1)

    def _room(self, op: "PhysicalOperator") -> int | None:
        pools = [next_op for next_op in op.output_dependencies if isinstance(next_op, ActorPoolMapOperator)]
        if not pools:
            return None
        return min(_most(pool) - self._topology[pool].total_enqueued_input_blocks() for pool in pools)


def _most(pool: ActorPoolMapOperator) -> int:
    actors = pool.get_actor_info()
    return WAITING_RATIO * max(1, actors.running + actors.pending + actors.restarting)
