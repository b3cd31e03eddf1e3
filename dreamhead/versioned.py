"""Small files that many processes change: made once, replaced only by whoever read the latest version.

Every content must be like no other (a random name or a count in it), since that is how a lost answer is told from a
lost race.
"""

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from dreamhead import object_store, storage
from dreamhead.errors import DreamheadError, StorageError

LOCK = ".lock"
"""Beside local files that are replaced: held, by flock, while one of them is; never removed."""

READ_TRIES = 10
GONE = (errno.EBUSY, errno.EINVAL)
"""How s3fs says that the version it began to read was replaced."""
REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412"}
"""S3's codes for a write whose condition doesn't hold."""


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
    for _ in range(READ_TRIES):
        try:
            with object_store.client().open(uri, "rb") as file:
                # What is read is of this very version: s3fs sends it along, and fails where it has gone.
                version = str(file.details["ETag"])
                return Versioned(file.read(), version)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in GONE:
                raise
    raise StorageError(f"{uri}: can't read: it was replaced each of {READ_TRIES} times that it was tried")


def _put_object(uri: str, data: bytes, **condition: str) -> None:
    s3 = object_store.client()
    bucket, key, _ = s3.split_path(uri)
    try:
        s3.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
    except OSError as error:
        cause = error.__cause__
        if not isinstance(cause, ClientError) or cause.response["Error"]["Code"] not in REFUSED:
            raise
        _refuse_unless_ours(uri, data, error)


def _refuse_unless_ours(uri: str, data: bytes, error: OSError) -> None:
    """A write whose answer was lost is sent again by itself, and then finds what it wrote."""
    latest = _read_object(uri)
    if latest is None or latest.data != data:
        raise Conflict(f"{uri}: was made, replaced or removed meanwhile") from error


@contextmanager
def _explained(action: str, uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, BotoCoreError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise StorageError(f"{uri}: can't {action}: {reason}") from error
