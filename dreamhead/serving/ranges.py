"""Answer with a stored file: whole, a range of it, or the word that the client has it already (RFC 9110)."""

import re
from collections.abc import Iterator

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from dreamhead import storage
from dreamhead.serving.problems import ProblemError

BLOCK_BYTES = 256 * 1024
ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def file_response(request: Request, uri: str, size: int, digest: str, media_type: str) -> Response:
    """The file at `uri`, of `size` bytes; `digest` changes when the content does. Raises ProblemError, StorageError."""
    etag = f'"{digest}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if etag in re.findall(r'"[^"]*"', request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range", "")
    if request.headers.get("if-range", etag) != etag:
        asked = ""
    start, stop = _bounds(asked, size) or (0, size)
    is_part = (start, stop) != (0, size)
    headers["Content-Length"] = str(stop - start)
    if is_part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 206 if is_part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(_blocks(uri, start, stop), status, headers, media_type)


def _bounds(asked: str, size: int) -> tuple[int, int] | None:
    """The one range [start, stop) that a Range header asks for; None for one that may be ignored."""
    match = ONE_RANGE.fullmatch(asked.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    else:
        start, stop = max(size - int(last), 0), size
    if start >= stop:
        raise ProblemError(416, f"the file has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return start, stop


def _blocks(uri: str, start: int, stop: int) -> Iterator[bytes]:
    with storage.open_read(uri) as file:
        file.seek(start)
        left = stop - start
        while left and (block := file.read(min(left, BLOCK_BYTES))):
            left -= len(block)
            yield block
