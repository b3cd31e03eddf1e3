"""Frames a second and how busy the pools are, over the last minutes."""

import threading

import pytest

from dreamhead.cluster.rates import WINDOW_S, Rates
from dreamhead.records import Chunk, Job

JOB = Job(job_id="job", row=0, video_uri="v", audio_uri="a", output_uri="o")


def chunk(frames: int, **seconds: float) -> Chunk:
    workers = {stage: f"{stage}-{frames}" for stage in seconds}
    return Chunk(
        job=JOB, start=0, stop=frames, shot_start=0, shot_stop=frames, analysis_uri="", seconds=seconds, workers=workers
    )


def test_rates_count_from_the_start_and_then_over_a_window() -> None:
    rates = Rates(100.0, {"render": 1})
    rates.add(chunk(50, render=5.0), 110.0)
    assert rates.frames_per_s(110.0) == pytest.approx(5.0)
    assert rates.frames_per_s(120.0) == pytest.approx(2.5)
    assert rates.busy(110.0)["render"] == pytest.approx(0.5)
    rates.add(chunk(60, render=WINDOW_S), 110.0 + WINDOW_S)
    # The first chunk is about to leave the window, and then has left it.
    assert rates.frames_per_s(110.0 + WINDOW_S) == pytest.approx(110 / WINDOW_S)
    assert rates.frames_per_s(110.1 + WINDOW_S) == pytest.approx(60 / WINDOW_S)


def test_a_stall_shows() -> None:
    rates = Rates(0.0, {"render": 1})
    rates.add(chunk(50, render=5.0), 10.0)
    assert rates.frames_per_s(10.0 + 2 * WINDOW_S) == 0.0
    assert rates.busy(10.0 + 2 * WINDOW_S) == {"render": 0.0}


def test_actors_beyond_the_least_are_counted_when_they_did_something() -> None:
    rates = Rates(0.0, {"analyse": 2, "render": 1})
    for frames in (10, 20, 30):
        rates.add(chunk(frames, analyse=0.5, render=3.0), 10.0)
    assert rates.actors(10.0) == {"analyse": 3, "render": 3}
    assert rates.busy(10.0) == {"analyse": pytest.approx(0.05), "render": pytest.approx(0.3)}
    assert rates.actors(20.0 + WINDOW_S) == {"analyse": 2, "render": 1}


def test_a_display_may_ask_while_chunks_end() -> None:
    rates, ended = Rates(0.0, {"render": 1}), threading.Event()
    failures: list[Exception] = []

    def ask() -> None:
        now_s = 0.0
        while not ended.is_set():
            now_s += 1.0
            try:
                rates.busy(now_s)
                rates.frames_per_s(now_s)
            except (IndexError, RuntimeError) as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for count in range(3000):
        rates.add(chunk(1, render=0.1), float(count))
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []
