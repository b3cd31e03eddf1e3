"""Render actors that fail in the ways that real ones do; what goes wrong is said in files of a folder."""

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamhead.cluster.actors import RenderChunks
from dreamhead.config import DubSettings
from dreamhead.errors import DiskFullError
from dreamhead.records import Chunk

FOLDER = "DREAMHEAD_TEST_FAULTS"
"""Variable that names the folder. It holds `<job>-<first frame>`, in it the fault's name, for each chunk that fails."""


class FaultyRenderChunks(RenderChunks):
    """Renders, but for the chunks that are to fail."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str) -> None:
        folder = Path(work_uri).parent / "faults"
        start = folder / "start"
        if start.exists():
            FAULTS[start.read_text()](start)
        super().__init__(settings, checkpoint_uri, work_uri)
        render: Any = self._render
        publish = render._publish

        def fail_or_publish(chunk: Chunk) -> Chunk:
            fault = folder / f"{chunk.job.job_id}-{chunk.start}"
            if fault.exists():
                with (folder / f"{fault.name}.tries").open("a") as tries:
                    tries.write("x")
                FAULTS[fault.read_text()](fault)
            done: Chunk = publish(chunk)
            return done

        render._publish = fail_or_publish


def _segfault(fault: Path) -> None:
    ctypes.string_at(0)


def _kill_once(fault: Path) -> None:
    fault.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(fault: Path) -> None:
    time.sleep(3600)


def _raise(fault: Path) -> None:
    raise RuntimeError("out of memory on the GPU")


def _raise_once(fault: Path) -> None:
    fault.unlink()
    raise LookupError("this machine has no such driver")


def _fill_disk(fault: Path) -> None:
    raise DiskFullError(f"{fault}: {os.strerror(errno.ENOSPC)}")


FAULTS: dict[str, Callable[[Path], None]] = {
    "segfault": _segfault,
    "kill once": _kill_once,
    "raise once": _raise_once,
    "hang": _hang,
    "raise": _raise,
    "fill disk": _fill_disk,
}
