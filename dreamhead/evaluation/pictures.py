"""Strips of pictures that show a condition: the source above, what was made of it below."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

GAP = 4
"""Pixels between pictures."""
WORST_COLOUR, PLAIN_COLOUR = (214, 69, 65), (255, 255, 255)
JPEG_QUALITY = 88
APART = 6
"""Frames nearer to each other than this show the same moment."""

Picture = NDArray[np.uint8]


class Shown(NamedTuple):
    """One moment: (S, S, 3) crops."""

    frame: int
    truth: Picture
    ours: Picture


def choose_moments(
    judged: NDArray[np.bool_], badness: NDArray[np.float64], even: int, worst: int
) -> tuple[list[int], list[int]]:
    """Frames to show: `even` of the judged ones spread over time, then up to `worst` of the worst others.

    Args:
        judged: (T,).
        badness: (T,) more is worse; NaN is never chosen.

    Returns:
        All of them in order of time, and the worst ones.
    """
    frames = np.flatnonzero(judged)
    places = np.linspace(0, len(frames) - 1, min(even, len(frames))).round().astype(int)
    spread = {int(frame) for frame in frames[places]}
    found: list[int] = []
    ranked = sorted((frame for frame in frames.tolist() if np.isfinite(badness[frame])), key=lambda t: -badness[t])
    for frame in ranked:
        if len(found) < worst and all(abs(frame - other) >= APART for other in found):
            found.append(frame)
    return sorted(spread | set(found)), sorted(found)


def strip(shown: list[Shown], worst: list[int], side: int) -> bytes:
    """JPEG of two rows of crops, `side` pixels each; the worst frames have a red rim."""
    return jpeg(_beside(shown, worst, side), JPEG_QUALITY)


def sheet(shown: list[Shown], worst: list[int], side: int, columns: int, quality: int) -> bytes:
    """JPEG of as many such strips as `columns` crops in each ask for, one below the other."""
    rows = [_beside(shown[first : first + columns], worst, side) for first in range(0, len(shown), columns)]
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 2 * GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return jpeg(np.concatenate(filled)[: -2 * GAP], quality)


def jpeg(picture: Picture, quality: int) -> bytes:
    """An (H, W, 3) RGB picture, encoded."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)[1].tobytes())


def shrunk(picture: Picture, side: int) -> Picture:
    """An (S, S, 3) picture with `side` pixels a side."""
    if picture.shape[0] == side:
        return picture
    way = cv2.INTER_AREA if side < picture.shape[0] else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(picture, (side, side), interpolation=way))


def _beside(shown: list[Shown], worst: list[int], side: int) -> Picture:
    columns = [_column(pair, pair.frame in worst, side) for pair in shown]
    gap = np.full((columns[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1)


def _column(pair: Shown, is_worst: bool, side: int) -> Picture:
    rows = [np.array(shrunk(picture, side)) for picture in (pair.truth, pair.ours)]
    if is_worst:
        cv2.rectangle(rows[1], (0, 0), (side - 1, side - 1), WORST_COLOUR, 3)
    gap = np.full((GAP, side, 3), PLAIN_COLOUR, np.uint8)
    return np.concatenate([rows[0], gap, rows[1]])
