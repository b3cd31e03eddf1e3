"""Tell people how a training gets on: a bar on a terminal, a plain line now and then elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dreamhead.cluster.bar import Bar

LINE_EVERY_S = 15.0

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed}/{task.total}"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class TrainingProgress(Bar):
    """The steps of one stage, and what the log said last."""

    def __init__(self, console: Console, stage: str, steps: int) -> None:
        super().__init__(console, COLUMNS, stage, steps)
        self._stage = stage
        self._steps = steps
        self._figures = ""
        self._line_s = time.monotonic() - LINE_EVERY_S

    def step(self, done: int) -> None:
        """`done` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=f"{self._stage} {self._figures}".rstrip())

    def note(self, line: dict[str, Any]) -> None:
        """A line of the log: validations are always told, the pace not too often."""
        if "validation" in line:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in line["validation"].items())
            self.say(f"{self._stage}: step {line['step']}: validation: {figures}")
        elif "loss" in line:
            self._figures = f"loss {line['loss']:.4g}, {line['samples_per_s']:.3g} samples/s"
            self.step(line["step"])
            if self._bar is None and (self._is_due() or line["step"] == self._steps):
                self._line_s = time.monotonic()
                waits = f"{line['data_wait']:.0%} of the time waiting for data"
                self.say(f"{self._stage}: step {line['step']}/{self._steps}: {self._figures}, {waits}")

    def _is_due(self) -> bool:
        return time.monotonic() - self._line_s >= LINE_EVERY_S
