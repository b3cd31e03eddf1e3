"""Small files that many processes change: made once, replaced only by whoever read the latest version.

Every content must be like no other (a random name or a count in it), since that is how a lost answer is told from a
lost race.
"""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dreamhead import object_store, storage
from dreamhead.errors import DreamheadError, NotFoundError, StorageError

LOCK = ".lock"
"""Beside local files that are replaced: held, by flock, while one of them is; never removed."""


class Conflict(DreamheadError):  # noqa: N818  # what it is, as the callers' loops read it
    """Somebody else made or replaced the file first."""


@dataclass(frozen=True)
class Versioned:
    """What a file held, and the name of that version."""

    data: bytes
    version: str


def read(uri: str) -> Versioned | None:
    """The latest content, or None where there is no such file."""
    with _explained("read", uri):
        return _read_object(uri) if storage.is_remote(uri) else _read_local(storage.local_path(uri))


def create(uri: str, data: bytes) -> None:
    """Make the file, whole; raises Conflict where it is there already."""
    with _explained("create", uri):
        if storage.is_remote(uri):
            _put_object(uri, data, IfNoneMatch="*")
        else:
            _create_local(storage.local_path(uri), data)


def replace(uri: str, data: bytes, version: str) -> None:
    """Put new content in the place of the version that was read; raises Conflict where it isn't the latest."""
    with _explained("replace", uri):
        if storage.is_remote(uri):
            _put_object(uri, data, IfMatch=version)
        else:
            _replace_local(storage.local_path(uri), data, version)


def _read_local(path: Path) -> Versioned | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return Versioned(data, _digest(data))


def _create_local(path: Path, data: bytes) -> None:
    with _written(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError as error:
            raise Conflict(f"{path}: is there already") from error


def _replace_local(path: Path, data: bytes, version: str) -> None:
    with _written(path, data) as temporary, _locked(path.parent):
        latest = _read_local(path)
        if latest is None or latest.version != version:
            raise Conflict(f"{path}: was replaced or removed meanwhile")
        temporary.replace(path)


@contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{storage.UNFINISHED}")
    try:
        temporary.write_bytes(data)
        storage.to_disk(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The lock goes with its process, so one that dies leaves nothing behind.
    with (folder / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_object(uri: str) -> Versioned | None:
    try:
        return Versioned(*object_store.read_version(uri))
    except NotFoundError:
        return None


def _put_object(uri: str, data: bytes, **condition: str) -> None:
    if object_store.put_if(uri, data, **condition):
        return
    latest = _read_object(uri)
    if latest is None or latest.data != data:
        raise Conflict(f"{uri}: was made, replaced or removed meanwhile")


@contextmanager
def _explained(action: str, uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise StorageError(f"{uri}: can't {action}: {reason}") from error
