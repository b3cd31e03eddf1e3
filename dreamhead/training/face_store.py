"""All frames of a data set with what is known of their geometry, on the training device: nothing is decoded twice.

A frame takes about 0.4 MB at crops of 256 pixels and a window of 160: 20,000 frames are 8 GB.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dreamhead.faces import geometry
from dreamhead.faces.crop import apply_transform
from dreamhead.pipelines.moving import FaceStore, measure_frame
from dreamhead.training.dataset import Clip, ClipInfo, read_clip
from dreamhead.training.image_stage import Face, face_of


def build_store(
    infos: Sequence[ClipInfo],
    window: int,
    device: torch.device,
    processes: int = 0,
    frames: Sequence[NDArray[np.int64]] | None = None,
) -> FaceStore:
    """Read and measure clips, in their order, in as many processes as there are cores unless given.

    Args:
        frames: of each clip, those that are kept; None keeps all.
    """
    count = processes or len(os.sched_getaffinity(0))
    measured = partial(_read, window=window)
    kept: Sequence[NDArray[np.int64] | None] = frames if frames is not None else [None] * len(infos)
    if count == 1 or len(infos) == 1:
        return join(map(measured, infos, kept)).to(device)
    # Packed pictures are decoded once, before the processes part.
    read_clip(infos[0])
    with ProcessPoolExecutor(count, mp_context=get_context("fork"), initializer=_quiet) as pool:
        return join(pool.map(measured, infos, kept)).to(device)


def join(parts: Iterable[dict[str, NDArray[np.generic]]]) -> FaceStore:
    """A store of measured clips, on the CPU."""
    listed = list(parts)
    return FaceStore(**{name: torch.from_numpy(np.concatenate([part[name] for part in listed])) for name in listed[0]})


def measure_clip(clip: Clip, window: int, frames: Iterable[int] | None = None) -> dict[str, NDArray[np.generic]]:
    """The arrays of `FaceStore` for all frames of a clip, or for those given."""
    face = face_of(clip)
    rows = [_frame(face, int(number), window) for number in (range(len(clip.landmarks)) if frames is None else frames)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _read(info: ClipInfo, frames: NDArray[np.int64] | None, window: int) -> dict[str, NDArray[np.generic]]:
    return measure_clip(read_clip(info), window, None if frames is None else frames.tolist())


def _frame(face: Face, number: int, window: int) -> dict[str, NDArray[np.generic]]:
    picture, resting = face.clip.crop(number), resting_face(face, number)
    return measure_frame(picture, face.landmarks[number], resting, face.mask(number), window)


def resting_face(face: Face, number: int) -> NDArray[np.float32]:
    """(478, 3) the resting face in one frame's pose, pixels of the crop."""
    pose = geometry.Pose(*(part[number : number + 1] for part in face.pose))
    return apply_transform(face.clip.transforms[number], pose.to_pixels(face.clip.neutral[None])[0])


def _quiet() -> None:
    # OpenCV's and torch's threads don't survive a fork.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
