"""Open media files for reading; whatever goes wrong is a MediaError that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from dreamhead import storage
from dreamhead.disk import FULL, disk_full
from dreamhead.errors import MediaError, NotFoundError

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name of the MP4 family, the formats with exact times and edit lists."""

# Playlists stay out: they make FFmpeg open whatever other files and hosts they name.
FORMATS = (
    f"{MP4},matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,flv,asf,mxf,ogg,gif,apng,"
    "wav,w64,mp3,aac,flac,aiff,caf,ac3,eac3,amr,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)

STILL_FORMATS = {
    ".png": "png_pipe",
    ".jpg": "jpeg_pipe",
    ".jpeg": "jpeg_pipe",
    ".webp": "webp_pipe",
    ".bmp": "bmp_pipe",
    ".tif": "tiff_pipe",
    ".tiff": "tiff_pipe",
}
"""The demuxer of each kind of picture file; FFmpeg's guess would take the name for a pattern of many files."""

REMOTE_BUFFER = 64 * 1024
"""Bytes that FFmpeg asks for at a time; `storage` decides how much is fetched, and a seek throws this much away."""


@contextmanager
def open_media(uri: str) -> Iterator[InputContainer]:
    """Open a local or remote media file; closes it in the end. Raises MediaError, and StorageError when S3 fails."""
    with media_errors(uri, "can't be opened as media"):
        container = _open(uri)
    with container:
        yield container


@contextmanager
def media_errors(uri: str, what: str) -> Iterator[None]:
    """Turn FFmpeg's errors into MediaError: the uri, then `what`, then the reason. A full disk is DiskFullError."""
    try:
        yield
    except FFmpegError as error:
        # Reading fills no disk, so the uri is the local file that was being written.
        if error.errno in FULL:
            raise disk_full(f"{uri}: {what}", Path(uri), error.errno) from error
        raise MediaError(f"{uri}: {what}: {error.strerror}") from error


def find_video(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures; a cover picture isn't one."""
    moving = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return next(moving, None)


def _open(uri: str) -> InputContainer:
    still_format = STILL_FORMATS.get(PurePosixPath(uri).suffix.lower())
    options: dict[str, Any] = {
        "mode": "r",
        "format": still_format,
        "container_options": {"format_whitelist": FORMATS},
        "metadata_errors": "replace",
    }
    if not storage.is_remote(uri):
        # An absolute path, since FFmpeg would take what stands before a colon for a protocol.
        container: InputContainer = av.open(str(storage.local_path(uri).absolute()), **options)
        return container
    try:
        file = storage.open_read(uri)
    except NotFoundError as error:
        raise MediaError(f"{uri}: no such file") from error
    container = av.open(file, buffer_size=REMOTE_BUFFER, **options)
    return container
