"""Run a command and watch all processes that it brings about: their CPU seconds, and their memory at its peak."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36
LOOK_EVERY_S = 0.25
MEMORY_EVERY_S = 1.0
END_WITHIN_S = 300.0
ROLES = {
    "AnalyseSpans": "analyse",
    "LandmarkChunks": "landmarks",
    "RenderChunks": "render",
    "finish_job": "check and finalize",
    "check_group": "check and finalize",
    "batch_render.py": "driver",
}
"""What a process does, by a word of its command line; all others are Ray's own."""
RAYS_OWN = "Ray's own"

Identity = tuple[int, str]
"""Process id and time of start: ids are used again."""


@dataclass
class Usage:
    """What a command and all that it started used."""

    status: int = 0
    """Exit status; minus the signal's number when it was killed."""
    wall_s: float = 0.0
    gone_s: float = 0.0
    """From the end of the command to that of the last process it had brought about."""
    peak_bytes: int = 0
    """Proportional set size of all processes together: what they share counts once."""
    peak_by_role: dict[str, int] = field(default_factory=dict)
    """Bytes by role at the peak."""
    cpu_by_process: dict[Identity, float] = field(default_factory=dict)
    role_by_process: dict[Identity, str] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        """User and system seconds of all processes."""
        return sum(self.cpu_by_process.values())

    @property
    def cpu_by_role(self) -> dict[str, float]:
        """The same seconds, by what the processes are there for."""
        seconds: dict[str, float] = {}
        for identity, used_s in self.cpu_by_process.items():
            name = self.role_by_process.get(identity, RAYS_OWN)
            seconds[name] = seconds.get(name, 0.0) + used_s
        return seconds

    def note(self, family: Mapping[Identity, float]) -> None:
        """Take what a look at the processes showed."""
        self.cpu_by_process.update(family)
        for identity in family:
            # Ray's workers bear the name of what they do only while they do it: what it was then, they stay.
            if self.role_by_process.get(identity, RAYS_OWN) == RAYS_OWN:
                with suppress(OSError):
                    self.role_by_process[identity] = role(_command_line(identity[0]))


def watch(
    command: Sequence[str],
    log: Path,
    *,
    cores: str = "",
    memory: bool = False,
    kill_when: Callable[[], bool] | None = None,
) -> Usage:
    """Run a command to its end, its output in the file `log`; raises SystemExit with the log's end if it fails.

    Args:
        cores: those that it and its children are bound to, as `taskset -c` takes them; empty means all.
        memory: whether to measure memory, which takes some milliseconds a second.
        kill_when: looked at again and again; once it is true the command's first process gets SIGKILL.
    """
    usage, prefix = Usage(), ["taskset", "-c", cores] if cores else []
    # Ray's processes outlive the one that started them by moments: they become children of this one.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began_s = due_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, *command], env=environment(), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
        while process.poll() is None:
            family = _family()
            usage.note(family)
            if memory and time.monotonic() >= due_s:
                _note_memory(family, usage)
                due_s = time.monotonic() + MEMORY_EVERY_S
            if kill_when is not None and kill_when():
                process.send_signal(signal.SIGKILL)
                process.wait()
                break
            time.sleep(LOOK_EVERY_S)
    usage.wall_s, usage.status = time.monotonic() - began_s, process.returncode
    usage.gone_s = _wait_for_family(usage)
    if usage.status and kill_when is None:
        raise SystemExit(f"{' '.join(command)} ended with {usage.status}:\n{log.read_text()[-3000:]}")
    return usage


def environment() -> dict[str, str]:
    """This process's environment, with the checkout's package first and a Ray of its own."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    quiet = {"RAY_ADDRESS": "local", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
    # Ray's workers would yield to whatever else the machine does, and one process wouldn't.
    fair = {"RAY_worker_niceness": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    return {**os.environ, **quiet, **fair, "PYTHONPATH": path}


def role(command_line: str) -> str:
    """What a process is there for."""
    return next((name for word, name in ROLES.items() if word in command_line), RAYS_OWN)


def _command_line(pid: int) -> str:
    return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _family() -> dict[Identity, float]:
    """CPU seconds of every process below this one."""
    parents: dict[int, int] = {}
    found: dict[int, tuple[Identity, float]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                # The name stands in brackets, and may hold blanks.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                pid = int(folder.name)
                parents[pid] = int(fields[1])
                found[pid] = (pid, fields[19]), (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return dict(found[pid] for pid in found if _descends(pid, parents))


def _descends(pid: int, parents: Mapping[int, int]) -> bool:
    above = parents.get(pid, 0)
    while above and above != os.getpid():
        above = parents.get(above, 0)
    return above == os.getpid()


def _note_memory(family: Mapping[Identity, float], usage: Usage) -> None:
    by_role: dict[str, int] = {}
    for pid, _ in family:
        with suppress(OSError):
            folder = Path("/proc") / str(pid)
            lines = (folder / "smaps_rollup").read_text().splitlines()
            name = role(_command_line(pid))
            size = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
            by_role[name] = by_role.get(name, 0) + size
    if sum(by_role.values()) > usage.peak_bytes:
        usage.peak_bytes, usage.peak_by_role = sum(by_role.values()), by_role


def _wait_for_family(usage: Usage) -> float:
    """Wait for the last of them; raises SystemExit where they stay, as they'd take part in the next measurement."""
    began_s = time.monotonic()
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = _family()
        usage.note(left)
        if not left:
            return time.monotonic() - began_s
        if time.monotonic() - began_s > END_WITHIN_S:
            raise SystemExit(f"processes {sorted(pid for pid, _ in left)} are still there after {END_WITHIN_S:g} s")
        time.sleep(LOOK_EVERY_S)
