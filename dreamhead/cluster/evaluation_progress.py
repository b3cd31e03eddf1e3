"""Tell people how an evaluation gets on: a bar on a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from dreamhead.cluster.bar import Bar
from dreamhead.evaluation.figures import FIGURES
from dreamhead.evaluation.records import Verdict

TOLD = ("correlation_best", "shut", "mouth_psnr_db")
"""Figures that a line says of a condition, where it has them."""

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


class EvaluationProgress(Bar):
    """Counts conditions as they are judged, and says when the rest will be."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, COLUMNS, "starting")
        self._missing, self._done, self._failed = 0, 0, 0
        self._began_s = time.monotonic()

    def plan(self, clips: int, conditions: int, missing: int) -> None:
        """What there is to do."""
        self._missing, self._began_s = missing, time.monotonic()
        self.say(f"{clips} clips, {conditions} conditions in all: {missing} to judge, {conditions - missing} are there")
        if self._bar is not None:
            self._bar.update(self._task, total=missing, description="judging")

    def judged(self, verdict: Verdict) -> None:
        """One condition ended."""
        self._done += 1
        self._failed += bool(verdict.error)
        found = ", ".join(
            f"{FIGURES[name].label} {FIGURES[name].text(verdict.figures[name])}"
            for name in TOLD
            if name in verdict.figures
        )
        what = f"failed: {verdict.error}" if verdict.error else found
        self.say(f"{self._done}/{self._missing} {verdict.clip_id} {verdict.condition}: {what}{self._remaining()}")
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self._line())

    def _line(self) -> str:
        return f"judging ({self._failed} failed)" if self._failed else "judging"

    def _remaining(self) -> str:
        left_s = (time.monotonic() - self._began_s) / self._done * (self._missing - self._done)
        return f" ({left_s / 60:.0f} min left)" if left_s > 30 else ""
