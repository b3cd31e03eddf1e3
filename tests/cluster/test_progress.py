"""What people see of a batch: lines in a log, a display on a terminal."""

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from dreamhead.cluster import progress
from dreamhead.cluster.pools import Node, plan_pools
from dreamhead.cluster.progress import BatchProgress
from dreamhead.config import PoolsSettings
from dreamhead.records import Chunk, Job
from dreamhead.stages import results

JOB = Job(job_id="film.fr", row=0, video_uri="v", audio_uri="a", output_uri="o")
POOLS = plan_pools(PoolsSettings(), [Node(8, 0)], use_gpus=True)


def chunk(**values: Any) -> Chunk:
    given = {"job": JOB, "start": 0, "stop": 250, "shot_start": 0, "shot_stop": 250, "analysis_uri": "", "attempt": 1}
    return Chunk(**given | values)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time on."""
    now = [1000.0]

    def move(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return move


def run(shown: BatchProgress, clock: Callable[[float], None]) -> None:
    """Two of three jobs: one fails."""
    clock(16)
    shown.checked(2)
    shown.plan(2, 1000, 250, POOLS)
    clock(20)
    shown.chunk(chunk(seconds={"render": 10.0}, workers={"render": "one"}, retries={"render": 1}))
    shown.job(results.failed(JOB, "MediaError: frame 3 is damaged"))


def test_a_log_gets_a_line_now_and_then_and_every_failure(clock: Callable[[float], None]) -> None:
    written = io.StringIO()
    with BatchProgress(Console(file=written, width=200), 3) as shown:
        run(shown, clock)
        shown.chunk(chunk())  # Too soon for another line.
    assert written.getvalue().splitlines() == [
        "checking: 2/3 jobs, time left unknown",
        "2 of 3 jobs to do: 1000 frames, of which 250 are there",
        "0/3 jobs, 1 chunks (1 tried again), 12.5 frames/s, analyse 0% of 4, landmarks 0% of 4, render 12% of 4, "
        "about 40 s left",
        "job film.fr failed: MediaError: frame 3 is damaged",
    ]


def test_the_last_job_has_a_line_and_what_comes_after_it_has_none(clock: Callable[[float], None]) -> None:
    written = io.StringIO()
    with BatchProgress(Console(file=written, width=200), 1) as shown:
        run(shown, clock)
        before = len(written.getvalue().splitlines())
        for _ in range(3):
            # The other chunks of a job that failed.
            shown.chunk(chunk(error="MediaError: frame 3 is damaged"))
    lines = written.getvalue().splitlines()
    assert len(lines) == before
    assert lines[-1].startswith("1/1 jobs (1 failed), 1 chunks")


def test_a_terminal_shows_all_at_once(clock: Callable[[float], None]) -> None:
    written = io.StringIO()
    console = Console(file=written, width=110, force_terminal=True, color_system=None)
    shown = BatchProgress(console, 3)
    run(shown, clock)
    console.print(shown._display())
    display = "\n".join(line.rstrip() for line in written.getvalue().splitlines()[-4:])
    assert display.splitlines()[0].split(maxsplit=1)[1] == "50% 36 s so far about 40 s left"
    assert display.splitlines()[1:] == [
        "1/3 jobs (1 failed), 1 chunks (1 tried again), 12.5 frames/s",
        "busy: analyse 0% of 4   landmarks 0% of 4   render 12% of 4",
        "job film.fr failed: MediaError: frame 3 is damaged",
    ]


def test_only_the_last_errors_stay_on_the_display(clock: Callable[[float], None]) -> None:
    written = io.StringIO()
    shown = BatchProgress(Console(file=written, width=110), 9)
    for number in range(5):
        shown.job(results.failed(JOB, f"MediaError: {number}"))
    Console(file=(display := io.StringIO()), width=110).print(shown._display())
    assert [line[-1] for line in display.getvalue().splitlines() if "MediaError" in line] == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (89.6, "90 s"), (100, "2 min"), (5000, "83 min"), (11100, "3 h 05 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text
