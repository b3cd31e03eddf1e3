"""Tell people how a batch gets on: a display on a terminal, sober lines elsewhere, metrics for Prometheus."""

import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from dreamhead.cluster.batch_metrics import BatchMetrics
from dreamhead.cluster.pools import Pools
from dreamhead.cluster.rates import Rates
from dreamhead.records import Chunk
from dreamhead.stages.results import Row

LINE_EVERY_S = 15.0
LAST_ERRORS = 3
BAR_WIDTH = 30


@dataclass
class Counts:
    """What a run has done so far."""

    jobs: int
    """Rows of the manifest."""
    jobs_done: int = 0
    jobs_failed: int = 0
    checked: int = 0
    chunks: int = 0
    chunks_retried: int = 0
    frames: int = 0
    """Of the outputs of all jobs that were to do."""
    frames_done: int = 0
    """Those that an earlier run left included."""


class BatchProgress:
    """Counts what a run does, and shows it. Frames that were there already count as done, not for the rate."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._console = console
        self._counts = Counts(jobs)
        self._metrics = BatchMetrics()
        self._rates = Rates(time.monotonic(), {})
        self._is_planned = False
        self._errors: deque[str] = deque(maxlen=LAST_ERRORS)
        self._began_s = self._line_s = time.monotonic()
        # Asked again with every refresh, so that time goes on while no chunk ends.
        self._live = Live(get_renderable=self._display, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def checked(self, jobs: int) -> None:
        """So many jobs are checked."""
        self._counts.checked = jobs
        self._tell()

    def plan(self, jobs: int, frames: int, frames_done: int, pools: Pools) -> None:
        """What is left to do: jobs, frames of their outputs, and how many of these an earlier run left."""
        counts = self._counts
        counts.frames, counts.frames_done = frames, frames_done
        self._rates = Rates(time.monotonic(), {name: pool.min_size for name, pool in pools.named().items()})
        self._is_planned = True
        self.say(f"{jobs} of {counts.jobs} jobs to do: {frames} frames, of which {frames_done} are there")
        self._tell()

    def chunk(self, chunk: Chunk) -> None:
        """One chunk came out of the pipeline."""
        self._metrics.chunk(chunk)
        self._counts.chunks += 1
        self._counts.chunks_retried += bool(chunk.retries)
        if chunk.attempt and not chunk.error:
            self._counts.frames_done += chunk.stop - chunk.start
            self._rates.add(chunk, time.monotonic())
        self._tell()

    def job(self, row: Row) -> None:
        """One job ended; a failure is told with its reason, at once."""
        self._metrics.job(row["status"])
        self._counts.jobs_done += 1
        if row["status"] == "failed":
            self._counts.jobs_failed += 1
            error = (
                f"job {row['job_id'] or '(row ' + str(row['row']) + ')'} failed: {row['error_type']}: {row['error']}"
            )
            self._errors.append(error)
            self.say(error)
        self._tell(at_once=self._counts.jobs_done == self._counts.jobs)

    def _tell(self, *, at_once: bool = False) -> None:
        now_s = time.monotonic()
        if now_s - self._line_s < LINE_EVERY_S and not at_once:
            return
        self._line_s = now_s
        counts = self._counts
        self._metrics.left(counts.jobs - counts.jobs_done, counts.frames - counts.frames_done, self._eta_s(now_s))
        self._metrics.pools(self._rates.actors(now_s), self._rates.busy(now_s))
        if not self._console.is_terminal:
            self.say(", ".join([self._line(now_s), *self._pool_texts(now_s), self._left_text(now_s)]))

    def _line(self, now_s: float) -> str:
        counts = self._counts
        if not self._is_planned:
            return f"checking: {counts.checked}/{counts.jobs} jobs"
        failed = f" ({counts.jobs_failed} failed)" if counts.jobs_failed else ""
        retried = f" ({counts.chunks_retried} tried again)" if counts.chunks_retried else ""
        rate = f"{self._rates.frames_per_s(now_s):.1f} frames/s"
        return f"{counts.jobs_done}/{counts.jobs} jobs{failed}, {counts.chunks} chunks{retried}, {rate}"

    def _pool_texts(self, now_s: float) -> list[str]:
        actors = self._rates.actors(now_s)
        return [f"{name} {busy:.0%} of {actors[name]}" for name, busy in self._rates.busy(now_s).items()]

    def _eta_s(self, now_s: float) -> float | None:
        rate = self._rates.frames_per_s(now_s) if self._is_planned else 0.0
        return max(self._counts.frames - self._counts.frames_done, 0) / rate if rate else None

    def _left_text(self, now_s: float) -> str:
        eta_s = self._eta_s(now_s)
        return "time left unknown" if eta_s is None else f"about {_duration(eta_s)} left"

    def _display(self) -> RenderableType:
        now_s, counts = time.monotonic(), self._counts
        done, total = (counts.frames_done, counts.frames) if self._is_planned else (counts.checked, counts.jobs)
        head = Table.grid(padding=(0, 1))
        percent = f"{done / total:4.0%}" if total else "    "
        elapsed = f"{_duration(now_s - self._began_s)} so far"
        head.add_row(
            ProgressBar(total=max(total, 1), completed=done, width=BAR_WIDTH), percent, elapsed, self._left_text(now_s)
        )
        lines: list[RenderableType] = [head, Text(self._line(now_s))]
        if self._is_planned:
            lines.append(Text("busy: " + "   ".join(self._pool_texts(now_s)), style="dim"))
        lines += [Text(error, style="red", no_wrap=True, overflow="ellipsis") for error in list(self._errors)]
        return Group(*lines)


def _duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
