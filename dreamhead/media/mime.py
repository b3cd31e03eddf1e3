"""Say what an MP4 file holds as its MIME type does, by which a player tells whether it can play it."""

import io
from collections.abc import Callable

import av
from av.stream import Stream

from dreamhead.errors import MediaError
from dreamhead.media.container import media_errors

BOX_HEADER = 8
AAC_CONFIG = 0x40
MP3_CONFIG = 0x6B
"""Object types of MPEG-4's registry, which a type of `mp4a` names."""

LONG_OBJECT_TYPE = 31
"""In the five bits of an AAC configuration's object type: six more bits tell it."""


def mp4_header(data: bytes) -> bytes | None:
    """The file's beginning up to the end of its `moov` box; None while `data` doesn't hold all of that."""
    position = 0
    while len(data) >= position + BOX_HEADER:
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + BOX_HEADER]
        if size < BOX_HEADER:
            raise MediaError(f"box {kind!r} at byte {position} is {size} bytes long; a header's box has {BOX_HEADER}")
        position += size
        if kind == b"moov":
            return data[:position] if len(data) >= position else None
    return None


def mp4_mime_type(header: bytes) -> str:
    """`video/mp4; codecs="avc1.64001F, mp4a.40.2"`, of RFC 6381, for a file that begins with `header`.

    Without `codecs` where one of the streams has no name there. Raises MediaError for anything but MP4.
    """
    with media_errors("the header", "is no MP4"), av.open(io.BytesIO(header), format="mp4") as container:
        names = [_name(stream) for stream in container.streams]
    return f'video/mp4; codecs="{", ".join(names)}"' if all(names) else "video/mp4"


def _name(stream: Stream) -> str:
    context = stream.codec_context
    name, config = context.codec.canonical_name, context.extradata or b""
    return NAMES[name](config) if name in NAMES else ""


def _h264(config: bytes) -> str:
    """Profile, constraints and level, bytes 1 to 3 of ISO 14496-15's AVCDecoderConfigurationRecord."""
    return f"avc1.{config[1:4].hex().upper()}"


def _hevc(config: bytes) -> str:
    """ISO 14496-15, annex E, from the HEVCDecoderConfigurationRecord."""
    profile, level = config[1], config[12]
    space, tier, number = ("", "A", "B", "C")[profile >> 6], "LH"[profile >> 5 & 1], profile & 31
    compatible = int(f"{int.from_bytes(config[2:6], 'big'):032b}"[::-1], 2)
    constraints = [f"{byte:X}" for byte in config[6:12].rstrip(b"\0")]
    return ".".join([f"hvc1.{space}{number}", f"{compatible:X}", f"{tier}{level}", *constraints])


def _aac(config: bytes) -> str:
    """The object type of ISO 14496-3's AudioSpecificConfig."""
    bits = int.from_bytes(config[:2], "big")
    number = bits >> 11
    return f"mp4a.{AAC_CONFIG:x}.{32 + (bits >> 5 & 63) if number == LONG_OBJECT_TYPE else number}"


NAMES: dict[str, Callable[[bytes], str]] = {
    "h264": _h264,
    "hevc": _hevc,
    "aac": _aac,
    "mp3": lambda _: f"mp4a.{MP3_CONFIG:X}",
    "ac3": lambda _: "ac-3",
    "eac3": lambda _: "ec-3",
    "alac": lambda _: "alac",
    "opus": lambda _: "opus",
    "flac": lambda _: "fLaC",
}
"""By FFmpeg's name of the codec: its name in a MIME type, from the codec's own header."""
