"""Find the stretches of a video in which one face is seen without gaps, cut into clips."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dreamhead.config import AnalysisSettings, PreparationSettings
from dreamhead.faces import geometry
from dreamhead.faces.crop import runs
from dreamhead.media.video import read_frames
from dreamhead.pipelines.analysis import BROW_TO_CHIN, VideoAnalyser
from dreamhead.records import Route, ShotAnalysis, VideoInfo

REFUSED = {Route.FACE_TOO_SMALL: "face too small", Route.TURNED_AWAY: "turned away"}
"""Reasons of stretches that the analysis already doesn't take for usable."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One shot's face."""

    neutral: NDArray[np.float32]
    """(478, 3) canonical resting face; NaN where no frame is usable."""
    articulation: float
    """How wide the mouth opens, see `geometry.articulation`; NaN when the shot is too short to tell."""
    detected_share: float
    """Share of the shot's frames in which a face was found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """Frames [start, stop) of the source with the same face in each: a clip, if it passes. T frames."""

    start: int
    stop: int
    times_s: NDArray[np.float64]
    """(T,) seconds from the video's first frame."""
    landmarks: NDArray[np.float32]
    """(T, 478, 3) square pixels of the frame."""
    transforms: NDArray[np.float32]
    """(T, 2, 3) from the landmarks' pixels to the crop."""
    track: Track
    reason: str = ""
    """Why the analysis already refuses it."""

    @property
    def start_s(self) -> float:
        """When the first frame is shown."""
        return float(self.times_s[0])

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.times_s) / self.frame_rate

    @cached_property
    def frame_rate(self) -> float:
        """Frames per second: what the usual frame lasts, or all of them on average, whichever fits the times better."""
        steps = np.diff(self.times_s)
        rates = (1 / float(np.median(steps)), 1 / float(np.mean(steps))) if len(steps) else (25.0,)
        return min(rates, key=lambda rate: float(np.mean(_deviations(self.times_s, rate))))

    def unevenness(self) -> float:
        """How far, in frames, all but a twentieth of the frames' times are at most from where the rate puts them."""
        return float(np.quantile(_deviations(self.times_s, self.frame_rate), 0.95))

    def face_px(self) -> float:
        """Median distance from brow to chin, square pixels of the source."""
        return float(BROW_TO_CHIN / np.median(geometry.fit_pose(self.landmarks).scale))

    def turned_deg(self) -> tuple[float, float]:
        """Yaw and pitch, without sign, that all but a twentieth of the frames stay below, degrees."""
        pose = geometry.fit_pose(self.landmarks)
        yaw, pitch = (np.quantile(np.abs(angle), 0.95) for angle in (pose.yaw_deg(), pose.pitch_deg()))
        return float(yaw), float(pitch)

    def opening(self) -> NDArray[np.float64]:
        """(T,) lip opening, canonical units."""
        canonical = geometry.fit_pose(self.landmarks).to_canonical(self.landmarks)
        return np.asarray(geometry.lip_opening(canonical), np.float64)


def analysis_settings(settings: PreparationSettings) -> AnalysisSettings:
    """The walk's settings; no references are kept but the one that must be."""
    return AnalysisSettings(
        shot_threshold=settings.shot_threshold,
        min_face_px=settings.filters.min_face_px,
        max_yaw_deg=settings.filters.max_yaw_deg,
        max_pitch_deg=settings.filters.max_pitch_deg,
        crop_size=settings.crop_size,
        crop_smoothing_s=settings.crop_smoothing_s,
        reference_frames=1,
    )


def find_candidates(
    info: VideoInfo, start: int, stop: int, analyser: VideoAnalyser, settings: PreparationSettings
) -> Iterator[Candidate]:
    """Walk frames [start, stop) once; yields every stretch of every shot, long ones cut, in order.

    Raises MediaError.
    """
    times_s = info.times_s
    rate = 1 / float(np.median(np.diff(times_s))) if len(times_s) > 1 else 25.0
    frames = read_frames(info, range(start, stop))
    for shot in analyser(frames, start, times_s[start:stop], "largest", info.pixel_aspect):
        track = _track(shot)
        for first, last, reason in _stretches(shot):
            for low, high in _cut(first, last, rate * settings.clip_s):
                yield Candidate(
                    start=low,
                    stop=high,
                    times_s=times_s[low:high],
                    landmarks=shot.landmarks[low - shot.start : high - shot.start],
                    transforms=shot.crops[low - shot.start : high - shot.start],
                    track=track,
                    reason=reason,
                )


def _track(shot: ShotAnalysis) -> Track:
    seen = ~np.isnan(shot.landmarks[:, 0, 0])
    return Track(neutral=shot.neutral, articulation=shot.articulation, detected_share=float(seen.mean()))


def _deviations(times_s: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """(T,) frames by which each time is off from an even rate's."""
    return np.asarray(np.abs((times_s - times_s[0]) * rate - np.arange(len(times_s))), np.float64)


def _stretches(shot: ShotAnalysis) -> list[tuple[int, int, str]]:
    """(start, stop, reason) of the longest stretches without gaps; frames numbered in the source."""
    found = [(*bounds, "") for bounds in runs(shot.routes == Route.DUB)]
    for route, reason in REFUSED.items():
        found += [(*bounds, reason) for bounds in runs(shot.routes == route)]
    return sorted((shot.start + first, shot.start + last, reason) for first, last, reason in found)


def _cut(start: int, stop: int, most: float) -> list[tuple[int, int]]:
    """Into as few pieces of equal length as have at most so many frames each."""
    # Frame times are rounded: what is 250 frames must not be cut for being 249.99.
    pieces = math.ceil((stop - start) / max(math.floor(most + 0.05), 1))
    bounds = [start + round(number * (stop - start) / pieces) for number in range(pieces + 1)]
    return list(itertools.pairwise(bounds))
