"""Stretches of one face: every one of every shot, without gaps, cut evenly, at the rate that their times have."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from dreamhead.config import PreparationSettings
from dreamhead.faces import geometry
from dreamhead.faces.reference import reference_arrays
from dreamhead.media.video import probe
from dreamhead.records import Route, ShotAnalysis
from dreamhead.stages.preparation.tracks import _cut, analysis_settings, find_candidates
from tests.stages.preparation.conftest import candidate
from tests.toy_faces import canonical_face, posed, turn

D, N, S, A = Route.DUB, Route.NO_FACE, Route.FACE_TOO_SMALL, Route.TURNED_AWAY


class Analyser:
    """Cuts where it is told, and routes as it is told."""

    def __init__(self, shots: list[list[Route]]) -> None:
        self.shots = shots

    def __call__(
        self, frames: Iterable[Any], first: int, times_s: Any, face: str, pixel_aspect: float
    ) -> Iterator[ShotAnalysis]:
        assert (face, pixel_aspect) == ("largest", 1.0)
        assert len(list(frames)) == len(times_s) == sum(map(len, self.shots))
        for routes in self.shots:
            yield shot(first, routes)
            first += len(routes)


def shot(start: int, routes: list[Route]) -> ShotAnalysis:
    count = len(routes)
    landmarks = np.stack([posed(canonical_face(0.01 * (start + index))) for index in range(count)])
    landmarks[np.array(routes) == N] = np.nan
    return ShotAnalysis(
        start=start,
        stop=start + count,
        landmarks=landmarks,
        routes=np.array(routes, np.uint8),
        neutral=np.full((478, 3), 1.0 if D in routes else np.nan, np.float32),
        articulation=0.3,
        crops=np.zeros((count, 2, 3), np.float32),
        **reference_arrays([], 64),
    )


def found(make_video: Any, shots: list[list[Route]], start: int = 0, **settings: Any) -> list[Any]:
    stop = start + sum(map(len, shots))
    info = probe(make_video(frames=stop))
    values = PreparationSettings(min_clip_s=0.04, **settings)
    return list(find_candidates(info, start, stop, Analyser(shots), values))  # type: ignore[arg-type]


def test_every_stretch_of_every_shot_is_a_candidate(make_video: Any) -> None:
    clips = found(make_video, [[D, D, N, D, A, A, D], [S, S, S], [N, N]], start=5)
    assert [(clip.start, clip.stop, clip.reason) for clip in clips] == [
        (5, 7, ""),
        (8, 9, ""),
        (9, 11, "turned away"),
        (11, 12, ""),
        (12, 15, "face too small"),
    ]
    first, last = clips[0], clips[-1]
    assert first.start_s == pytest.approx(0.2)
    assert first.track.detected_share == pytest.approx(6 / 7)
    assert first.track is clips[3].track
    np.testing.assert_allclose(first.opening(), [0.05, 0.06], atol=2e-3)
    assert np.isnan(last.track.neutral).all()


def test_long_stretches_are_cut_evenly(make_video: Any) -> None:
    clips = found(make_video, [[D] * 26], clip_s=0.4)
    assert [(clip.start, clip.stop) for clip in clips] == [(0, 9), (9, 17), (17, 26)]
    assert _cut(0, 250, 249.99) == [(0, 250)]
    assert _cut(3, 4, 0.5) == [(3, 4)]


def test_the_walk_looks_by_the_filters_limits() -> None:
    settings = PreparationSettings(crop_size=128, filters={"max_yaw_deg": 20, "min_face_px": 99})  # type: ignore[arg-type]
    analysis = analysis_settings(settings)
    assert (analysis.max_yaw_deg, analysis.min_face_px, analysis.crop_size) == (20, 99, 128)


def test_rates_follow_the_times() -> None:
    even = candidate(np.zeros(20), rate=30)
    assert even.frame_rate == pytest.approx(30)
    assert even.seconds == pytest.approx(20 / 30)
    assert even.unevenness() == pytest.approx(0, abs=1e-6)
    # The last frame stays twice as long: that is no other rate.
    times_s = np.arange(40) / 25
    times_s[-1] += 0.04
    assert candidate(np.zeros(40), times_s=times_s).frame_rate == pytest.approx(25)
    # A third of the frames is missing, evenly: the mean rate fits.
    dropped = np.delete(np.arange(60) / 30, slice(2, None, 3))
    assert candidate(np.zeros(40), times_s=dropped).frame_rate == pytest.approx(20, rel=0.02)
    assert 0.2 < candidate(np.zeros(40), times_s=dropped).unevenness() < 0.75
    stalled = np.concatenate([np.arange(20), np.arange(20) + 40]) / 25
    assert candidate(np.zeros(40), times_s=stalled).unevenness() > 5


def test_figures_of_a_face() -> None:
    clip = candidate(np.zeros(4))
    assert clip.face_px() == pytest.approx(2.2 * 40, rel=0.02)
    turned = np.stack([posed(canonical_face(), rotation=turn(yaw_deg=yaw)) for yaw in (0, 0, 0, -30)])
    yaw, pitch = candidate(np.zeros(4), landmarks=turned).turned_deg()
    still = abs(float(geometry.fit_pose(turned[:1]).pitch_deg()[0]))
    assert 20 < yaw < 30
    assert pitch == pytest.approx(still, abs=3)
