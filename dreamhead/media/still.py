"""Read picture files: upright as shown, whatever their kind, their name and their orientation tag."""

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.errors import MediaError, NotFoundError, StorageError
from dreamhead.media.color import UNSPECIFIED
from dreamhead.media.container import is_picture, signature
from dreamhead.records import VideoInfo

if TYPE_CHECKING:
    from PIL import Image

# Pillow is there where pictures are read, and nowhere else.

KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
"""Pillow's names of what is read by it; other pictures are left to FFmpeg."""

RAW_MOTION_JPEG = (".mjpeg", ".mjpg")
"""Pictures one after the other, which nothing but the name tells from a single one."""

HEIF_BRANDS = (b"avif", b"avis", b"mif1", b"msf1", b"miaf", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")

PNG_BITS_BYTE = 24
TIFF_BITS = 258
"""The tag BitsPerSample."""

NO_ALPHA = "{}: its transparency is lost: what is delivered has none"

TICK = Fraction(1, 25)
"""A picture's one frame, in seconds; the speech says how long it is held."""


def probe_still(uri: str) -> VideoInfo | None:
    """Say what a picture file holds; None for anything else, and for moving pictures.

    Raises MediaError where the picture is damaged, and for kinds of moving pictures that FFmpeg doesn't decode.
    """
    if not _may_be_still(uri):
        return None
    opened = _open(uri)
    if opened is None:
        return None
    if getattr(opened, "n_frames", 1) > 1 and opened.format not in ("TIFF", "MPO", "HEIF"):
        if opened.format == "WEBP":
            raise MediaError(f"{uri}: is an animated WebP; allowed: pictures, GIF, APNG, or a video such as MP4")
        return None
    width, height = _decoded(uri, opened).size
    warnings = []
    if opened.has_transparency_data:
        warnings.append(NO_ALPHA.format(uri))
    if (bits := _bits(opened, signature(uri))) > 8:
        warnings.append(f"{uri}: has {bits} bits a sample; it is delivered with 8")
    return VideoInfo(
        uri=uri,
        width=width,
        height=height,
        rotation=0,
        sample_aspect_ratio=Fraction(1),
        average_rate=1 / TICK,
        time_base=TICK,
        pts=np.zeros(1, np.int64),
        end_pts=1,
        color=(UNSPECIFIED, UNSPECIFIED, UNSPECIFIED, 0),
        has_audio=False,
        is_still=True,
        warnings=tuple(warnings),
    )


def read_still(uri: str) -> NDArray[np.uint8] | None:
    """(H, W, 3) RGB, upright; None for what `probe_still` leaves to FFmpeg. Raises MediaError."""
    opened = _open(uri) if _may_be_still(uri) else None
    return None if opened is None else np.array(_decoded(uri, opened), np.uint8)


def _may_be_still(uri: str) -> bool:
    head = signature(uri)
    if uri.lower().endswith(RAW_MOTION_JPEG) and not head.startswith(b"\x89PNG"):
        return False
    return is_picture(head) or head.startswith(b"GIF8") or (head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS)


def _open(uri: str) -> "Image.Image | None":
    import pillow_heif
    from PIL import Image, UnidentifiedImageError

    Image.init()
    pillow_heif.register_heif_opener()
    try:
        return Image.open(io.BytesIO(storage.read_bytes(uri)), formats=KINDS)
    except UnidentifiedImageError:
        return None
    except NotFoundError as error:
        raise MediaError(f"{uri}: no such file") from error
    except StorageError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(f"{uri}: the picture is too large: {error}") from error
    except Exception as error:
        raise MediaError(f"{uri}: the picture is damaged: {error}") from error


def _bits(opened: "Image.Image", head: bytes) -> int:
    """Bits of a sample as they are stored; Pillow itself makes 8 of most."""
    if opened.format == "PNG":
        return head[PNG_BITS_BYTE]
    if opened.format == "TIFF":
        stored: Any = getattr(opened, "tag_v2", {}).get(TIFF_BITS, 8)
        return int(stored[0] if isinstance(stored, tuple) else stored)
    return int(opened.info.get("bit_depth", 16 if opened.mode.startswith("I;16") else 8))


def _decoded(uri: str, opened: "Image.Image") -> "Image.Image":
    """The picture turned and mirrored as its tags say, in 8-bit RGB; transparency is dropped."""
    from PIL import Image, ImageOps

    try:
        upright: Any = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I;16") or upright.mode in ("I", "F"):
            return Image.fromarray(_to_bytes(np.asarray(upright))).convert("RGB")
        return upright.convert("RGB")  # type: ignore[no-any-return]
    # Pillow raises whatever its parsers stumble over.
    except Exception as error:
        raise MediaError(f"{uri}: the picture is damaged: {error}") from error


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels of 16 bits, or of any range, to 8 bits."""
    most = 65535 if values.dtype.kind in "iu" else max(float(values.max(initial=0)), 1e-9)
    return np.clip(np.rint(values.astype(np.float64) / most * 255), 0, 255).astype(np.uint8)
