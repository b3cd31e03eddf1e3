"""Which clips a training draws from at each step, and what each example of a step is: both known from their numbers.

No worker keeps a place in the data. The clips that are resident at a step, and each example of its global batch, follow
from the seed and the numbers alone; so the examples are the same for any number of workers, and after any resume.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dreamhead.errors import DreamheadError
from dreamhead.training.dataset import Clip, ClipInfo, read_clip
from dreamhead.training.settings import LoopSettings
from dreamhead.training.task import Task


class ClipPool:
    """A window over the clips in shuffled order, that moves on by one every `period` steps, and round.

    Args:
        clips: all that can be trained on.
        resident: width of the window; all clips where there are no more.
        period: steps after which one clip leaves and another comes.
        seed: of the order.
    """

    def __init__(self, clips: Sequence[ClipInfo], resident: int, period: int, seed: int) -> None:
        self._clips = clips
        self._order = np.random.default_rng((seed, len(clips))).permutation(len(clips))
        self._width = min(resident, len(clips))
        self._period = period
        self._held: dict[int, Clip] = {}
        self._last = 0
        self._ends = lru_cache(maxsize=2)(self._shares_up_to)

    def resident(self, step: int) -> list[int]:
        """Numbers of the clips that examples of this step are drawn from."""
        first = self._moves(step)
        return [int(self._order[(first + place) % len(self._order)]) for place in range(self._width)]

    def draw(self, step: int, generator: np.random.Generator) -> Clip:
        """One of the resident clips, in proportion to their frames and weights; decoded when it is drawn first."""
        moves = self._moves(step)
        if moves != self._last:
            staying = set(self.resident(step))
            self._held = {number: clip for number, clip in self._held.items() if number in staying}
            self._last = moves
        ends = self._ends(moves)
        place = int(np.searchsorted(ends, generator.integers(ends[-1]), side="right"))
        number = int(self._order[(moves + place) % len(self._order)])
        if number not in self._held:
            self._held[number] = read_clip(self._clips[number])
        return self._held[number]

    def _moves(self, step: int) -> int:
        return step // self._period % len(self._order) if self._width < len(self._order) else 0

    def _shares_up_to(self, moves: int) -> NDArray[np.int64]:
        """What the resident clips count, summed up: thousandths of a frame."""
        resident = (self._clips[self._order[(moves + place) % len(self._order)]] for place in range(self._width))
        return np.cumsum([max(1, round(1000 * clip.frames * clip.weight)) for clip in resident], dtype=np.int64)


class Batch(NamedTuple):
    """One worker's examples of one step."""

    examples: dict[str, Tensor]
    """(B, ...) each."""
    clips: list[str]
    """B clip ids, for messages."""


class StepBatches(Dataset["Batch | DreamheadError"]):
    """The share of each step's global batch that worker `rank` of `size` takes: examples rank, rank + size, ...

    Args:
        task: makes the examples.
        pool: gives the clips.
    """

    def __init__(self, task: Task, pool: ClipPool, batch_size: int, seed: int, rank: int, size: int) -> None:
        self._task = task
        self._pool = pool
        self._numbers = range(rank, batch_size, size)
        self._seed = seed

    def __getitem__(self, step: int) -> Batch | DreamheadError:
        drawn, ids = [], []
        try:
            for number in self._numbers:
                generator = np.random.default_rng((self._seed, step, number))
                clip = self._pool.draw(step, generator)
                drawn.append(self._task.example(clip, generator))
                ids.append(clip.clip_id)
        except DreamheadError as error:
            # Raised here, in another process, it would arrive as a traceback in a message.
            return error
        return Batch({name: _stack([example[name] for example in drawn]) for name in drawn[0]}, ids)


def step_batches(
    task: Task, pool: ClipPool, settings: LoopSettings, steps: range, rank: int, size: int, pin_memory: bool
) -> DataLoader[Batch | DreamheadError]:
    """A worker's batches of the given steps, in order, drawn ahead in `settings.data_workers` processes."""
    return DataLoader(
        StepBatches(task, pool, settings.batch_size, settings.seed, rank, size),
        batch_size=None,
        sampler=steps,
        collate_fn=_as_it_is,
        num_workers=settings.data_workers,
        # OpenCV's threads don't survive a fork, and a worker has one core at most.
        worker_init_fn=_quiet_threads,
        pin_memory=pin_memory,
    )


def _as_it_is(batch: Any) -> Any:
    # Batches come made up; torch's own way would take a Batch apart.
    return batch


def _quiet_threads(_: int) -> None:
    cv2.setNumThreads(0)


def _stack(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(arrays)))
