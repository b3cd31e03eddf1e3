"""Print a benchmark's tables, and whether its targets were reached."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path


class Report:
    """Tables in Markdown; remembers each target that was missed.

    Args:
        title: of the benchmark.
    """

    def __init__(self, title: str) -> None:
        self._missed = False
        print(f"## {title}\n\n{machine()}\n", flush=True)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """One table; numbers are shown with three digits."""
        print("| " + " | ".join(headings) + " |\n" + "|---" * len(headings) + "|")
        for row in rows:
            print("| " + " | ".join(_shown(value) for value in row) + " |")
        print(flush=True)

    def at_most(self, what: str, value: float, limit: float) -> None:
        """A figure that must not exceed its target."""
        self._tell(what, value, f"at most {_shown(limit)}", value <= limit)

    def at_least(self, what: str, value: float, limit: float) -> None:
        """A figure that must reach its target."""
        self._tell(what, value, f"at least {_shown(limit)}", value >= limit)

    @property
    def exit_status(self) -> int:
        """0, or 1 once a target was missed."""
        return int(self._missed)

    def _tell(self, what: str, value: float, allowed: str, is_reached: bool) -> None:
        self._missed |= not is_reached
        verdict = "reached" if is_reached else "**missed**"
        print(f"- {what}: {_shown(value)}, target {allowed}: {verdict}", flush=True)


def machine() -> str:
    """Processor, cores and memory, as a table must name them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    name = (names or [platform.machine()])[0]
    return f"{cores} cores of {name}, {pages / 2**30:.0f} GiB, Python {platform.python_version()}"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
