"""A wall-clock limit on a piece of work, kept by a thread beside it."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

TOO_SLOW = 71
"""Exit status of a process whose work took too long."""

NOTE_S = 10.0


class Deadline:
    """Ends the process once its time, all that passed between starts and stops together, is over.

    Python can't interrupt what hangs in native code or waits for a server: only the end of the process does, and
    whoever started it starts another.

    Args:
        seconds: 0 is no limit.
        end: ends the process; without it there is no limit.
        note: told the reason first, and waited for a few seconds at most: what it writes to may hang as well.
    """

    def __init__(self, seconds: float, end: Callable[[], None] | None, note: Callable[[str], None]) -> None:
        self._seconds = self._left = seconds
        self._end = end
        self._note = note
        self._timer: threading.Timer | None = None
        self._since = 0.0

    def __enter__(self) -> None:
        self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Let the time run."""
        if self._seconds and self._end is not None:
            self._since = time.monotonic()
            self._timer = threading.Timer(max(self._left, 0.0), self._expire)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """Hold the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left -= time.monotonic() - self._since

    def _expire(self) -> None:
        reason = f"TimeoutError: it took longer than {self._seconds:g} s"
        noting = threading.Thread(target=self._note, args=(reason,), daemon=True)
        noting.start()
        noting.join(NOTE_S)
        if self._end is not None:
            self._end()
