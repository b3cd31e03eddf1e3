"""All frames of a data set with what is known of their geometry, on the training device: nothing is decoded twice.

A frame takes about 0.35 MB at crops of 256 pixels and a window of 160: 20,000 frames are 7 GB.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.faces import geometry
from dreamhead.faces.crop import apply_transform
from dreamhead.faces.landmark_image import draw
from dreamhead.faces.mesh_index import triangle_index, vertices
from dreamhead.faces.mouth_window import window_corner
from dreamhead.pipelines.example import mouth_region
from dreamhead.training.dataset import Clip, ClipInfo, read_clip
from dreamhead.training.image_stage import Face, face_of

COARSE = 4
"""Slow changes of colour are measured in pictures so many times smaller."""
EDGE = 0.9
"""Below this opacity a mask's edge shows enough of the frame to match colours to."""


@dataclass(frozen=True)
class FaceStore:
    """N frames of clips joined end to end. S is the side of a crop, W that of the mouth's window, V = VERTICES."""

    pictures: Tensor
    """(N, S, S, 3) uint8."""
    corners: Tensor
    """(N, 2) int64 x, y of the window in the crop."""
    vertices: Tensor
    """(N, V, 2) float32 pixels of the crop."""
    index: Tensor
    """(N, W, W) int16 triangle of each pixel of the window."""
    coarse_index: Tensor
    """(N, S / 4, S / 4) int16 the same of the whole crop, coarsely."""
    ring: Tensor
    """(N, S / 4, S / 4) uint8 the mask's edge, where colours are matched."""
    drawn: Tensor
    """(N, W, W, 3) uint8 landmark image."""
    mask: Tensor
    """(N, W, W) uint8 opacity of the dubbed region, 0 to 255."""
    mouth: Tensor
    """(N, W, W) uint8 lips and what is between them, 0 to 255."""

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> "FaceStore":
        """The same on a device."""
        return FaceStore(*(getattr(self, field.name).to(device) for field in fields(self)))


def build_store(infos: Sequence[ClipInfo], window: int, device: torch.device, processes: int = 0) -> FaceStore:
    """Read and measure all clips, in their order, in as many processes as there are cores unless given."""
    count = processes or len(os.sched_getaffinity(0))
    measured = partial(_read, window=window)
    if count == 1 or len(infos) == 1:
        return join(map(measured, infos)).to(device)
    with ProcessPoolExecutor(count, mp_context=get_context("fork"), initializer=_quiet) as pool:
        return join(pool.map(measured, infos)).to(device)


def join(parts: Iterable[dict[str, NDArray[np.generic]]]) -> FaceStore:
    """A store of measured clips, on the CPU."""
    listed = list(parts)
    return FaceStore(**{name: torch.from_numpy(np.concatenate([part[name] for part in listed])) for name in listed[0]})


def measure_clip(clip: Clip, window: int, frames: Iterable[int] | None = None) -> dict[str, NDArray[np.generic]]:
    """The arrays of `FaceStore` for all frames of a clip, or for those given."""
    face = face_of(clip)
    rows = [_frame(face, int(number), window) for number in (range(len(clip.landmarks)) if frames is None else frames)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _read(info: ClipInfo, window: int) -> dict[str, NDArray[np.generic]]:
    return measure_clip(read_clip(info), window)


def _frame(face: Face, number: int, window: int) -> dict[str, NDArray[np.generic]]:
    clip, size = face.clip, face.clip.crop_size
    landmarks, mask = face.landmarks[number], face.mask(number)
    corner = window_corner(_resting(face, number), size, window)
    x, y = corner
    cut = np.s_[y : y + window, x : x + window]
    points = vertices(landmarks)
    ring = ((mask > 0) & (mask < EDGE)).astype(np.float32) * 255
    small = (size // COARSE, size // COARSE)
    return {
        "pictures": clip.crop(number),
        "corners": np.array(corner, np.int64),
        "vertices": points[:, :2],
        "index": triangle_index(points - np.array([x, y, 0], np.float32), window),
        "coarse_index": triangle_index(_coarse(points), size // COARSE),
        "ring": cv2.resize(ring, small, interpolation=cv2.INTER_AREA).astype(np.uint8),
        "drawn": draw(landmarks, size)[cut],
        "mask": np.round(mask[cut] * 255).astype(np.uint8),
        "mouth": np.round(mouth_region(landmarks, size)[cut] * 255).astype(np.uint8),
    }


def _resting(face: Face, number: int) -> NDArray[np.float32]:
    """(478, 3) the resting face in one frame's pose, pixels of the crop."""
    pose = geometry.Pose(*(part[number : number + 1] for part in face.pose))
    return apply_transform(face.clip.transforms[number], pose.to_pixels(face.clip.neutral[None])[0])


def _coarse(points: NDArray[np.float32]) -> NDArray[np.float32]:
    small = points.copy()
    small[:, :2] = (points[:, :2] + 0.5) / COARSE - 0.5
    return small


def _quiet() -> None:
    # OpenCV's and torch's threads don't survive a fork.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
