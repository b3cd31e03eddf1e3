"""What every command of `ray_jobs/` does alike: errors of ours are one line, an interrupted run can go on."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from rich.console import Console

from dreamhead.errors import DreamheadError

SUCCEEDED, SOME_FAILED, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
"""Exit statuses."""


def run_command(work: Callable[[Console], int]) -> int:
    """The exit status of `work`, which is given a console on stderr.

    REFUSED after an error of ours, INTERRUPTED by Ctrl-C, TERMINATED by SIGTERM, which is how a stopped job ends.
    """
    console = Console(file=sys.stderr)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        return work(console)
    except DreamheadError as error:
        console.print(f"{type(error).__name__}: {error}", markup=False, highlight=False, soft_wrap=True)
        return REFUSED
    except KeyboardInterrupt as interrupt:
        console.print("interrupted; the same command goes on where this one stopped", markup=False)
        return TERMINATED if isinstance(interrupt, TerminatedError) else INTERRUPTED


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came. What can be interrupted by Ctrl-C ends by it in the same way."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise TerminatedError
