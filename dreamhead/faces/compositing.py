"""Put a painted lower face into its frame: each output pixel is sampled once, from original pixels.

What is painted is a sum of layers, each a picture at its own resolution, moved, with a share at each pixel; and of a
change, which alone comes from the crop. Shares, maps and change are enlarged to the frame's pixels; pictures never are.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces.crop import Pixels

LEAST_SHARE = 1 / 256
"""Below this a layer adds less than a step of brightness."""
MINIFIED = 1.2
"""A layer whose pixels lie closer than this many to one of the frame's is smoothed first, against aliasing."""

Floats = NDArray[np.floating[Any]]


class Layer(NamedTuple):
    """A picture that some of the painted pixels come from. The window is w x h pixels of the frame's crop."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) part of a frame, as stored."""
    transform: Floats
    """(2, 3) from them to their own crop."""
    corner: tuple[int, int]
    """x, y of the window's first pixel in the frame's crop."""
    source: NDArray[np.float32]
    """(h, w, 2) x, y in its own crop that each pixel of the window comes from."""
    share: NDArray[np.float32]
    """(h, w) how much of it is seen."""


def composite(
    frame: NDArray[np.uint8], layers: list[Layer], change: Pixels, opacity: NDArray[np.float32], transform: Floats
) -> NDArray[np.uint8]:
    """A copy of the frame with the painted face blended in; where nothing is opaque, the frame's own to the bit.

    Args:
        frame: (H, W, 3) RGB.
        layers: of the painted face.
        change: (S, S, 3) what is added to the layers, 0 to 255.
        opacity: (S, S) of the painted face, see `pose_mask`.
        transform: (2, 3) from the frame's own pixels to the crop, see `faces.pixel_aspect.from_stored`.
    """
    result: NDArray[np.uint8] = frame.copy()
    box = _frame_box(_extent(opacity), transform, frame.shape[1::-1])
    if box is None:
        return result
    to_crop = _from_corner(transform, box)
    painted = _enlarged(_limited(change.astype(np.float32), to_crop), to_crop, _shape(box), cv2.INTER_CUBIC)
    for layer in layers:
        _add(painted, layer, transform, box)
    alpha = _enlarged(opacity, to_crop, _shape(box), cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)[..., None]
    left, top, right, bottom = box
    region = result[top:bottom, left:right].astype(np.float32)
    region += (painted - region) * alpha
    result[top:bottom, left:right] = np.clip(np.rint(region), 0, 255).astype(np.uint8)
    return result


Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""


def frame_box(corners: Floats, transform: Floats, size: tuple[int, int]) -> Box | None:
    """The frame's pixels that a rectangle of its crop covers; None where it lies beyond the frame.

    Args:
        corners: (4,) left, top, right, bottom, pixels of the crop.
        transform: (2, 3) from the frame's own pixels to the crop.
        size: width and height of the frame.
    """
    left, top, right, bottom = corners
    points = np.array([[left, top], [right, top], [left, bottom], [right, bottom]], np.float64)
    inverse = cv2.invertAffineTransform(transform.astype(np.float64))
    points = points @ inverse[:, :2].T + inverse[:, 2]
    first = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
    last = np.clip(np.ceil(points.max(axis=0)) + 1, 0, size).astype(int)
    if (last <= first).any():
        return None
    return int(first[0]), int(first[1]), int(last[0]), int(last[1])


def _add(painted: NDArray[np.float32], layer: Layer, transform: Floats, box: Box) -> None:
    """Add a layer to the painted pixels of the frame's box."""
    seen = _extent(np.where(layer.share >= LEAST_SHARE, layer.share, 0))
    if seen is None:
        return
    corner = np.array(layer.corner)
    part = _frame_box(seen + np.tile(corner, 2), transform, (box[2], box[3]))
    part = None if part is None else (max(part[0], box[0]), max(part[1], box[1]), part[2], part[3])
    if part is None or part[2] <= part[0] or part[3] <= part[1]:
        return
    to_crop = _from_corner(transform, part)
    in_window = to_crop.copy()
    in_window[:, 2] -= corner
    left, top, right, bottom = seen.tolist()
    rows, columns = slice(top, bottom + 1), slice(left, right + 1)
    in_window[:, 2] -= (left, top)
    shift = layer.source[rows, columns] - _places(columns, rows) - corner.astype(np.float32)
    fields = _enlarged(np.dstack([shift, layer.share[rows, columns]]), in_window, _shape(part), cv2.INTER_LINEAR)
    pixels, x, y = _sampled_from(layer, to_crop, fields)
    moved = cv2.remap(pixels, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    rows, columns = slice(part[1] - box[1], part[3] - box[1]), slice(part[0] - box[0], part[2] - box[0])
    painted[rows, columns] += fields[..., 2:] * moved


def _sampled_from(
    layer: Layer, to_crop: Floats, fields: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """The layer's pixels, and (h, w) x and y in them for each pixel of a part of the frame.

    Args:
        to_crop: (2, 3) from the part's pixels to the frame's crop.
        fields: (h, w, 3) how far away in the layer's crop each one comes from, and its share.
    """
    back = cv2.invertAffineTransform(layer.transform.astype(np.float64))
    way = back[:, :2] @ to_crop[:, :2]
    start = back[:, :2] @ to_crop[:, 2] + back[:, 2]
    height, width = fields.shape[:2]
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    x, y = (
        np.float32(way[axis, 0]) * columns
        + (np.float32(way[axis, 1]) * rows + np.float32(start[axis]))
        + np.float32(back[axis, 0]) * fields[..., 0]
        + np.float32(back[axis, 1]) * fields[..., 1]
        for axis in (0, 1)
    )
    closer = float(np.sqrt(abs(np.linalg.det(way))))
    pixels = layer.pixels
    if closer > MINIFIED:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.5 * np.sqrt(closer**2 - 1)), np.uint8)
    return pixels, x, y


def _limited(change: NDArray[np.float32], to_crop: Floats) -> NDArray[np.float32]:
    """The change without what the frame's pixels are too coarse for."""
    closer = float(np.sqrt(abs(np.linalg.det(to_crop[:, :2]))))
    if closer <= MINIFIED:
        return change
    return np.asarray(cv2.GaussianBlur(change, (0, 0), 0.5 * np.sqrt(closer**2 - 1)), np.float32)


def _enlarged(
    crop: NDArray[np.float32],
    to_crop: Floats,
    shape: tuple[int, int],
    method: int,
    border: int = cv2.BORDER_REPLICATE,
) -> NDArray[np.float32]:
    """What is in the pixels of a crop, in a part of the frame of (width, height) `shape`."""
    flags = method | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(crop, to_crop, shape, flags=flags, borderMode=border), np.float32)


def _extent(share: NDArray[np.float32]) -> NDArray[np.int64] | None:
    """(4,) left, top, right, bottom, the last inside, of what isn't zero."""
    rows, columns = np.flatnonzero(share.any(axis=1)), np.flatnonzero(share.any(axis=0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], np.int64)


def _frame_box(extent: NDArray[np.int64] | None, transform: Floats, size: tuple[int, int]) -> Box | None:
    """The frame's pixels that see something of the crop's."""
    if extent is None:
        return None
    # A pixel of the frame sees the four of the crop around it.
    return frame_box(extent + np.array([-1, -1, 1, 1]), transform, size)


def _from_corner(transform: Floats, box: Box) -> NDArray[np.float64]:
    """(2, 3) from the pixels of a part of the frame to the crop."""
    local = transform.astype(np.float64)
    local[:, 2] += local[:, :2] @ box[:2]
    return local


def _shape(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _places(columns: slice, rows: slice) -> NDArray[np.float32]:
    x, y = np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)[:, None]
    return np.stack(np.broadcast_arrays(x, y), axis=-1).astype(np.float32)
