"""Say that a disk is full: which one, how much is free there, and what to do."""

import errno
import shutil
import tempfile
from pathlib import Path

from dreamhead.errors import DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What systems say when a disk, or a user's share of it, is full."""

MEBIBYTE = 1024 * 1024


def disk_full(what: str, path: Path, code: int) -> DiskFullError:
    """The error for `code`, one of `FULL`, after `what` was tried with the local file at `path`."""
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path.cwd())
    usage = shutil.disk_usage(folder)
    space = f"{usage.free / MEBIBYTE:.1f} of {usage.total / MEBIBYTE:.1f} MiB are free"
    cause = "the disk quota is used up" if code == errno.EDQUOT else "no space left on the disk"
    is_temporary = folder.is_relative_to(Path(tempfile.gettempdir()).absolute())
    advice = "free some, or let TMPDIR name a folder on a larger disk" if is_temporary else "free some"
    return DiskFullError(f"{what}: {cause} of {folder} ({space}); {advice}")
