"""Bytes behind a uri: a local path, `file://` or `s3://`; every failure is a StorageError that names the uri."""

import hashlib
import posixpath
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote

import fsspec
from botocore.exceptions import BotoCoreError

from dreamhead.errors import StorageError

SCHEMES = ("file", "s3")
"""What may stand before `://`; a uri without it is a local path."""

UNFINISHED = ".unfinished"
"""Suffix of a local file that is being written; never listed."""

READ_BLOCK = 4 * 1024 * 1024


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


def exists(uri: str) -> bool:
    """Whether a file is there; raises StorageError when that can't be found out."""
    with _explained("look up", uri):
        return bool(_s3().isfile(uri)) if is_remote(uri) else local_path(uri).is_file()


def size(uri: str) -> int:
    """Bytes of a file."""
    with _explained("look up", uri):
        return int(_s3().info(uri)["size"]) if is_remote(uri) else local_path(uri).stat().st_size


def open_read(uri: str) -> BinaryIO:
    """Open for reading, seekable; an object is fetched by ranges, as it is read."""
    with _explained("read", uri):
        if is_remote(uri):
            return cast(BinaryIO, _s3().open(uri, "rb", block_size=READ_BLOCK))
        return local_path(uri).open("rb")


def read_bytes(uri: str) -> bytes:
    """The whole content."""
    with _explained("read", uri):
        return bytes(_s3().cat_file(uri)) if is_remote(uri) else local_path(uri).read_bytes()


def write_bytes(uri: str, data: bytes) -> None:
    """Write the whole content; readers see the old one or the new one, never a part."""
    with _explained("write", uri):
        if is_remote(uri):
            _s3().pipe_file(uri, data)
            return
        with _replacing(local_path(uri)) as temporary:
            temporary.write_bytes(data)


def publish(path: Path, uri: str) -> None:
    """Copy a finished local file to `uri`, whole or not at all."""
    with _explained("publish", uri):
        if is_remote(uri):
            _s3().put_file(str(path), uri)
            return
        with _replacing(local_path(uri)) as temporary:
            shutil.copyfile(path, temporary)


def fetch(uri: str, path: Path) -> None:
    """Copy the file at `uri` to a local path, without holding it in memory."""
    with _explained("read", uri):
        if is_remote(uri):
            _s3().get_file(uri, str(path))
        else:
            shutil.copyfile(local_path(uri), path)


def list_files(prefix: str) -> list[str]:
    """Uris of all files below a directory uri, sorted; none when there is no such directory."""
    with _explained("list", prefix):
        if is_remote(prefix):
            return sorted(f"s3://{key}" for key in _s3().find(prefix.rstrip("/") + "/"))
        root = local_path(prefix)
        start = prefix.rstrip("/")
        paths = (path for path in root.rglob("*") if path.is_file() and path.suffix != UNFINISHED)
        return sorted(f"{start}/{path.relative_to(root).as_posix()}" for path in paths)


def list_sizes(prefix: str) -> dict[str, int]:
    """Bytes by uri of all files below a directory uri."""
    return {uri: size(uri) for uri in list_files(prefix)}


def delete_many(uris: Iterable[str]) -> None:
    """Remove files, in this order; those that aren't there are passed over."""
    for uri in uris:
        delete(uri)


def delete(uri: str) -> None:
    """Remove one file; nothing happens when it isn't there."""
    with _explained("delete", uri):
        if not is_remote(uri):
            local_path(uri).unlink(missing_ok=True)
        elif _s3().isfile(uri):
            _s3().rm_file(uri)


def check_writable(directory_uri: str) -> None:
    """Write and remove a small file below the directory; raises StorageError with the reason that this fails."""
    probe = join(directory_uri, f".write-check-{uuid.uuid4().hex}")
    write_bytes(probe, b"")
    delete(probe)


def content_digest(uri: str) -> str:
    """A name for the content, fit for a path: SHA-256 of a local file, ETag and size of an object."""
    with _explained("read", uri):
        if is_remote(uri):
            info = _s3().info(uri)
            return f"{str(info['ETag']).strip(chr(34))}-{info['size']}"
        path = local_path(uri).absolute()
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)


def identity(uri: str) -> str:
    """What tells a file from its other versions without reading it: ETag, or time of change, and size."""
    with _explained("read", uri):
        if is_remote(uri):
            info = _s3().info(uri)
            return f"{uri} {info['ETag']} {info['size']}"
        path = local_path(uri).absolute()
        status = path.stat()
        return f"{path} {status.st_mtime_ns} {status.st_size}"


def local_path(uri: str) -> Path:
    """The path that a local uri names; raises StorageError for one in object storage."""
    if is_remote(uri):
        raise StorageError(f"{uri}: not a local path")
    return Path(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


def _scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return "file"
    if scheme not in SCHEMES:
        raise StorageError(f"{uri}: unknown scheme {scheme!r}; allowed: a local path, file:// or s3://")
    return scheme


def _s3() -> fsspec.AbstractFileSystem:
    # Other processes write below the same prefixes, so a cached listing would hide what they published.
    return fsspec.filesystem("s3", use_listings_cache=False)


@lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    # Size and time of change are there as the cache's key.
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:64]}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _explained(action: str, uri: str) -> Iterator[None]:
    # s3fs turns S3's answers into OSError, bad bucket names into ValueError, and lets botocore's own errors through.
    try:
        yield
    except (OSError, BotoCoreError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise StorageError(f"{uri}: can't {action}: {reason}") from error
