"""The output's timeline: which source frame is shown when, for how long, and how a shot becomes chunks."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dreamhead.errors import InputError
from dreamhead.records import FrameTimes, LongerAudio, SpeechStart, VideoInfo

STILL_RATE = Fraction(25)
"""Frames per second of a dub made from a picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline(FrameTimes):
    """What the output shows: T_out frames, each a source frame at a time."""

    source: NDArray[np.int64]
    """(T_out,) source frame shown; the times are in ticks of the source's time base."""
    speech_start_s: Fraction = Fraction(0)
    """The output's time at which the speech's time 0 is."""
    warnings: tuple[str, ...] = ()
    """What a person should know, such as speech that was cut."""

    @property
    def speech_times_s(self) -> NDArray[np.float64]:
        """(T_out,) the time in the speech at which each frame is shown."""
        return self.times_s - float(self.speech_start_s)

    def end_pts_of(self, stop: int) -> int:
        """Presentation time, in ticks, at which the frames before `stop` end."""
        return int(self.pts[stop]) if stop < self.frame_count else self.end_pts


def build_timeline(
    video: VideoInfo, speech_s: float, policy: LongerAudio, speech_start: SpeechStart = "file"
) -> Timeline:
    """Lay the source's frames under `speech_s` seconds of speech, which start as `speech_start` says.

    Speech no longer than the video (to within a frame) leaves the video's own frames and times. Longer speech is
    refused, cut, or covered by more frames, as `policy` says; a picture is held for as long as the speech lasts.
    Raises InputError where the policy is `error`.
    """
    if video.is_still:
        return _held_picture(video, speech_s)
    start_s = video.lead * video.time_base if speech_start == "first_frame" else Fraction(0)
    laid = _laid_under(video, float(start_s) + speech_s - video.duration_s, policy)
    return replace(laid, lead=video.lead, speech_start_s=start_s)


def chunks_of_shot(timeline: Timeline, shot_start: int, shot_stop: int, max_frames: int) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) of the output that show source frames [shot_start, shot_stop) in one direction.

    A run longer than `max_frames` is cut evenly, so that no chunk is a sliver.
    """
    inside = (timeline.source >= shot_start) & (timeline.source < shot_stop)
    positions = np.flatnonzero(inside)
    if not len(positions):
        return
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    for block in np.split(positions, breaks):
        for start, stop in _one_direction(timeline.source, int(block[0]), int(block[-1]) + 1):
            yield from _even_cuts(start, stop, max_frames)


def _laid_under(video: VideoInfo, surplus_s: float, policy: LongerAudio) -> Timeline:
    if surplus_s < float(1 / video.average_rate):
        return _own_frames(video)
    if policy == "error":
        raise InputError(
            f"{video.uri}: the speech is {surplus_s:.2f} s longer than the video's {video.duration_s:.2f} s; "
            "set on_longer_audio to trim, freeze or pingpong, or give shorter speech"
        )
    if policy == "trim":
        return _own_frames(video, f"the last {surplus_s:.2f} s of the speech were cut: it is longer than the video")
    return _frozen(video, surplus_s) if policy == "freeze" else _back_and_forth(video, surplus_s)


def _own_frames(video: VideoInfo, *warnings: str) -> Timeline:
    source = np.arange(video.frame_count, dtype=np.int64)
    return Timeline(
        source=source, pts=video.pts, end_pts=video.end_pts, time_base=video.time_base, warnings=tuple(warnings)
    )


def _held_picture(video: VideoInfo, speech_s: float) -> Timeline:
    frames = max(1, math.ceil(round(speech_s * STILL_RATE, 3)))
    pts = int(video.pts[0]) + _steps(frames + 1, STILL_RATE, video.time_base)
    source = np.zeros(frames, dtype=np.int64)
    return Timeline(source=source, pts=pts[:-1], end_pts=int(pts[-1]), time_base=video.time_base)


def _frozen(video: VideoInfo, surplus_s: float) -> Timeline:
    frames = math.ceil(round(surplus_s * float(video.average_rate), 3))
    added = video.end_pts + _steps(frames + 1, video.average_rate, video.time_base)
    source = np.concatenate([np.arange(video.frame_count), np.full(frames, video.frame_count - 1)])
    pts = np.concatenate([video.pts, added[:-1]])
    return Timeline(source=source.astype(np.int64), pts=pts, end_pts=int(added[-1]), time_base=video.time_base)


def _back_and_forth(video: VideoInfo, surplus_s: float) -> Timeline:
    """Each frame keeps its own duration, so that a variable frame rate stays itself in both directions."""
    if video.frame_count == 1:
        return _frozen(video, surplus_s)
    forward = np.arange(video.frame_count, dtype=np.int64)
    period = np.concatenate([forward, forward[-2:0:-1]])
    durations = np.diff(np.append(video.pts, video.end_pts))
    wanted_ticks = video.end_pts - int(video.pts[0]) + surplus_s / float(video.time_base)
    periods = math.ceil(wanted_ticks / int(durations[period].sum())) + 1
    source = np.tile(period, periods)
    ends = np.cumsum(durations[source])
    frames = int(np.searchsorted(ends, wanted_ticks - 0.5)) + 1
    pts = int(video.pts[0]) + np.concatenate([[0], ends[:frames]])
    return Timeline(source=source[:frames], pts=pts[:-1], end_pts=int(pts[-1]), time_base=video.time_base)


def _steps(count: int, rate: Fraction, time_base: Fraction) -> NDArray[np.int64]:
    """Times, in ticks, of `count` frames at an even rate: rounded one by one, so that nothing drifts."""
    return np.array([round(index / rate / time_base) for index in range(count)], dtype=np.int64)


def _one_direction(source: NDArray[np.int64], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) where the step between shown frames changes: forth, back or held."""
    steps = np.diff(source[start:stop])
    first = start
    position = start
    while position + 1 < stop:
        if position > first and steps[position - start] != steps[first - start]:
            yield first, position + 1
            first = position + 1
            position = first
            continue
        position += 1
    if first < stop:
        yield first, stop


def _even_cuts(start: int, stop: int, max_frames: int) -> Iterator[tuple[int, int]]:
    pieces = math.ceil((stop - start) / max_frames)
    edges = [start + (stop - start) * piece // pieces for piece in range(pieces + 1)]
    yield from itertools.pairwise(edges)
