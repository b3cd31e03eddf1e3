"""The output's timeline: every policy, any frame rate, and how shots become chunks."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dreamhead.errors import InputError
from dreamhead.records import VideoInfo
from dreamhead.stages.timeline import Timeline, build_timeline, chunks_of_shot


def video(pts: list[int], end_pts: int, *, rate: Fraction = Fraction(25), is_still: bool = False) -> VideoInfo:
    return VideoInfo(
        uri="clip.mp4",
        width=64,
        height=48,
        rotation=0,
        sample_aspect_ratio=Fraction(1),
        average_rate=rate,
        time_base=Fraction(1, 1000),
        pts=np.array(pts, dtype=np.int64),
        end_pts=end_pts,
        color=(1, 1, 1, 1),
        has_audio=False,
        is_still=is_still,
    )


def even(frames: int, first: int = 0) -> VideoInfo:
    return video([first + 40 * index for index in range(frames)], first + 40 * frames)


def ends(timeline: Timeline) -> NDArray[np.int64]:
    return np.append(timeline.pts[1:], timeline.end_pts)


@pytest.mark.parametrize("policy", ["error", "trim", "freeze", "pingpong"])
@pytest.mark.parametrize("speech_s", [0.0, 0.3, 0.4, 0.439])
def test_speech_that_fits_leaves_the_source_as_it_is(policy: str, speech_s: float) -> None:
    source = even(10, first=80)
    timeline = build_timeline(source, speech_s, policy)  # type: ignore[arg-type]
    assert timeline.source.tolist() == list(range(10))
    assert timeline.pts.tolist() == source.pts.tolist()
    assert (timeline.end_pts, timeline.warnings) == (source.end_pts, ())


def test_pictures_that_start_late_keep_their_time_and_the_speech_its_own() -> None:
    late = replace(even(10, first=1400), lead=400)
    assert late.times_s[0] == pytest.approx(0.4)
    for start, speech_start_s, longest_s in (("file", 0.0, 0.839), ("first_frame", 0.4, 0.439)):
        timeline = build_timeline(late, longest_s, "error", start)  # type: ignore[arg-type]
        assert timeline.times_s == pytest.approx(0.4 + np.arange(10) / 25)
        assert timeline.duration_s == pytest.approx(0.8)
        assert timeline.speech_times_s == pytest.approx(timeline.times_s - speech_start_s)
        with pytest.raises(InputError, match=r"the speech is 0\.04 s longer"):
            build_timeline(late, longest_s + 0.002, "error", start)  # type: ignore[arg-type]
        frozen = build_timeline(late, longest_s + 0.2, "freeze", start)  # type: ignore[arg-type]
        assert frozen.times_s[0] == pytest.approx(0.4)
        assert frozen.duration_s >= speech_start_s + longest_s + 0.2 - 0.04


def test_error_names_what_is_too_long_and_what_to_do() -> None:
    with pytest.raises(InputError, match=r"clip.mp4: the speech is 0.60 s longer.*0.40 s; set on_longer_audio"):
        build_timeline(even(10), 1.0, "error")


def test_trim_keeps_the_frames_and_warns() -> None:
    timeline = build_timeline(even(10), 1.0, "trim")
    assert timeline.frame_count == 10
    assert timeline.warnings == ("the last 0.60 s of the speech were cut: it is longer than the video",)


def test_freeze_holds_the_last_frame() -> None:
    timeline = build_timeline(even(10, first=80), 1.0, "freeze")
    assert timeline.source.tolist() == [*range(10), *[9] * 15]
    assert timeline.pts.tolist() == [80 + 40 * index for index in range(25)]
    assert timeline.duration_s == pytest.approx(1.0)


def test_pingpong_turns_without_showing_a_frame_twice() -> None:
    timeline = build_timeline(even(4), 0.4, "pingpong")
    assert timeline.source.tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert timeline.end_pts == 400


def test_pingpong_keeps_each_frames_own_duration() -> None:
    source = video([0, 10, 40], 100)
    timeline = build_timeline(source, 0.25, "pingpong")
    shown = timeline.source.tolist()
    assert shown == [0, 1, 2, 1, 0, 1, 2, 1]
    assert (ends(timeline) - timeline.pts).tolist() == [[10, 30, 60][frame] for frame in shown]


def test_a_single_frame_can_only_be_held() -> None:
    timeline = build_timeline(video([0], 40), 0.2, "pingpong")
    assert timeline.source.tolist() == [0] * 5


def test_a_picture_is_held_for_the_speech_at_25_frames_a_second() -> None:
    timeline = build_timeline(video([0], 1, is_still=True), 1.01, "error")
    assert timeline.source.tolist() == [0] * 26
    assert timeline.times_s.tolist() == pytest.approx([index / 25 for index in range(26)])


@pytest.mark.parametrize("policy", ["freeze", "pingpong"])
@given(frames=st.integers(1, 40), speech_s=st.floats(0.0, 5.0))
def test_added_frames_cover_the_speech_to_within_a_frame(policy: str, frames: int, speech_s: float) -> None:
    source = even(frames)
    timeline = build_timeline(source, speech_s, policy)  # type: ignore[arg-type]
    assert (np.diff(np.append(timeline.pts, timeline.end_pts)) > 0).all()
    assert -0.04 < timeline.duration_s - max(speech_s, source.duration_s) < 0.0401
    assert (np.abs(np.diff(timeline.source)) <= 1).all()


def test_chunks_are_cut_evenly() -> None:
    timeline = build_timeline(even(100), 4.0, "error")
    assert list(chunks_of_shot(timeline, 10, 35, 10)) == [(10, 18), (18, 26), (26, 35)]
    assert list(chunks_of_shot(timeline, 99, 100, 10)) == [(99, 100)]


@pytest.mark.parametrize("policy", ["trim", "freeze", "pingpong"])
@given(
    frames=st.integers(1, 30),
    cut=st.integers(1, 29),
    speech_s=st.floats(0.0, 4.0),
    most=st.integers(1, 12),
)
def test_chunks_tile_the_output_and_run_one_way(policy: str, frames: int, cut: int, speech_s: float, most: int) -> None:
    timeline = build_timeline(even(frames), speech_s, policy)  # type: ignore[arg-type]
    cut = min(cut, frames)
    shots = [(0, cut), (cut, frames)] if cut < frames else [(0, frames)]
    chunks = sorted(chunk for shot in shots for chunk in chunks_of_shot(timeline, *shot, most))
    assert [start for start, _ in chunks] == [0, *[stop for _, stop in chunks[:-1]]]
    assert chunks[-1][1] == timeline.frame_count
    for start, stop in chunks:
        assert stop - start <= most
        assert len(set(np.diff(timeline.source[start:stop]))) <= 1


def test_end_of_a_range_is_the_next_frames_time() -> None:
    timeline = build_timeline(even(3), 0.1, "error")
    assert [timeline.end_pts_of(stop) for stop in (1, 2, 3)] == [40, 80, 120]
