"""Choose which frames of a dub are looked at: a few stretches of consecutive ones, spread over what is dubbed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamhead.config import ReviewSettings
from dreamhead.faces.crop import runs
from dreamhead.records import Chunk

SHORT = 12
"""Frames below which a stretch isn't cut further: a shorter curve hardly moves."""
PLAIN_RATE = 25.0
"""Frames per second that counts of frames are meant for."""
MOST_STRETCHES_OF_FEW = 3
"""Stretches that are wanted even where the frames would fit into fewer."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Frames [start, stop) of the output, inside one chunk, all of them fully dubbed."""

    chunk: Chunk
    start: int
    stop: int


def at_rate(count: int, rate: float) -> int:
    """So many frames, or as many as last as long at a higher rate than the plain one: speech takes its time.

    At a lower rate it stays as many, since figures need so many values.
    """
    return round(count * max(1.0, rate / PLAIN_RATE))


def frames_wanted(frames: int, dubbed: int, rate: float, settings: ReviewSettings) -> int:
    """How many of an output's frames, of which so many are dubbed, are looked at; `rate` is in frames per second."""
    least, most = at_rate(settings.min_frames, rate), at_rate(settings.max_frames, rate)
    return min(dubbed, max(least, min(most, round(frames * settings.share))))


def choose_stretches(
    chunks: Sequence[Chunk],
    wanted: int,
    longest: int,
    strength: Callable[[Chunk], NDArray[np.float32]],
    short: int = SHORT,
) -> Iterator[Stretch]:
    """Stretches of up to `longest` frames, about `wanted` in all, in order and apart from each other.

    Args:
        chunks: in order; only those that are looked at are asked for their strength.
        short: frames below which a stretch isn't cut further.
        strength: (T,) how much of each frame of a chunk is dubbed.
    """
    dubbed = np.cumsum([chunk.dubbed_frames for chunk in chunks])
    total = int(dubbed[-1]) if len(dubbed) else 0
    count = max(-(-wanted // longest), min(MOST_STRETCHES_OF_FEW, wanted // short), 1)
    length = -(-wanted // count)
    free = 0
    for number in range(count if total else 0):
        # Decoding begins at a chunk's start: early in a part is as good as its middle, and sooner reached.
        middle = (number + 0.25) / count * total
        index = int(np.searchsorted(dubbed, middle, side="right"))
        chunk = chunks[index]
        within = middle - (int(dubbed[index]) - chunk.dubbed_frames)
        usable = strength(chunk) >= 1
        found = _place(usable, within / chunk.dubbed_frames, length, max(0, free - chunk.start))
        if found is not None:
            free = chunk.start + found[1]
            yield Stretch(chunk=chunk, start=chunk.start + found[0], stop=free)


def _place(usable: NDArray[np.bool_], share: float, length: int, free: int) -> tuple[int, int] | None:
    """Up to `length` usable frames in a row, around that share of the usable ones, none before `free`.

    None where there are none.
    """
    frames = np.flatnonzero(usable)
    left = frames[frames >= free]
    if not len(left):
        return None
    middle = max(int(frames[min(len(frames) - 1, int(share * len(frames)))]), int(left[0]))
    first, last = next((start, stop) for start, stop in runs(usable) if start <= middle < stop)
    start = max(first, free, min(middle - length // 2, last - length))
    return start, min(last, start + length)
