"""Open media files for reading; whatever goes wrong is a MediaError that names the file."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from dreamhead import storage
from dreamhead.disk import FULL, disk_full
from dreamhead.errors import MediaError, NotFoundError, StorageError

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name of the MP4 family, the formats with exact times and edit lists."""

# Playlists and scripts stay out: they make FFmpeg open whatever other files and hosts they name.
FORMATS = {
    "MP4 and MOV": MP4,
    "Matroska and WebM": "matroska,webm",
    "AVI": "avi",
    "MPEG": "mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,obu,ivf,vc1,dirac,cavsvideo",
    "MXF and GXF": "mxf,gxf,lxf",
    "DV": "dv",
    "FLV": "flv,live_flv",
    "ASF": "asf",
    "Ogg": "ogg",
    "NUT": "nut",
    "RealMedia": "rm",
    "YUV4MPEG": "yuv4mpegpipe",
    "MJPEG": "mjpeg,smjpeg",
    "GIF, APNG": "gif,apng",
    "WAV, AU, AIFF, CAF": "wav,w64,au,aiff,caf,voc,ircam,nistsphere,sox,xwma",
    "MP3, AAC": "mp3,aac,loas",
    "AC-3, DTS, TrueHD": "ac3,eac3,dts,dtshd,truehd,mlp,spdif",
    "FLAC and other lossless sound": "flac,tta,wv,ape,tak,shn,mpc,mpc8,osq",
    "AMR and other speech": "amr,amrnb,amrwb,qcp,oma,lc3",
    "pictures": "png_pipe,jpeg_pipe,jpegls_pipe,jpegxl_pipe,jpegxl_anim,j2k_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe,"
    "dpx_pipe,exr_pipe,hdr_pipe,psd_pipe,qoi_pipe,sgi_pipe,ppm_pipe,pgm_pipe,pam_pipe,pcx_pipe",
}
"""FFmpeg's demuxers that are used, under the names that people know them by."""

REFUSED = {
    b"#EXTM3U": "an HLS playlist",
    b"ffconcat": "a list of files for FFmpeg",
    b"<?xml": "XML",
    b"<MPD": "a DASH manifest",
    b"<html": "a web page",
    b"<!doctype html": "a web page",
    b"%PDF": "PDF",
    b"PK\x03\x04": "a ZIP archive, or an office document",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"MThd": "MIDI, which holds notes and no sound",
    b"CWS": "Flash",
    b"FWS": "Flash",
    b"MZ": "a program for Windows",
    b"\x7fELF": "a program",
    b"#!": "a script",
    b"{": "JSON or text",
    b"version https://git-lfs": "a Git LFS pointer instead of the file",
}
"""What files that are no media begin with, and what they are."""

PICTURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP|BM.{4}\0{4}|II[*+]\0|MM\0[*+]"
    rb"|SDPX|XPDS|v/1\x01|\0\0\0\x0c(jP  |JXL )|\xff\x4f\xff\x51|\xff\x0a|8BPS|qoif|#\?R|P[1-7]\s",
    re.DOTALL,
)
"""What picture files begin with, those that may be animated left out."""

TAGGED_STREAMS = (b"ID3", b"\xff\xf1", b"\xff\xf9", b"\xff\xfa", b"\xff\xfb", b"\xff\xf2", b"\xff\xf3")
"""What MP3 and AAC without a container begin with."""
INNER_TAG = re.compile(
    rb"ID3[\x02-\x04][\x00-\x0f][\x00\x10\x20\x40\x60\x80\xc0\xe0](?P<id3>[\x00-\x7f]{4})"
    rb"|APETAGEX\xd0\x07\0\0(?P<ape>.{4}).{4}.{3}[\xa0\xa1].{8}"
    rb"|TAG.{125}(?=ID3|APETAGEX|\xff[\xe2-\xff])",
    re.DOTALL,
)
"""The header of an ID3v2 tag, with its size, seven bits a byte; that of an APE tag; an ID3v1 tag before more sound."""

SIGNATURE_BYTES = 64

REMOTE_BUFFER = 64 * 1024
"""Bytes that FFmpeg asks for at a time; `storage` decides how much is fetched, and a seek throws this much away."""


@contextmanager
def open_media(uri: str) -> Iterator[InputContainer]:
    """Open a local or remote media file; closes it in the end. Raises MediaError, and StorageError when S3 fails."""
    try:
        container = _open(uri)
    except FFmpegError as error:
        raise MediaError(f"{uri}: can't be opened as media: {_reason(error)}{_kind(uri)}") from error
    with container:
        yield container


def _reason(error: FFmpegError) -> str:
    # This is how FFmpeg says that a format isn't one of those that are used.
    return "its format isn't supported" if error.errno == EINVAL else str(error.strerror)


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


def packets_of(container: InputContainer, *streams: Stream) -> "Iterator[Packet[Any]]":
    """All packets of some streams, and an empty one of each at the end.

    Where a stream appears in the middle of a file, PyAV's own `demux` reads beyond a table of the streams that it began
    with, and may end with an IndexError once it has yielded all.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)


def zero_s(container: InputContainer) -> Fraction:
    """The container's time, in seconds, that is time 0 here: the earliest start of its sound and pictures."""
    streams = [*container.streams.audio, *filter(None, [find_video(container)])]
    known = [stream for stream in streams if stream.start_time is not None]
    return min(((one.start_time or 0) * Fraction(one.time_base or 0) for one in known), default=Fraction(0))


def signature(uri: str) -> bytes:
    """The first bytes of a file, which tell its kind whatever its name is; raises MediaError, StorageError."""
    try:
        if storage.is_remote(uri):
            with storage.open_read(uri) as file:
                return bytes(file.read(SIGNATURE_BYTES))
        with storage.local_path(uri).open("rb") as file:
            return file.read(SIGNATURE_BYTES)
    except (NotFoundError, FileNotFoundError) as error:
        raise MediaError(f"{uri}: no such file") from error
    except OSError as error:
        raise MediaError(f"{uri}: can't be opened as media: {error.strerror or error}") from error


def is_picture(head: bytes) -> bool:
    """Whether a file that begins so is a picture, by its signature."""
    return PICTURE.match(head) is not None


def _open(uri: str) -> InputContainer:
    options: dict[str, Any] = {
        "mode": "r",
        "container_options": {"format_whitelist": ",".join(FORMATS.values())},
        "metadata_errors": "replace",
    }
    if storage.is_remote(uri):
        try:
            file = storage.open_read(uri)
        except NotFoundError as error:
            raise MediaError(f"{uri}: no such file") from error
        head = file.read(SIGNATURE_BYTES)
        file.seek(0)
    else:
        head = signature(uri)
    if is_picture(head):
        # From memory it has no name, which FFmpeg would take for a pattern of many files, or for the kind of picture.
        pictured: InputContainer = av.open(io.BytesIO(storage.read_bytes(uri)), **options)
        return pictured
    if head.startswith(TAGGED_STREAMS):
        data = storage.read_bytes(uri)
        if (bare := _without_inner_tags(data)) is not data:
            joined: InputContainer = av.open(io.BytesIO(bare), **options)
            return joined
    # An absolute path, since FFmpeg would take what stands before a colon for a protocol.
    source = file if storage.is_remote(uri) else str(storage.local_path(uri).absolute())
    container: InputContainer = av.open(source, buffer_size=REMOTE_BUFFER, **options)
    return container


def _without_inner_tags(data: bytes) -> bytes:
    """A stream without the ID3 tags in its middle, where files were joined; the very same where there are none.

    FFmpeg takes what is in them, such as a cover's picture, for damaged sound.
    """
    parts: list[bytes] = []
    kept = 0
    for tag in INNER_TAG.finditer(data, 1):
        size = 0
        if tag["id3"]:
            size = sum(byte << shift for byte, shift in zip(tag["id3"], (21, 14, 7, 0), strict=True))
        elif tag["ape"]:
            size = int.from_bytes(tag["ape"], "little")
        if tag.start() >= kept:
            parts.append(data[kept : tag.start()])
            kept = tag.end() + size
    return b"".join([*parts, data[kept:]]) if parts else data


def _kind(uri: str) -> str:
    """A sentence on what a file that can't be opened seems to be, and on what is allowed."""
    try:
        head = signature(uri).lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    except (MediaError, StorageError):
        return ""
    known = next((name for mark, name in REFUSED.items() if head.startswith(mark.lower())), "")
    seen = f"; it is {known}" if known else "; it is empty" if not head else ""
    return f"{seen}; allowed: {', '.join(FORMATS)}"
