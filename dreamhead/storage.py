"""Bytes behind a uri: a local path, `file://` or `s3://`; every failure is a StorageError that names the uri."""

import hashlib
import os
import posixpath
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from dreamhead import object_store
from dreamhead.disk import FULL, disk_full
from dreamhead.errors import NotFoundError, StorageError

SCHEMES = ("file", "s3")
"""What may stand before `://`; a uri without it is a local path."""

UNFINISHED = ".unfinished"
"""Suffix of a local file that is being written; never listed."""
OURS = re.compile(rf"\..{{0,64}}\.?[0-9a-f]{{32}}\{UNFINISHED}")
ABANDONED_S = 3600.0
"""A file that is being written changes all the time; the clocks of a file server and of its clients differ by less."""

HASHED_BLOCK = 4 * 1024 * 1024


def is_remote(uri: str) -> bool:
    """Whether the bytes lie in object storage; raises StorageError for a scheme that isn't known."""
    return _scheme(uri) == "s3"


def join(base: str, *parts: str) -> str:
    """Append names to a directory uri."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def resolve(uri: str, base: str) -> str:
    """Make `uri` absolute: as it is when it has a scheme or a leading slash, else below the directory uri `base`."""
    if "://" in uri or uri.startswith("/"):
        return uri
    scheme, separator, path = base.rpartition("://")
    absolute = path if separator else str(Path(path).absolute())
    return scheme + separator + posixpath.normpath(posixpath.join(absolute, uri))


def canonical(uri: str) -> str:
    """One spelling for all that name the same place (`file:///a`, `/a`, `/b/../a`), to compare by; follows no links."""
    # Path.resolve would ask the disk about each part.
    return uri if is_remote(uri) else os.path.abspath(local_path(uri))  # noqa: PTH100


def exists(uri: str) -> bool:
    """Whether a file is there; raises StorageError when that can't be found out."""
    try:
        if is_remote(uri):
            return object_store.facts(uri) is not None
        with _explained("look up", uri):
            return stat.S_ISREG(local_path(uri).stat().st_mode)
    except NotFoundError:
        return False


def size(uri: str) -> int:
    """Bytes of a file."""
    if is_remote(uri):
        return object_store.facts(uri).size
    with _explained("look up", uri):
        return local_path(uri).stat().st_size


def open_read(uri: str) -> BinaryIO:
    """Open for reading, seekable; an object is fetched by ranges, as it is read."""
    if is_remote(uri):
        return object_store.open_ranges(uri)
    with _explained("read", uri):
        return local_path(uri).open("rb")


def read_bytes(uri: str) -> bytes:
    """The whole content."""
    if is_remote(uri):
        return object_store.read(uri)
    with _explained("read", uri):
        return local_path(uri).read_bytes()


def write_bytes(uri: str, data: bytes) -> None:
    """Write the whole content; readers see the old one or the new one, never a part. Raises DiskFullError."""
    if is_remote(uri):
        object_store.upload(uri, len(data), lambda start, stop: data[start:stop])
        return
    path = local_path(uri)
    with _explained("write", uri, path), _replacing(path) as temporary:
        temporary.write_bytes(data)


def publish(path: Path, uri: str) -> None:
    """Copy a finished local file to `uri`, whole or not at all. Raises DiskFullError."""
    if is_remote(uri):
        with _explained("publish", uri), path.open("rb") as file:
            descriptor = file.fileno()
            object_store.upload(
                uri, os.fstat(descriptor).st_size, lambda start, stop: os.pread(descriptor, stop - start, start)
            )
        return
    target = local_path(uri)
    with _explained("publish", uri, target), _replacing(target) as temporary:
        shutil.copyfile(path, temporary)


def fetch(uri: str, path: Path) -> None:
    """Copy the file at `uri` to a local path, whole or not at all, without holding it in memory.

    Raises DiskFullError.
    """
    with _explained("read", uri, path), _replacing(path) as temporary:
        if is_remote(uri):
            object_store.download(uri, temporary)
        else:
            shutil.copyfile(local_path(uri), temporary)


def list_sizes(prefix: str) -> dict[str, int]:
    """Bytes of all files below a directory uri, by uri, sorted; none when there is no such directory.

    S3 is asked once a thousand objects.
    """
    if is_remote(prefix):
        return dict(sorted((uri, known.size) for uri, known in object_store.list_objects(prefix)))
    with _explained("list", prefix):
        found = _local_files(prefix, "**/*", lambda name: not name.endswith(UNFINISHED))
        return dict(sorted((uri, status.st_size) for uri, status in found))


def list_files(prefix: str) -> list[str]:
    """Uris of all files below a directory uri, sorted; none when there is no such directory."""
    return list(list_sizes(prefix))


def abandoned(directory_uri: str, *, recursive: bool) -> dict[str, int]:
    """Bytes of what killed processes left half-written in a local directory, by uri, sorted.

    A file counts when nobody has written to it for `ABANDONED_S`. Object storage shows no such files.
    """
    if is_remote(directory_uri):
        return {}
    latest, pattern = time.time() - ABANDONED_S, "**/.*" if recursive else ".*"
    with _explained("list", directory_uri):
        found = _local_files(directory_uri, pattern, lambda name: OURS.fullmatch(name) is not None)
        return dict(sorted((uri, status.st_size) for uri, status in found if status.st_mtime < latest))


def delete(uri: str) -> None:
    """Remove one file; nothing happens when it isn't there."""
    delete_many([uri])


def delete_many(uris: Iterable[str]) -> None:
    """Remove files, objects a thousand at a time; nothing happens to those that aren't there."""
    remote: list[str] = []
    for uri in uris:
        if is_remote(uri):
            remote.append(uri)
            continue
        with _explained("delete", uri):
            local_path(uri).unlink(missing_ok=True)
    if len(remote) == 1:
        object_store.delete(remote[0])
    elif remote:
        object_store.delete_many(remote)


def check_writable(directory_uri: str) -> None:
    """Write and remove a small file below the directory; raises StorageError with the reason that this fails."""
    probe = join(directory_uri, f".write-check-{uuid.uuid4().hex}")
    write_bytes(probe, b"")
    delete(probe)


def content_digest(uri: str) -> str:
    """A name for the content, fit for a path: SHA-256 of a local file, ETag and size of an object."""
    if is_remote(uri):
        return identity(uri)
    with _explained("read", uri):
        path = local_path(uri).absolute()
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)


def identity(uri: str) -> str:
    """What changes when a file does, without reading it.

    Path, size and time of a local file; ETag and size of an object, which are its `content_digest` too.
    """
    if is_remote(uri):
        known = object_store.facts(uri)
        return f"{known.etag}-{known.size}"
    with _explained("look up", uri):
        path = local_path(uri).absolute()
        status = path.stat()
        return f"{path}:{status.st_size}:{status.st_mtime_ns}"


def local_path(uri: str) -> Path:
    """The path that a local uri names; raises StorageError for one in object storage."""
    if is_remote(uri):
        raise StorageError(f"{uri}: not a local path")
    return Path(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


def to_disk(path: Path) -> None:
    """Have the content on the disk before its name: after a power failure a file under its name must be whole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return "file"
    if scheme not in SCHEMES:
        raise StorageError(f"{uri}: unknown scheme {scheme!r}; allowed: a local path, file:// or s3://")
    return scheme


def _local_files(prefix: str, pattern: str, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, os.stat_result]]:
    root, start = local_path(prefix), prefix.rstrip("/")
    for path in root.glob(pattern):
        if not is_wanted(path.name):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            # Removed since it was listed.
            continue
        if stat.S_ISREG(status.st_mode):
            yield f"{start}/{path.relative_to(root).as_posix()}", status


@lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    # Size and time of change are there as the cache's key.
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(HASHED_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:64]}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        yield temporary
        to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _explained(action: str, uri: str, writes: Path | None = None) -> Iterator[None]:
    """Turn the system's errors into StorageError; `writes` is the local file that may fill its disk."""
    try:
        yield
    except (OSError, ValueError) as error:
        what = f"{uri}: can't {action}"
        if writes is not None and isinstance(error, OSError) and error.errno in FULL:
            raise disk_full(what, writes, error.errno) from error
        is_missing = action in ("read", "look up") and isinstance(error, FileNotFoundError | NotADirectoryError)
        kind = NotFoundError if is_missing else StorageError
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise kind(f"{what}: {reason}") from error
