"""Temporary folders that a process which dies with its work doesn't leave for ever."""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "dreamhead-scratch-"
DEFAULT_TMPDIR = "/tmp"  # where Python itself looks first
YOUNG_S = 60.0
"""A folder may be there a moment before it is locked."""

logger = logging.getLogger(__name__)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder below TMPDIR, locked while it is used: the kernel unlocks it when its process dies, in whatever way."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            with suppress(OSError):
                # Not every file system has locks; those that sweep can't lock there either.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield Path(name)
        finally:
            os.close(descriptor)


def sweep_scratch() -> None:
    """Delete the folders that dead processes left below TMPDIR: outputs fill it, and a full one ends a run."""
    latest = time.time() - YOUNG_S
    # Not `gettempdir`, which writes to find out, and passes over a full disk.
    parents = {os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")} - {None, ""} or {DEFAULT_TMPDIR}
    for folder in (folder for parent in parents for folder in Path(str(parent)).glob(f"{PREFIX}*")):
        try:
            if folder.stat().st_mtime < latest and _is_abandoned(folder):
                shutil.rmtree(folder)
        except OSError as error:
            # Another user's, or another process sweeps as well.
            logger.debug("%s: %s", folder, error)


def _is_abandoned(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
