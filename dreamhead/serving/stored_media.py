"""Answer with a media file of somebody else's: its kind is read from its first bytes, and it can't act as a page."""

import hashlib

from fastapi import Request
from starlette.responses import Response

from dreamhead import storage
from dreamhead.serving.problems import ProblemError
from dreamhead.serving.ranges import file_response

SIGNATURES = (
    (4, b"ftypM4A", "audio/mp4"),
    # Browsers play QuickTime by the same decoder, but some of them only under this name.
    (4, b"ftyp", "video/mp4"),
    (4, b"moov", "video/mp4"),
    (4, b"mdat", "video/mp4"),
    (4, b"wide", "video/mp4"),
    (0, b"\x1a\x45\xdf\xa3", "video/webm"),
    (0, b"OggS", "video/ogg"),
    (8, b"AVI ", "video/x-msvideo"),
    (8, b"WAVE", "audio/wav"),
    (8, b"WEBP", "image/webp"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG", "image/png"),
    (0, b"BM", "image/bmp"),
)
"""Where a kind of file has which bytes; the first that fits holds."""

UNTRUSTED = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


def media_response(request: Request, uri: str, what: str) -> Response:
    """The file at `uri`, whole or a range of it. Raises ProblemError where `what` isn't there, and StorageError."""
    if not storage.exists(uri):
        raise ProblemError(404, f"{what} isn't there any more")
    tag = hashlib.sha256(storage.identity(uri).encode()).hexdigest()[:32]
    response = file_response(request, uri, storage.size(uri), tag, media_type(uri))
    response.headers.update(UNTRUSTED)
    return response


def media_type(uri: str) -> str:
    """What kind of file this is; `application/octet-stream` for one that no browser shows."""
    with storage.open_read(uri) as file:
        head = file.read(16)
    fitting = (kind for at, bytes_, kind in SIGNATURES if head[at : at + len(bytes_)] == bytes_)
    return next(fitting, "application/octet-stream")
