"""Objects in S3 storage: one client a process with its time-outs and retries; whole objects, ranges, parts.

Each request is tried `attempts` times by botocore, after waits that double and are drawn at random; a body that breaks
off is fetched again here. s3fs brings the client and its event loop; its own retries, which would multiply, are off.
"""

import hashlib
import io
import itertools
import logging
import mimetypes
import os
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.asyn import sync

from dreamhead import s3_errors
from dreamhead.errors import ConfigError, DiskFullError, NotFoundError, StorageError

logger = logging.getLogger(__name__)

CONNECTIONS = 32
"""Connections that a process keeps to an endpoint, for all its threads."""

LEAST_BYTES_PER_S = 64 * 1024
"""A transfer slower than this counts as dead."""

LONGEST_WAIT_S = 20.0
"""Between two tries."""

PART_BYTES = 16 * 1024 * 1024
"""Of a multipart upload, and of a download, unless the object has more parts than it may have."""

MOST_PARTS = 10_000
PARTS_AT_ONCE = 4

FIRST_RANGE = 256 * 1024
"""What is fetched where reading begins; a read that goes on from there fetches twice as much each time, up to..."""
LARGEST_RANGE = 8 * 1024 * 1024
RANGES_KEPT = 3

MOST_LISTED = MOST_DELETED = 1000
"""Objects that one request lists, or deletes."""

REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412"}
"""Codes for a write whose condition doesn't hold."""

_CLIENTS: list[Any] = []
"""Kept from being collected in a forked child: closing them there takes the parent's connections out of the event
queue that both share, and the parent would wait for answers until its time-out."""


@dataclass(frozen=True)
class Limits:
    """How long and how often the endpoint is waited for."""

    connect_s: float
    read_s: float
    """Longest silence of the endpoint."""
    attempts: int
    request_s: float
    """Longest time for a request with all its tries, besides the time that its bytes may take."""


@dataclass(frozen=True)
class Facts:
    """What is known of an object without its content."""

    size: int
    """Bytes."""
    etag: str
    """Changes with the content."""


def limits() -> Limits:
    """The limits, from the environment where it names them; raises ConfigError for a value that isn't a number."""
    return Limits(
        connect_s=_number("DREAMHEAD_S3_CONNECT_TIMEOUT", 5.0),
        read_s=_number("DREAMHEAD_S3_READ_TIMEOUT", 20.0),
        attempts=int(_number("AWS_MAX_ATTEMPTS", 5)),
        request_s=_number("DREAMHEAD_S3_REQUEST_TIMEOUT", 110.0),
    )


def facts(uri: str) -> Facts:
    """Size and ETag of an object; raises NotFoundError."""
    with _explained("look up", uri):
        return _facts(_call("head_object", **_address(uri)))


def read(uri: str) -> bytes:
    """The whole content."""
    with _explained("read", uri):
        return _get(uri)[1]


def read_version(uri: str) -> tuple[bytes, str]:
    """The whole content, and the ETag that a condition names it by, in its quotes; raises NotFoundError."""
    with _explained("read", uri):
        answer, data = _get(uri)
        return data, str(answer["ETag"])


def put_if(uri: str, data: bytes, **condition: str) -> bool:
    """Write a small object if `IfMatch` or `IfNoneMatch` holds; whether it did.

    A write whose answer was lost is sent again by itself, and may then find what it wrote itself.
    """
    with _explained("write", uri):
        try:
            _call("put_object", **_address(uri), Body=data, **condition)
        except OSError as error:
            if s3_errors.code(error) not in REFUSED:
                raise
            return False
        return True


def open_ranges(uri: str) -> BinaryIO:
    """Open for reading, seekable, by ranges; raises StorageError when the object is replaced meanwhile."""
    return cast(BinaryIO, io.BufferedReader(_Ranges(uri), io.DEFAULT_BUFFER_SIZE))


def download(uri: str, path: Path) -> None:
    """Write the content into a new local file; a failure leaves what was written. Raises OSError for the local side."""
    first, known = _first_range(uri, PART_BYTES)

    def copy(start: int) -> None:
        data = first if start == 0 else _range(uri, start, min(start + PART_BYTES, known.size), known.etag)
        with path.open("r+b") as file:
            file.seek(start)
            file.write(data)

    path.write_bytes(b"")
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        list(pool.map(copy, range(0, known.size, PART_BYTES)))


def upload(uri: str, size: int, read_part: Callable[[int, int], bytes]) -> None:
    """Write an object of `size` bytes, whole or not at all; `read_part` gives [start, stop) and may be called at once.

    Above two parts it is sent in parts, `PARTS_AT_ONCE` at a time, so memory doesn't follow the size.
    """
    with _explained("write", uri):
        if size < 2 * PART_BYTES:
            _call("put_object", **_address(uri), **_content_type(uri), Body=read_part(0, size))
        else:
            _upload_parts(uri, size, read_part)


def list_objects(prefix: str) -> Iterator[tuple[str, Facts]]:
    """Uris and facts of all objects below a directory uri, in order; one request for each thousand."""
    bucket, key = _split(prefix)
    inside = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
    more: dict[str, str] = {}
    while True:
        with _explained("list", prefix):
            page = _call("list_objects_v2", Bucket=bucket, Prefix=inside, MaxKeys=MOST_LISTED, **more)
        for item in page.get("Contents", []):
            # Consoles make empty objects whose names end in a slash, to stand for folders.
            if not item["Key"].endswith("/"):
                yield f"s3://{bucket}/{item['Key']}", _facts(item)
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def delete(uri: str) -> None:
    """Remove an object; nothing happens when it isn't there."""
    with _explained("delete", uri):
        _call("delete_object", **_address(uri))


def delete_many(uris: Iterable[str]) -> None:
    """Remove objects, a thousand with each request; those that aren't there are no error."""
    keys: dict[str, list[str]] = {}
    for uri in uris:
        bucket, key = _split(uri)
        keys.setdefault(bucket, []).append(key)
    for bucket, names in keys.items():
        for start in range(0, len(names), MOST_DELETED):
            _delete_batch(bucket, names[start : start + MOST_DELETED])


def part_bytes(size: int) -> int:
    """Bytes of each part of an upload of `size` bytes."""
    return max(PART_BYTES, -(-size // MOST_PARTS))


class _Ranges(io.RawIOBase):
    """An object as a file. What goes on where a kept range ends is fetched in ever larger ranges."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self._position = 0
        data, self._facts = _first_range(uri, FIRST_RANGE)
        self._kept = [(0, data)]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._facts.size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self._uri}: position {base + offset} is before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._facts.size:
            return 0
        start, data = self._covering(self._position)
        piece = memoryview(data)[self._position - start :][: len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _covering(self, position: int) -> tuple[int, bytes]:
        """The range that holds a position; it becomes the one that is kept longest."""
        for kept in self._kept:
            if kept[0] <= position < kept[0] + len(kept[1]):
                self._kept.remove(kept)
                self._kept.append(kept)
                return kept
        # A short way on from a range counts as going on: demuxers skip what belongs to other streams.
        before = [len(data) for start, data in self._kept if 0 <= position - start - len(data) < len(data)]
        length = min(2 * max(before), LARGEST_RANGE) if before else FIRST_RANGE
        found = position, _range(self._uri, position, min(position + length, self._facts.size), self._facts.etag)
        self._kept = [*self._kept, found][-RANGES_KEPT:]
        return found


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name} is {text!r} in the environment; allowed: a number above 0")
    return value


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A connection that breaks when the endpoint takes nothing for `read_s`; aiohttp times only what it reads."""
    family, kind, protocol = address[:3]
    opened = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(limits().read_s * 1000))
    return opened


def _client() -> Any:
    """The process's file system: fsspec keeps one for each set of options, and drops them all in a forked child."""
    wanted = limits()
    # botocore itself reads AWS_DEFAULT_REGION only.
    region = os.environ.get("AWS_REGION")
    opened = fsspec.filesystem(
        "s3",
        use_listings_cache=False,
        client_kwargs={"region_name": region} if region else {},
        config_kwargs={
            "connect_timeout": wanted.connect_s,
            "read_timeout": wanted.read_s,
            "max_pool_connections": CONNECTIONS,
            "connector_args": {"socket_factory": _socket},
            "retries": {
                "mode": os.environ.get("AWS_RETRY_MODE") or "standard",
                "total_max_attempts": wanted.attempts,
            },
        },
    )
    if opened.retries != 1:
        opened.retries = 1
        _CLIENTS.append(opened)
        opened.s3.meta.events.register_last("before-call.s3", _drop_expect, unique_id="dreamhead-drop-expect")
    return opened


def _drop_expect(params: dict[str, Any], **others: Any) -> None:
    # aiohttp waits without limit for the "100 Continue" that botocore asks for before each body.
    params["headers"].pop("Expect", None)


def _call(method: str, **request: Any) -> dict[str, Any]:
    """One request with its retries."""
    limit_s = limits().request_s + len(request.get("Body", b"")) / LEAST_BYTES_PER_S
    answer: dict[str, Any] = _client().call_s3(method, timeout=limit_s, **request)
    return answer


def _get(uri: str, **request: Any) -> tuple[dict[str, Any], bytes]:
    """Answer and body; a body that breaks off is fetched again."""
    wanted, began = limits(), time.monotonic()
    for attempt in itertools.count(1):
        answer = _call("get_object", **_address(uri), **request)
        limit_s = wanted.request_s + answer["ContentLength"] / LEAST_BYTES_PER_S
        try:
            return answer, sync(_client().loop, _drain, answer["Body"], timeout=limit_s)
        except s3_errors.broken_bodies() as error:
            if attempt >= wanted.attempts or time.monotonic() - began > wanted.request_s:
                raise
            logger.info("%s: try %d broke off: %r", uri, attempt, error)
        time.sleep(random.random() * min(2.0 ** (attempt - 1), LONGEST_WAIT_S))
    raise AssertionError("unreachable")


async def _drain(body: Any) -> bytes:
    async with body:
        return bytes(await body.read())


def _first_range(uri: str, length: int) -> tuple[bytes, Facts]:
    """The first bytes, `length` at most, and the facts, by one request."""
    with _explained("read", uri):
        try:
            answer, data = _get(uri, Range=f"bytes=0-{length - 1}")
        except OSError as error:
            if s3_errors.code(error) not in ("InvalidRange", "416"):
                raise
            return b"", _facts(_call("head_object", **_address(uri)))
        known = _facts(answer)
        # "bytes 0-9/1234"; without it the endpoint has sent the whole.
        size = int(answer["ContentRange"].rpartition("/")[2]) if answer.get("ContentRange") else len(data)
        return data, Facts(size, known.etag)


def _range(uri: str, start: int, stop: int, etag: str) -> bytes:
    """Bytes [start, stop) of the very object that has this ETag."""
    with _explained("read", uri):
        answer, data = _get(uri, Range=f"bytes={start}-{stop - 1}", IfMatch=f'"{etag}"')
    if _facts(answer).etag != etag:
        raise StorageError(f"{uri}: can't read: {s3_errors.REASONS['PreconditionFailed']}")
    if len(data) != stop - start:
        raise StorageError(f"{uri}: can't read: bytes {start} to {stop} were asked for, {len(data)} bytes came")
    return data


def _upload_parts(uri: str, size: int, read_part: Callable[[int, int], bytes]) -> None:
    address, length = _address(uri), part_bytes(size)
    upload = {**address, "UploadId": _call("create_multipart_upload", **address, **_content_type(uri))["UploadId"]}

    def send(number: int) -> dict[str, Any]:
        data = read_part((number - 1) * length, min(number * length, size))
        answer = _call("upload_part", **upload, PartNumber=number, Body=data)
        checksums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        return {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    try:
        # Leaving the pool waits for the parts on their way: one that came after the abort would stay for good.
        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            parts = list(pool.map(send, range(1, -(-size // length) + 1)))
        _complete(uri, upload, parts)
    except BaseException:
        _abort(uri, upload)
        raise


def _complete(uri: str, upload: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    try:
        _call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
    except s3_errors.failures():
        # A try may have done it and its answer been lost: then the object's ETag is that of these parts.
        digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
        expected = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
        if _etag_now(uri) != expected:
            raise


def _etag_now(uri: str) -> str:
    try:
        return _facts(_call("head_object", **_address(uri))).etag
    except s3_errors.failures():
        return ""


def _abort(uri: str, upload: dict[str, Any]) -> None:
    try:
        _call("abort_multipart_upload", **upload)
    except FileNotFoundError:
        return
    except s3_errors.failures() as error:
        logger.warning("%s: the parts of upload %s are left behind: %r", uri, upload["UploadId"], error)


def _delete_batch(bucket: str, keys: list[str]) -> None:
    first = f"s3://{bucket}/{keys[0]}"
    with _explained("delete", first):
        names = [{"Key": key} for key in keys]
        answer = _call("delete_objects", Bucket=bucket, Delete={"Objects": names, "Quiet": True})
    if failed := answer.get("Errors"):
        code = failed[0].get("Code", "")
        reason = s3_errors.REASONS.get(code) or failed[0].get("Message") or code
        uri = f"s3://{bucket}/{failed[0].get('Key', '')}"
        raise StorageError(f"{uri}: can't delete: {reason} ({len(failed)} of {len(keys)} objects)")


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _address(uri: str) -> dict[str, str]:
    bucket, key = _split(uri)
    return {"Bucket": bucket, "Key": key}


def _content_type(uri: str) -> dict[str, str]:
    kind, _ = mimetypes.guess_type(uri)
    return {"ContentType": kind} if kind else {}


def _facts(answer: dict[str, Any]) -> Facts:
    size = answer["Size"] if "Size" in answer else answer["ContentLength"]
    return Facts(int(size), str(answer["ETag"]).strip('"'))


@contextmanager
def _explained(action: str, uri: str) -> Iterator[None]:
    """Turn what s3fs, botocore and aiohttp raise into StorageError: the uri, what was tried, why it failed."""
    try:
        yield
    except s3_errors.failures() as error:
        code = s3_errors.code(error)
        kind: type[StorageError] = StorageError
        if code in s3_errors.STORE_FULL:
            kind = DiskFullError
        elif isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
            kind = NotFoundError
        raise kind(f"{uri}: can't {action}: {s3_errors.reason(error, code, limits().request_s)}") from error
