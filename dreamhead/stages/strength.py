"""How much of each frame is dubbed: 0 is passed through, 1 is painted, between them the mouth cross-fades."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dreamhead.records import Chunk, Route, Segment, ShotAnalysis
from dreamhead.stages.source import Source


def strength_of(chunk: Chunk, source: Source, shot: ShotAnalysis, fade_s: float) -> NDArray[np.float32]:
    """(T,) how much of each of a chunk's frames is dubbed; `fade_s` seconds lead to and from what isn't."""
    timeline, part = source.timeline, slice(chunk.start, chunk.stop)
    inside = inside_segments(chunk.job.segments, timeline.times_s)
    shown = timeline.source[part] - shot.start
    by_route = ramp(shot.routes == Route.DUB, source.video.times_s[shot.start : shot.stop], fade_s)
    by_segment = ramp(inside, timeline.times_s, fade_s)
    return np.minimum(by_route[shown], by_segment[part])


def is_dubbed(chunk: Chunk, source: Source, routes: NDArray[np.uint8]) -> bool:
    """Whether `strength_of` is above 0 for any frame of a chunk, by the routes of its shot's frames alone."""
    part = slice(chunk.start, chunk.stop)
    inside = inside_segments(chunk.job.segments, source.timeline.times_s[part])
    return bool((inside & (routes[source.timeline.source[part] - chunk.shot_start] == Route.DUB)).any())


def routes_of(chunk: Chunk, source: Source, shot: ShotAnalysis) -> dict[str, int]:
    """A chunk's frames by `Route` name."""
    part = slice(chunk.start, chunk.stop)
    inside = inside_segments(chunk.job.segments, source.timeline.times_s)
    return count_routes(shot.routes[source.timeline.source[part] - shot.start], inside[part])


def ramp(wanted: NDArray[np.bool_], times_s: NDArray[np.float64], fade_s: float) -> NDArray[np.float32]:
    """Rise from 0 at frames that aren't wanted to 1 at `fade_s` seconds from the nearest of them.

    `wanted` and the ascending `times_s` are (T,); so is the result. Where every frame is wanted it is 1 throughout:
    a cut or the video's end is no reason to fade.
    """
    strength = wanted.astype(np.float64)
    unwanted_s = times_s[~wanted]
    if fade_s > 0 and len(unwanted_s):
        after = np.searchsorted(unwanted_s, times_s)
        previous = np.abs(times_s - unwanted_s[np.maximum(after - 1, 0)])
        following = np.abs(unwanted_s[np.minimum(after, len(unwanted_s) - 1)] - times_s)
        strength *= np.minimum(1.0, np.minimum(previous, following) / fade_s)
    return strength.astype(np.float32)


def inside_segments(segments: Sequence[Segment], times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(T,) whether each time lies in a segment; no segments means that all do."""
    if not segments:
        return np.ones(len(times_s), dtype=np.bool_)
    inside = np.zeros(len(times_s), dtype=np.bool_)
    for segment in segments:
        inside |= (times_s >= segment.start_s) & (times_s < segment.end_s)
    return inside


def count_routes(routes: NDArray[np.uint8], inside: NDArray[np.bool_]) -> dict[str, int]:
    """Frames by `Route` name; a frame that could be dubbed and lies outside the segments counts as such."""
    final = np.where((routes == Route.DUB) & ~inside, np.uint8(Route.OUTSIDE_SEGMENTS), routes)
    values, counts = np.unique(final, return_counts=True)
    return {Route(int(value)).name: int(count) for value, count in zip(values, counts, strict=True)}
