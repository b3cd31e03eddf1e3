"""References: which frames of a shot to keep, and which of them to show for a wanted mouth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import geometry, topology
from dreamhead.records import ShotAnalysis

LIPS = tuple(
    sorted({*topology.OUTER_LOWER_LIP, *topology.OUTER_UPPER_LIP, *topology.INNER_LOWER_LIP, *topology.INNER_UPPER_LIP})
)
# Changing the reference costs as much as this distance between mouths: teeth shall not flicker for a trifle.
SWITCH_COST = 0.02
FORBIDDEN = 1e6

Floats = NDArray[np.floating[Any]]


def mouth_shape(canonical: Floats) -> NDArray[np.float32]:
    """(T, N) lip points of (T, 478, 3) canonical shapes, flat, in units of eye distance a point."""
    lips = canonical[:, LIPS] - canonical[:, LIPS].mean(axis=1, keepdims=True)
    return np.asarray(lips.reshape(len(canonical), -1) / np.sqrt(len(LIPS)), np.float32)


class Patch(NamedTuple):
    """Part of a frame, as stored."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    transform: Floats
    """(2, 3) from these pixels to the frame's crop."""


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """A frame that may become a reference."""

    number: int
    crop: NDArray[np.uint8]
    """(S, S, 3)."""
    landmarks: NDArray[np.float32]
    """(478, 3) pixels of the crop."""
    transform: Floats
    """(2, 3) from the frame's own pixels to the crop."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the lower face in the frame."""
    pixels: NDArray[np.uint8]
    """(bottom - top, right - left, 3)."""


class ReferenceKeeper:
    """Keeps up to `limit` frames whose mouths differ as much as possible, in one pass.

    A frame is kept when its mouth is further from all kept ones than a distance that grows when there are too many.

    Args:
        limit: most frames.
        most_bytes: of their pixels, together: of the largest faces fewer frames are kept.
    """

    def __init__(self, limit: int, most_bytes: int) -> None:
        self._limit = limit
        self._most_bytes = most_bytes
        self._distance = 0.005
        self._shapes: list[NDArray[np.float32]] = []
        self.frames: list[KeptFrame] = []
        """In the order in which they came."""

    def wants(self, shape: NDArray[np.float32]) -> bool:
        """Whether a mouth (N,) differs enough from all kept ones."""
        return all(np.linalg.norm(shape - kept) > self._distance for kept in self._shapes)

    def keep(self, shape: NDArray[np.float32], frame: KeptFrame) -> None:
        """Keep a frame; when that is one too many, widen the distance until some go."""
        self._shapes.append(shape)
        self.frames.append(frame)
        while len(self.frames) > 1 and self._too_many():
            self._distance *= 1.2
            self._thin()

    def _too_many(self) -> bool:
        return len(self.frames) > self._limit or sum(its.pixels.nbytes for its in self.frames) > self._most_bytes

    def _thin(self) -> None:
        kept: list[int] = []
        for number, shape in enumerate(self._shapes):
            if all(np.linalg.norm(shape - self._shapes[other]) > self._distance for other in kept):
                kept.append(number)
        self._shapes = [self._shapes[number] for number in kept]
        self.frames = [self.frames[number] for number in kept]


def reference_arrays(frames: Sequence[KeptFrame], size: int) -> dict[str, NDArray[Any]]:
    """The references of a `ShotAnalysis`, by name.

    Args:
        frames: R of them.
        size: side of the crops.
    """
    count = len(frames)
    return {
        "reference_frames": np.array([its.number for its in frames], np.int64),
        "reference_crops": np.array([its.crop for its in frames], np.uint8).reshape(count, size, size, 3),
        "reference_landmarks": np.array([its.landmarks for its in frames], np.float32).reshape(count, 478, 3),
        "reference_crop_transforms": np.array([its.transform for its in frames], np.float32).reshape(count, 2, 3),
        "reference_boxes": np.array([its.box for its in frames], np.int64).reshape(count, 4),
        "reference_pixels": np.concatenate(
            [np.zeros((0, 3), np.uint8), *(its.pixels.reshape(-1, 3) for its in frames)]
        ),
    }


def patch(shot: ShotAnalysis, number: int) -> Patch:
    """What is kept of a reference's frame at its own resolution."""
    left, top, right, bottom = shot.reference_boxes[number].tolist()
    sides = shot.reference_boxes[:, 2:] - shot.reference_boxes[:, :2]
    end = int(sides.prod(axis=1)[: number + 1].sum())
    pixels = shot.reference_pixels[end - (right - left) * (bottom - top) : end]
    transform = shot.reference_crop_transforms[number].astype(np.float64)
    transform[:, 2] += transform[:, :2] @ (left, top)
    return Patch(pixels.reshape(bottom - top, right - left, 3), transform)


def choose_references(
    shot: ShotAnalysis,
    targets: NDArray[np.float32],
    count: int = 1,
    frames: NDArray[np.int64] | None = None,
    apart: int = 0,
) -> NDArray[np.int64]:
    """(T, count) references for each of T successive frames: near to the wanted mouth, and seldom other ones.

    The first column is the best; each further one is the best without those before it. Fewer columns where the shot
    has fewer references.

    The cheapest path over frames and references (Viterbi 1967) of distance between mouths and cost of switching.

    Args:
        targets: (T, K, 3) canonical lower faces.
        frames: (T,) their numbers in the source; needed when `apart` isn't 0.
        apart: fewest frames between a frame and its reference, for judging; where no reference is that far, the
            furthest is taken.
    """
    wanted = np.repeat(shot.neutral[None], len(targets), axis=0)
    wanted[:, topology.lower_face()] = targets
    pose = geometry.fit_pose(shot.reference_landmarks)
    there = mouth_shape(pose.to_canonical(shot.reference_landmarks))
    distance = np.linalg.norm(mouth_shape(wanted)[:, None] - there[None], axis=2)
    if apart and frames is not None:
        away = np.abs(frames[:, None] - shot.reference_frames[None])
        distance[away < np.minimum(apart, away.max(axis=1, keepdims=True))] = FORBIDDEN
    chosen = []
    for _ in range(min(count, distance.shape[1])):
        chosen.append(_cheapest_path(distance, SWITCH_COST))
        distance[np.arange(len(distance)), chosen[-1]] += FORBIDDEN
    return np.stack(chosen, axis=1)


def _cheapest_path(costs: Floats, switch: float) -> NDArray[np.int64]:
    total = costs[0].copy()
    came_from = np.zeros(costs.shape, np.int64)
    for frame in range(1, len(costs)):
        best = int(total.argmin())
        stay = total <= total[best] + switch
        came_from[frame] = np.where(stay, np.arange(len(total)), best)
        total = np.where(stay, total, total[best] + switch) + costs[frame]
    path = np.empty(len(costs), np.int64)
    path[-1] = total.argmin()
    for frame in range(len(costs) - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path
