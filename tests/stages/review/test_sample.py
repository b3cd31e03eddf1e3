"""Which frames are looked at."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import ReviewSettings
from dreamhead.records import Chunk, Job
from dreamhead.stages.review.sample import SHORT, at_rate, choose_stretches, frames_wanted

JOB = Job(job_id="job", row=0, video_uri="v", audio_uri="a", output_uri="o")


def chunk(start: int, stop: int, dubbed: int | None = None) -> Chunk:
    return Chunk(
        job=JOB,
        start=start,
        stop=stop,
        shot_start=start,
        shot_stop=stop,
        analysis_uri="",
        dubbed_frames=stop - start if dubbed is None else dubbed,
    )


def full(part: Chunk) -> NDArray[np.float32]:
    return np.ones(part.stop - part.start, np.float32)


@pytest.mark.parametrize(
    ("frames", "dubbed", "wanted"),
    [(250, 250, 25), (1000, 1000, 100), (100_000, 100_000, 200), (10, 10, 10), (9, 0, 0)],
)
def test_a_tenth_is_looked_at_within_bounds(frames: int, dubbed: int, wanted: int) -> None:
    assert frames_wanted(frames, dubbed, 25, ReviewSettings()) == wanted


@pytest.mark.parametrize(("rate", "least", "most"), [(25, 25, 200), (120, 120, 960), (60, 60, 480), (5, 25, 200)])
def test_the_bounds_are_as_much_time_at_higher_rates(rate: int, least: int, most: int) -> None:
    assert frames_wanted(150, 150, rate, ReviewSettings()) == least
    assert frames_wanted(100_000, 100_000, rate, ReviewSettings()) == most


def test_no_stretch_is_a_moment_at_a_high_rate() -> None:
    wanted = frames_wanted(600, 600, 120, ReviewSettings())
    found = list(choose_stretches([chunk(0, 600)], wanted, 120, full, at_rate(SHORT, 120)))
    assert [part.stop - part.start for part in found] == [60, 60], "half a second, not a tenth"


def test_stretches_are_spread_over_what_is_dubbed() -> None:
    chunks = [chunk(start, start + 250) for start in range(0, 2500, 250)]
    found = list(choose_stretches(chunks, 200, 25, full))
    assert [part.stop - part.start for part in found] == [25] * 8
    assert np.allclose([part.start + 12 for part in found], (np.arange(8) + 0.25) * 2500 / 8, atol=1)
    assert all(part.chunk.start <= part.start < part.stop <= part.chunk.stop for part in found)


def test_a_short_clip_is_seen_at_more_than_one_place() -> None:
    found = list(choose_stretches([chunk(0, 250)], 25, 25, full))
    assert [(part.start, part.stop) for part in found] == [(25, 38), (150, 163)]


def test_only_full_dubs_are_looked_at_and_idle_chunks_not_even_opened() -> None:
    asked: list[int] = []

    def strength(part: Chunk) -> NDArray[np.float32]:
        asked.append(part.start)
        values = full(part)
        values[:20] = 0.5
        values[25:28] = 0
        return values

    chunks = [chunk(0, 500, 0), chunk(500, 550, 47), chunk(550, 900, 0)]
    found = list(choose_stretches(chunks, 40, 10, strength))
    frames = [frame for part in found for frame in range(part.start, part.stop)]
    assert set(asked) == {500}
    assert frames == sorted(set(frames)), "stretches overlap"
    assert set(frames) <= {*range(520, 525), *range(528, 550)}
    assert len(frames) >= 15


def test_nothing_dubbed_nothing_to_see() -> None:
    assert list(choose_stretches([], 10, 10, full)) == []
    assert list(choose_stretches([chunk(0, 50, 0)], 0, 10, full)) == []
    faint = choose_stretches([chunk(0, 5, 5)], 5, 10, lambda part: full(part) * 0.5)
    assert list(faint) == []


def test_one_frame_is_a_stretch() -> None:
    (only,) = choose_stretches([chunk(0, 1)], 1, 25, full)
    assert (only.start, only.stop) == (0, 1)
