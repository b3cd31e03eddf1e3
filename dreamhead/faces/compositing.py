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
TORN = 1.5
"""Neighbours in the crop whose shifts differ by more pixels lie on two sides of a tear, as the lips do where a mouth is
shut: what was between them isn't squeezed in."""
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
    way = _Way.of(layer, to_crop)
    pixels = way.limited(layer.pixels)
    moved = _sampled(pixels, *way.places(fields[..., :2]))
    _mend_tears(moved, pixels, way, shift, in_window)
    rows, columns = slice(part[1] - box[1], part[3] - box[1]), slice(part[0] - box[0], part[2] - box[0])
    painted[rows, columns] += fields[..., 2:] * moved


class _Way(NamedTuple):
    """From pixels of a part of the frame to those of a layer."""

    start: Floats
    """(2,) where the part's first pixel comes from, if nothing moves."""
    step: Floats
    """(2, 2) how far apart neighbours come from."""
    back: Floats
    """(2, 2) from a shift in the layer's crop to one in its pixels."""

    @classmethod
    def of(cls, layer: Layer, to_crop: Floats) -> "_Way":
        back = np.asarray(cv2.invertAffineTransform(layer.transform.astype(np.float64)), np.float64)
        return cls(back[:, :2] @ to_crop[:, 2] + back[:, 2], back[:, :2] @ to_crop[:, :2], back[:, :2])

    def limited(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The layer's pixels without what the frame's are too coarse for."""
        closer = float(np.sqrt(abs(np.linalg.det(self.step))))
        if closer <= MINIFIED:
            return pixels
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.5 * np.sqrt(closer**2 - 1)), np.uint8)

    def places(self, shift: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """x and y, (h, w) each, that pixels come from, given (h, w, 2) their shifts in the layer's crop."""
        height, width = shift.shape[:2]
        return self.places_at(np.arange(width), np.arange(height)[:, None], shift)

    def places_at(
        self, columns: NDArray[Any], rows: NDArray[Any], shift: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        """The same of some pixels."""
        step, start, back = (part.astype(np.float32) for part in (self.step, self.start, self.back))
        across, down = columns.astype(np.float32), rows.astype(np.float32)
        return [
            step[axis, 0] * across
            + (step[axis, 1] * down + start[axis])
            + back[axis, 0] * shift[..., 0]
            + back[axis, 1] * shift[..., 1]
            for axis in (0, 1)
        ]


def _sampled(pixels: NDArray[np.uint8], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(cv2.remap(pixels, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _mend_tears(
    moved: NDArray[np.uint8],
    pixels: NDArray[np.uint8],
    way: _Way,
    shift: NDArray[np.float32],
    in_window: Floats,
) -> None:
    """Along a tear, mix the colours of its two sides: mixed places would be those of what lies between them.

    Args:
        moved: (h, w, 3) the layer in the part's pixels; written to.
        pixels: the layer's.
        shift: (H, W, 2) of the window's pixels.
        in_window: (2, 3) from the part's pixels to the window.
    """
    apart = [np.ptp(_corners(shift[..., axis]), axis=0) for axis in (0, 1)]
    torn = np.maximum(*apart) > TORN
    if not torn.any():
        return
    # Whole numbers are pixels' centres: between four of them lies a cell.
    cells = in_window.copy()
    cells[:, 2] -= 0.5
    found = cv2.warpAffine(
        torn.astype(np.uint8), cells, moved.shape[1::-1], flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    rows, columns = np.nonzero(found)
    if not len(rows):
        return
    x, y = in_window[:, :2] @ np.stack([columns, rows]) + in_window[:, 2:]
    first_x = np.clip(np.floor(x).astype(int), 0, shift.shape[1] - 2)
    first_y = np.clip(np.floor(y).astype(int), 0, shift.shape[0] - 2)
    right, below = np.clip(x - first_x, 0, 1), np.clip(y - first_y, 0, 1)
    total = np.zeros((len(rows), 3))
    for down, row_share in ((0, 1 - below), (1, below)):
        for across, share in ((0, 1 - right), (1, right)):
            corner = shift[first_y + down, first_x + across][:, None]
            there = way.places_at(columns[:, None], rows[:, None], corner)
            total += (row_share * share)[:, None] * _sampled(pixels, *there)[:, 0]
    moved[rows, columns] = np.rint(total).astype(np.uint8)


def _corners(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(4, h - 1, w - 1) the four around each cell of (h, w) values."""
    return np.stack([values[:-1, :-1], values[:-1, 1:], values[1:, :-1], values[1:, 1:]])


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
