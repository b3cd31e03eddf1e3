"""Read a multipart upload as it comes in: two files onto the disk, never into memory, and a few short fields."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dreamhead.errors import DreamheadError, InputError

FILES = ("video", "audio")
MAX_FIELD_BYTES = 100_000


class TooLargeError(DreamheadError):
    """A request's body is larger than allowed."""


class SlowUploadError(DreamheadError):
    """Nothing of a request's body has come for long."""


@dataclass
class Upload:
    """What came in."""

    files: dict[str, Path] = field(default_factory=dict)
    """By the part's name, `video` or `audio`."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file."""
    fields: dict[str, str] = field(default_factory=dict)
    """The other parts."""


async def receive(stream: AsyncIterator[bytes], content_type: str, folder: Path, max_bytes: int) -> Upload:
    """Write the body's files into `folder`. Raises InputError, and TooLargeError as soon as it is."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InputError("Content-Type: multipart/form-data without a boundary")
    parts = _Parts(folder)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_name,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_part_data": parts.data,
                "on_part_end": parts.end,
            },
        )
        received = 0
        async for block in stream:
            received += len(block)
            check_size(received, max_bytes)
            parser.write(block)
        parser.finalize()
    except FormParserError as error:
        raise InputError(f"the body isn't valid multipart/form-data: {error}") from error
    finally:
        parts.close()
    missing = [name for name in FILES if name not in parts.upload.files]
    if missing:
        raise InputError(f"{missing[0]}: is required; the form has two files, video and audio")
    return parts.upload


async def lively(stream: AsyncIterator[bytes], idle_s: float) -> AsyncIterator[bytes]:
    """The blocks of a body; raises SlowUploadError where the next one doesn't come in time."""
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), idle_s)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError as error:
            raise SlowUploadError(f"nothing more of the request came for {idle_s:g} s") from error


def check_size(received: int, max_bytes: int) -> None:
    """Raise TooLargeError for a body of so many bytes or more."""
    if received > max_bytes:
        raise TooLargeError(f"the request is larger than the {max_bytes / 1e6:g} MB that are allowed")


class _Parts:
    """Takes the parser's events."""

    def __init__(self, folder: Path) -> None:
        self.upload = Upload()
        self._folder = folder
        self._header = (b"", b"")
        self._disposition = b""
        self._name = ""
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._text = b""

    def begin(self) -> None:
        self._disposition = self._text = b""
        self._header = (b"", b"")

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = (b"", b"")

    def headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self.upload.files or self._name in self.upload.fields:
            raise InputError(f"{self._name}: is there twice")
        if self._name in FILES:
            # The client's own name says nothing: a file's kind is told by its content.
            path = self._folder / self._name
            self.upload.files[self._name] = path
            self._file, self._digest = path.open("wb"), hashlib.sha256()

    def data(self, data: bytes, start: int, end: int) -> None:
        block = data[start:end]
        if self._file is not None:
            self._file.write(block)
            self._digest.update(block)
            return
        self._text += block
        if len(self._text) > MAX_FIELD_BYTES:
            raise InputError(f"{self._name[:100]}: is too long for a field")

    def end(self) -> None:
        if self._file is not None:
            self.close()
            self.upload.digests[self._name] = self._digest.hexdigest()
        else:
            self.upload.fields[self._name] = self._text.decode("utf-8", "replace")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
