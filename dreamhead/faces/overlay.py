"""Find what is burnt into a picture over a lower face: captions, a station's logo. It must outlast the dub.

Its edges hold still in the frame while the face's own move: an edge that moves by a share of a pixel changes its pixels
by that share of its gradient. Where the head itself holds still nothing is told.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology
from dreamhead.faces.detection import face_size

WINDOW_S = 0.5
"""Edges must hold still for so long."""
FEWEST_FRAMES = 8
LEAST_HEAD_MOTION = 1.0
"""Standard deviation, in pixels, of the jaw's place over a window, below which nothing is told."""
LEAST_GRADIENT = 25.0
"""Levels of 255 per pixel: letters are drawn to be read, skin is smooth."""
MOST_EDGE_MOTION = 0.06
"""Standard deviation, in pixels, of the place of an edge that holds still: that of noise and of compression."""
SLOW_EDGE_MOTION = 0.15
MOST_SLOW = 0.5
"""Edges that move by up to `SLOW_EDGE_MOTION`, for each that holds still: a face that hardly moves has many."""
FEWEST_PIXELS = 0.2
"""Such pixels, for each pixel of the face's size, that make an overlay."""
NEIGHBOURS = 0.15
"""Share of the face's size around an overlay within which edges beyond the jaw are part of it."""
FILL = 0.04
"""Share of the face's size up to which the space between two edges is a letter's inside."""
MARGIN_PX = 2
"""Compression blurs a letter's outline by so much."""
SAME_LEVELS = 16.0
"""Levels of 255 within which a pixel is still what it was; four of five must be."""
EDGE_SIGMA = 1.5
"""Pixels over which the picture with the overlay passes into the painted one."""

Picture = NDArray[np.uint8]


class _Seen(NamedTuple):
    """The part of a frame around the face, in grey."""

    number: int
    grey: Picture
    left: int
    top: int
    jaw: NDArray[np.float64]
    size: float


class _Open:
    """An overlay that was there a frame ago."""

    def __init__(self, start: int, stop: int, pixels: NDArray[np.int64], levels: NDArray[np.float32]) -> None:
        self.start, self.stop = start, stop
        self.pixels, self._levels = pixels, levels

    def is_in(self, seen: _Seen) -> bool:
        """Whether its pixels, as far as they are in what is seen, are as they were."""
        x, y = (self.pixels - (seen.left, seen.top)).T
        inside = (x >= 0) & (y >= 0) & (x < seen.grey.shape[1]) & (y < seen.grey.shape[0])
        if inside.mean() < 0.5:
            return False
        now = seen.grey[y[inside], x[inside]].astype(np.float32)
        return bool((abs(now - self._levels[inside]) < SAME_LEVELS).mean() >= 0.8)


class OverlayFinder:
    """Walks the frames of one shot in order.

    Args:
        rate: frames a second.
    """

    def __init__(self, rate: float) -> None:
        self._window = max(FEWEST_FRAMES, round(WINDOW_S * rate))
        self._seen: deque[_Seen] = deque(maxlen=2 * self._window)
        self._open: list[_Open] = []
        self._closed: list[_Open] = []

    def add(self, number: int, frame: Picture, landmarks: NDArray[np.float32]) -> None:
        """Look at the next (H, W, 3) frame, whose face is at (478, 3) `landmarks`; NaN where there is none."""
        if np.isnan(landmarks).any():
            self._close(self._open)
            self._seen.clear()
            return
        seen = _look(number, frame, landmarks)
        if seen is None:
            return
        self._seen.append(seen)
        gone = []
        for overlay in self._open:
            if overlay.is_in(seen):
                overlay.stop = number + 1
            else:
                gone.append(overlay)
        self._close(gone)
        if len(self._seen) >= self._window and number % (self._window // 2) == 0:
            self._search(list(self._seen)[-self._window :])

    def finish(self) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
        """All overlays of the shot by their first frames, as `ShotAnalysis` has them: (M, 3) spans, (N, 2) pixels."""
        self._close(self._open)
        found = sorted(self._closed, key=lambda overlay: overlay.start)
        spans = np.array([(each.start, each.stop, len(each.pixels)) for each in found], np.int64).reshape(-1, 3)
        pixels = np.concatenate([np.zeros((0, 2), np.int64), *(each.pixels for each in found)])
        return spans, pixels.astype(np.uint16)

    def _close(self, gone: Sequence[_Open]) -> None:
        self._closed += gone
        self._open = [overlay for overlay in self._open if overlay not in gone]

    def _search(self, window: list[_Seen]) -> None:
        found = _static(window)
        if found is None:
            return
        mask, mean, left, top = found
        for overlay in self._open:
            x, y = (overlay.pixels - (left, top)).T
            inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
            mask[y[inside], x[inside]] = 0
        y, x = np.nonzero(mask)
        if len(x) < FEWEST_PIXELS * window[0].size:
            return
        overlay = _Open(window[0].number, window[-1].number + 1, np.stack([x + left, y + top], axis=1), mean[y, x])
        # It may have come at any frame before the window's first.
        for seen in reversed([seen for seen in self._seen if seen.number < overlay.start]):
            if not overlay.is_in(seen):
                break
            overlay.start = seen.number
        self._open.append(overlay)


def covered(spans: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    """(M,) which overlays are there in a frame."""
    return np.asarray((spans[:, 0] <= number) & (number < spans[:, 1]))


def overlay_mask(
    spans: NDArray[np.int64], pixels: NDArray[np.uint16], number: int, shape: tuple[int, int]
) -> Picture | None:
    """(H, W) 255 where overlays cover a frame, or None where none does; for `spans` and `pixels` see `ShotAnalysis`."""
    there = covered(spans, number)
    if not there.any():
        return None
    mask = np.zeros(shape, np.uint8)
    x, y = pixels[np.repeat(there, spans[:, 2])].astype(np.int64).T
    mask[y, x] = 255
    return mask


def without_overlay(frame: Picture, mask: Picture) -> Picture:
    """The (H, W, 3) frame with what lies around an overlay drawn in under it."""
    rows, columns = _box(mask, 8)
    clean: Picture = frame.copy()
    clean[rows, columns] = cv2.inpaint(
        np.ascontiguousarray(frame[rows, columns]), np.ascontiguousarray(mask[rows, columns]), 3, cv2.INPAINT_TELEA
    )
    return clean


def with_overlay(painted: Picture, frame: Picture, mask: Picture) -> Picture:
    """The painted frame with the overlay of the (H, W, 3) source's `frame` over it, soft at its outline."""
    rows, columns = _box(mask, 8)
    inside = mask[rows, columns].astype(np.float32) / 255
    share = np.maximum(inside, cv2.GaussianBlur(inside, (0, 0), EDGE_SIGMA))[..., None]
    kept: Picture = painted.copy()
    ours, theirs = (each[rows, columns].astype(np.float32) for each in (painted, frame))
    kept[rows, columns] = np.rint(ours + share * (theirs - ours)).astype(np.uint8)
    return kept


def _box(mask: Picture, margin: int) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(mask)
    return (
        slice(max(0, y - margin), y + height + margin),
        slice(max(0, x - margin), x + width + margin),
    )


def _look(number: int, frame: Picture, landmarks: NDArray[np.float32]) -> _Seen | None:
    jaw = landmarks[[*topology.JAW, *topology.NOSE_BASE], :2].astype(np.float64)
    height, width = frame.shape[:2]
    size = face_size(landmarks)
    (left, top), (right, bottom) = jaw.min(axis=0) - size / 4, jaw.max(axis=0) + size / 4
    rows = slice(max(0, int(top)), max(0, min(height, int(bottom))))
    columns = slice(max(0, int(left)), max(0, min(width, int(right))))
    if rows.stop - rows.start < 16 or columns.stop - columns.start < 16:
        return None
    grey = np.asarray(cv2.cvtColor(frame[rows, columns], cv2.COLOR_RGB2GRAY), np.uint8)
    return _Seen(number, grey, columns.start, rows.start, jaw, size)


def _static(window: list[_Seen]) -> "tuple[Picture, NDArray[np.float32], int, int] | None":
    """What holds still in a window over a face that moves: its mask, the mean picture, and their left and top."""
    jaws = np.stack([seen.jaw for seen in window])
    if np.sqrt(jaws.var(axis=0).sum(axis=1)).mean() < LEAST_HEAD_MOTION:
        return None
    left, top = max(seen.left for seen in window), max(seen.top for seen in window)
    right = min(seen.left + seen.grey.shape[1] for seen in window)
    bottom = min(seen.top + seen.grey.shape[0] for seen in window)
    if right - left < 16 or bottom - top < 16:
        return None
    parts = [seen.grey[top - seen.top : bottom - seen.top, left - seen.left : right - seen.left] for seen in window]
    stack = np.stack(parts).astype(np.float32)
    mean, change = stack.mean(axis=0), stack.std(axis=0)
    gradient = np.hypot(*(cv2.Sobel(mean, cv2.CV_32F, *way, ksize=3) / 8 for way in ((1, 0), (0, 1))))
    strong, size = gradient > LEAST_GRADIENT, window[0].size
    still = strong & (change < MOST_EDGE_MOTION * gradient)
    if still.sum() < FEWEST_PIXELS * size:
        return None
    jaw = _always_jaw(still.shape, jaws - (left, top))
    edges = jaw & still
    slow = jaw & strong & (change < SLOW_EDGE_MOTION * gradient) & ~still
    if edges.sum() < FEWEST_PIXELS * size or slow.sum() > MOST_SLOW * edges.sum():
        return None
    edges |= still & (cv2.dilate(edges, _disc(NEIGHBOURS * size)) > 0)
    filled = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, _disc(FILL * size))
    mask = cv2.dilate(edges | (filled & (change < SAME_LEVELS / 2)), _disc(MARGIN_PX))
    return mask.astype(np.uint8), mean, left, top


def _always_jaw(shape: tuple[int, ...], jaws: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(H, W) 1 where the lower face is in all frames."""
    covered = np.ones(shape, np.uint8)
    for jaw in jaws:
        one = np.zeros(shape, np.uint8)
        cv2.fillPoly(one, [cv2.convexHull(np.round(jaw).astype(np.int32))], 1)
        covered &= one
    return covered


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
