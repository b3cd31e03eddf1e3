"""Tell people how a training gets on: a bar on a terminal, a plain line now and then elsewhere."""

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import Self

LINE_EVERY_S = 15.0


class TrainingProgress:
    """The steps of one stage, and what the log said last."""

    def __init__(self, console: Console, stage: str, steps: int) -> None:
        self._console = console
        self._stage = stage
        self._steps = steps
        self._figures = ""
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._line_s = time.monotonic() - LINE_EVERY_S

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console)
            self._task = self._bar.add_task(self._stage, total=self._steps)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

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

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _is_due(self) -> bool:
        return time.monotonic() - self._line_s >= LINE_EVERY_S
