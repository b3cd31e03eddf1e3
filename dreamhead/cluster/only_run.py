"""One run at a time for one place: a run renews a small file there, and the next one watches it before it begins.

No clocks are compared, as those of two machines may differ: a file that somebody renews changes while it is watched.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import cast

from typing_extensions import Self

from dreamhead import storage, versioned
from dreamhead.errors import ClusterError, StorageError

BEAT_S = 10.0
STALE_S = 60.0
"""Several beats: a storage that fails for a moment, or a machine that is slow, must not look like a dead run."""
LOOKS = 60
"""How often a file is looked at while it is watched."""

logger = logging.getLogger(__name__)

Content = dict[str, str | int]
UNREADABLE: Content = {"run": "", "host": "a machine unknown", "processes": "", "pid": 0, "began": "a time unknown"}


class OnlyRun:
    """Keeps other runs out of a place while it is entered; what a run that was killed left is taken over.

    On this machine such a run is known by its process, elsewhere by a file that stays as it is for `stale_s`.

    Args:
        uri: of the file.
        what: the place, as people call it.
        say: takes a line for people.
    """

    def __init__(
        self, uri: str, what: str, say: Callable[[str], None], *, beat_s: float = BEAT_S, stale_s: float = STALE_S
    ) -> None:
        self._uri = uri
        self._what = what
        self._say = say
        self._beat_s = beat_s
        self._stale_s = stale_s
        self._run = secrets.token_hex(8)
        self._began = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="only-run", daemon=True)

    def __enter__(self) -> Self:
        """Raises ClusterError where another run is at work, StorageError where nothing can be written."""
        while not self._take():
            pass
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(self._stale_s)
        try:
            found = versioned.read(self._uri)
            if found is not None and _content(found)["run"] == self._run:
                storage.delete(self._uri)
        except StorageError as unwritten:
            # The next run finds it unchanged, and takes it over.
            logger.warning("%s", unwritten)

    def _take(self) -> bool:
        """Whether the place is ours now; where not, it has changed hands, and is worth another look."""
        found = versioned.read(self._uri)
        try:
            if found is None:
                versioned.create(self._uri, self._data())
            else:
                _watch(self._uri, found, self._what, self._say, self._stale_s)
                versioned.replace(self._uri, self._data(), found.version)
        except versioned.Conflict:
            return False
        return True

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(self._beat_s):
            try:
                found = versioned.read(self._uri)
                if found is None or _content(found)["run"] != self._run:
                    self._say(f"{self._what}: another run has taken over, as it heard nothing of this one: end one")
                    return
                versioned.replace(self._uri, self._data(), found.version)
            except versioned.Conflict:
                continue
            except StorageError as error:
                logger.warning("%s", error)

    def _data(self) -> bytes:
        owner = {"run": self._run, "host": socket.gethostname(), "processes": _processes(), "pid": os.getpid()}
        return json.dumps(owner | {"began": self._began, "beat": secrets.token_hex(4)}).encode()


def refuse_runs(directory_uri: str, what: str, say: Callable[[str], None], *, stale_s: float = STALE_S) -> None:
    """Raise ClusterError where a run is at work for one of the files of a directory; `what` is what it works on."""
    for uri in storage.list_files(directory_uri):
        found = versioned.read(uri) if uri.endswith(".json") else None
        if found is not None:
            _watch(uri, found, what, say, stale_s)


def _watch(uri: str, found: versioned.Versioned, what: str, say: Callable[[str], None], stale_s: float) -> None:
    """Return once the run that left the file is known to be dead; raises ClusterError where it is alive."""
    owner = _content(found)
    if owner["processes"] == _processes() and not _is_alive(int(owner["pid"])):
        return
    whose = f"process {owner['pid']} on {owner['host']}, begun at {owner['began']}"
    say(f"{what}: an earlier run ({whose}) left no end; waiting {stale_s:g} s for a sign of it")
    for _ in range(LOOKS):
        time.sleep(stale_s / LOOKS)
        latest = versioned.read(uri)
        if latest is None:
            return
        if latest.version != found.version:
            raise ClusterError(f"{what}: another run is at work there ({whose}); wait for its end, or end it")


def _content(found: versioned.Versioned) -> Content:
    try:
        return cast(Content, json.loads(found.data))
    except ValueError:
        # Nobody writes it so; whoever did is watched like any other.
        return UNREADABLE


def _processes() -> str:
    """Names all processes among which a pid is one and the same: containers have their own, also on one host."""
    namespace, boot = Path("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id")
    # The first namespace has the same number on every machine, and machines may share a name.
    parts = [socket.gethostname(), str(namespace.readlink()) if namespace.exists() else ""]
    return " ".join([*parts, boot.read_text().strip() if boot.exists() else ""])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        # The state follows the name, which stands in brackets. Z: dead, and its parent hasn't asked yet.
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
