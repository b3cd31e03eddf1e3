"""Tell people how a batch gets on: a bar on a terminal, plain lines elsewhere, counters for Prometheus."""

import time

from ray.util.metrics import Counter
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dreamhead.cluster.bar import Bar
from dreamhead.records import Chunk

LINE_EVERY_S = 15.0

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.percentage:>3.0f} %"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class BatchProgress(Bar):
    """Counts what a run has done. Frames that were there already count for the bar, not for the rate."""

    def __init__(self, console: Console, jobs: int) -> None:
        super().__init__(console, COLUMNS, "checking")
        self._jobs, self._jobs_done, self._jobs_failed, self._chunks = jobs, 0, 0, 0
        self._frames, self._frames_done, self._rendered = 0, 0, 0
        self._began_s = self._line_s = time.monotonic()
        self._frames_total = Counter("dreamhead_frames_total", "Frames of the chunks that were rendered.")
        self._chunks_total = Counter("dreamhead_chunks_total", "Chunks by how they ended.", ("status",))
        self._jobs_total = Counter("dreamhead_jobs_total", "Jobs by how they ended.", ("status",))

    def plan(self, jobs: int, frames: int, frames_done: int) -> None:
        """What is left to do: jobs, frames of their outputs, and how many of these an earlier run left."""
        self._frames, self._frames_done = frames, frames_done
        self._began_s = time.monotonic()
        self.say(f"{jobs} of {self._jobs} jobs to do: {frames} frames, of which {frames_done} are there")

    def chunk(self, chunk: Chunk) -> None:
        """One chunk came out of the pipeline."""
        status = "failed" if chunk.error else "succeeded"
        self._chunks_total.inc(1, {"status": status})
        self._chunks += 1
        if not chunk.error:
            frames = chunk.stop - chunk.start
            self._frames_done += frames
            if chunk.attempt:
                self._rendered += frames
                self._frames_total.inc(frames)
        self._show()

    def job(self, job_id: str, status: str, reason: str) -> None:
        """One job ended; a failure is told with its reason, at once."""
        self._jobs_total.inc(1, {"status": status})
        self._jobs_done += 1
        if status == "failed":
            self._jobs_failed += 1
            self.say(f"job {job_id or '(unnamed)'} failed: {reason}")
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, description=self._line(), total=self._frames or None, completed=self._frames_done
            )
        elif time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line_s = time.monotonic()
            self.say(f"{self._line()}, {self._remaining()}")

    def _line(self) -> str:
        failed = f" ({self._jobs_failed} failed)" if self._jobs_failed else ""
        return f"{self._jobs_done}/{self._jobs} jobs{failed}, {self._chunks} chunks, {self._rate():.1f} frames/s"

    def _rate(self) -> float:
        return self._rendered / max(time.monotonic() - self._began_s, 1e-3)

    def _remaining(self) -> str:
        if not self._rendered:
            return "time left unknown"
        seconds = max(self._frames - self._frames_done, 0) / self._rate()
        return f"{self._frames_done}/{self._frames} frames, about {seconds / 60:.0f} min left"
