"""Rates over the last minutes of a run: frames a second, and how busy the pools are."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from dreamhead.records import Chunk

WINDOW_S = 120.0
"""Long enough for several chunks of one actor, short enough to notice that something stalls."""


@dataclass(frozen=True)
class Ended:
    """A chunk that came out of the last stage."""

    at_s: float
    frames: int
    seconds: Mapping[str, float]
    workers: Mapping[str, str]


class Rates:
    """Chunks that ended within the last minutes; times are seconds of any steady clock.

    A display may ask from its own thread.

    Args:
        began_s: when the first chunk was started.
        actors: fewest actors by pool; where more are at work, these are counted.
    """

    def __init__(self, began_s: float, actors: Mapping[str, int]) -> None:
        self._began_s = began_s
        self._least = dict(actors)
        self._ended: deque[Ended] = deque()
        self._lock = threading.Lock()

    def add(self, chunk: Chunk, now_s: float) -> None:
        """Count a chunk that this run rendered."""
        with self._lock:
            self._ended.append(Ended(now_s, chunk.stop - chunk.start, chunk.seconds, chunk.workers))

    def frames_per_s(self, now_s: float) -> float:
        """Frames a second, lately."""
        return sum(ended.frames for ended in self._latest(now_s)) / self._span(now_s)

    def actors(self, now_s: float) -> dict[str, int]:
        """Actors by pool: those that did something lately, and no fewer than the pool's least."""
        latest = self._latest(now_s)
        seen = {name: {ended.workers.get(name, "") for ended in latest} - {""} for name in self._least}
        return {name: max(least, len(seen[name])) for name, least in self._least.items()}

    def busy(self, now_s: float) -> dict[str, float]:
        """Share of its actors' time, 0 to 1, that each pool worked lately: what chunks that ended had cost."""
        actors, span, latest = self.actors(now_s), self._span(now_s), self._latest(now_s)
        worked = {name: sum(ended.seconds.get(name, 0.0) for ended in latest) for name in self._least}
        return {name: min(1.0, worked[name] / (span * count)) for name, count in actors.items()}

    def _span(self, now_s: float) -> float:
        return max(min(now_s - self._began_s, WINDOW_S), 1e-3)

    def _latest(self, now_s: float) -> list[Ended]:
        with self._lock:
            while self._ended and self._ended[0].at_s < now_s - WINDOW_S:
                self._ended.popleft()
            return list(self._ended)
