"""What every command of `ray_jobs/` does alike: errors of ours are one line, an interrupted run can go on."""

import sys
from collections.abc import Callable

from rich.console import Console

from dreamhead.errors import DreamheadError

SUCCEEDED, SOME_FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses."""


def run_command(work: Callable[[Console], int]) -> int:
    """The exit status of `work`, which is given a console on stderr; REFUSED after an error, INTERRUPTED by Ctrl-C."""
    console = Console(file=sys.stderr)
    try:
        return work(console)
    except DreamheadError as error:
        console.print(f"{type(error).__name__}: {error}", markup=False, highlight=False, soft_wrap=True)
        return REFUSED
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on where this one stopped", markup=False)
        return INTERRUPTED
