"""Tell people how a preparation gets on: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from dreamhead.cluster.bar import Bar
from dreamhead.stages.preparation import ledger

LINE_EVERY_S = 15.0

COLUMNS = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())


class PreparationProgress(Bar):
    """Counts sources, and the clips that came of them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, COLUMNS, "checking")
        self._sources, self._done, self._failed, self._seconds = 0, 0, 0, 0.0
        self._clips = dict.fromkeys((ledger.SPOKEN, ledger.PICTURES, ledger.REJECTED), 0)
        self._began_s = self._line_s = time.monotonic()

    def plan(self, missing: int, sources: int) -> None:
        """How many sources are left to do, of how many."""
        self._sources = missing
        self._began_s = time.monotonic()
        self.say(f"{missing} of {sources} sources to prepare, {sources - missing} are done or can't be read")

    def source(self, facts: Mapping[str, Any]) -> None:
        """One source ended; a failure is told with its reason, at once."""
        if facts["status"] == ledger.FAILED:
            self._failed += 1
            self.say(f"{facts['uri']} failed: {facts['error']}")
        if facts.get("name"):
            self._done += 1
            self._seconds += float(facts["seconds"])
            for name in self._clips:
                self._clips[name] += int(facts[name])
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=self._line(), total=self._sources or None, completed=self._done)
        elif time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line_s = time.monotonic()
            self.say(f"{self._line()}, {self._remaining()}")

    def _line(self) -> str:
        failed = f" ({self._failed} failed)" if self._failed else ""
        clips = ", ".join(f"{count} {name}" for name, count in self._clips.items())
        rate = self._seconds / max(time.monotonic() - self._began_s, 1e-3)
        return f"{self._done}/{self._sources} sources{failed}, clips: {clips}; {rate:.2f} s of video a second"

    def _remaining(self) -> str:
        if not self._done:
            return "time left unknown"
        left_s = (time.monotonic() - self._began_s) / self._done * (self._sources - self._done)
        return f"about {left_s / 60:.0f} min left"
