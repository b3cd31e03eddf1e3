"""A bar on a terminal that lasts as long as the work, and lines: what every display of progress is made of."""

from types import TracebackType

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID
from typing_extensions import Self


class Bar:
    """Shows a bar where the console is a terminal.

    Args:
        columns: of the bar.
        description: what it says first.
        total: of what is counted; None while it isn't known.
    """

    def __init__(
        self, console: Console, columns: tuple[ProgressColumn, ...], description: str, total: int | None = None
    ) -> None:
        self._console = console
        self._bar = Progress(*columns, console=console) if console.is_terminal else None
        self._task = TaskID(0)
        if self._bar is not None:
            self._task = self._bar.add_task(description, total=total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
