"""Show how an upload, a job and a download go on: bars on a terminal, a line now and then in a log."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from typing_extensions import Self

from dreamhead.client.jobs import ClientJob

STEPS = 10
"""Lines that a log gets of a job's progress, at most."""


class Display:
    """Where people look; a context, so that a bar never outlives its command."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._bar: TaskID | None = None
        self._told: tuple[str, int] = ("", 0)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """One line, above the bar where there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def begin(self, what: str, total: int | None) -> None:
        """A new bar in the place of the one before."""
        if self._bar is not None:
            self._bars.remove_task(self._bar)
        self._bar = self._bars.add_task(what, total=total)

    def advance(self, count: int) -> None:
        """So much more of it is done."""
        if self._bar is not None:
            self._bars.advance(self._bar, count)

    def set(self, done: int, total: int) -> None:
        """So much of it is done."""
        if self._bar is not None:
            self._bars.update(self._bar, completed=done, total=total)

    def show(self, job: ClientJob) -> None:
        """A job as it was last heard of."""
        progress = job.progress
        if self._console.is_terminal and self._bar is not None:
            total = progress.frames or None
            self._bars.update(self._bar, description=job.status, completed=progress.frames_done, total=total)
            return
        step = progress.frames_done * STEPS // progress.frames if progress.frames else 0
        if (job.status, step) != self._told and not job.is_over:
            self._told = (job.status, step)
            self.say(job.line)


def upload_size(*files: Path) -> int:
    """Bytes of files together."""
    return sum(file.stat().st_size for file in files)
