"""LSE-C and LSE-D (Prajwal et al. 2020): how well SyncNet finds lips and sound of a file to belong together."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.evaluation.conditions import Take
from dreamhead.faces.detection import face_center, face_size
from dreamhead.faces.loose_crop import loose_crop, steady
from dreamhead.media.video import read_frames
from dreamhead.models import syncnet
from dreamhead.models.audio_encoder import SAMPLE_RATE
from dreamhead.models.cepstra import HOP, WINDOW, cepstra

FRAME_RATE = 25.0
STEPS_PER_FRAME = 4
REACH = 15
"""Frames by which sound and lips are shifted, either way."""
BATCH = 16


class LipSync:
    """Holds SyncNet; raises CheckpointError where `uri` isn't its weights."""

    def __init__(self, uri: str) -> None:
        self._network = syncnet.load(uri)

    @torch.inference_mode()
    def __call__(self, take: Take, landmarks: NDArray[np.float32], heard: NDArray[np.float32]) -> dict[str, float]:
        """Figures of a take; none where no face was found, or it is shorter than one window.

        Args:
            landmarks: (T, 478, 3) pixels; NaN where no face was found.
            heard: (N,) the take's sound at 16 kHz, from its first frame on; silence is taken to surround it.
        """
        length_s = take.frame_count / float(take.info.average_rate)
        count = round(length_s * FRAME_RATE) - syncnet.FRAMES + 1
        if count < 1 or not np.isfinite(landmarks[:, 0, 0]).any():
            return {}
        lips = self._lips(take, landmarks, count)
        said = self._said(heard, count + 2 * REACH)
        distances = [
            float(torch.linalg.vector_norm(lips - said[shift : shift + count], dim=1).mean())
            for shift in range(2 * REACH + 1)
        ]
        best = int(np.argmin(distances))
        # Sound that lies behind fits where the lips come late.
        return {
            "lse_d": distances[best],
            "lse_c": float(np.median(distances)) - distances[best],
            "av_offset_frames": float(REACH - best),
        }

    def _lips(self, take: Take, landmarks: NDArray[np.float32], count: int) -> Tensor:
        """(count, 1024)."""
        pictures = face_pictures(take, landmarks, count + syncnet.FRAMES - 1)
        parts = []
        for low in range(0, count, BATCH):
            windows = [pictures[first : first + syncnet.FRAMES] for first in range(low, min(low + BATCH, count))]
            batch = torch.from_numpy(np.stack(windows).astype(np.float32))
            parts.append(self._network.forward_lip(batch.permute(0, 4, 1, 2, 3).contiguous()))
        return torch.cat(parts)

    def _said(self, heard: NDArray[np.float32], count: int) -> Tensor:
        """(count, 1024) of windows that begin every 0.04 s, the first REACH of them before the sound."""
        steps = (count - 1) * STEPS_PER_FRAME + syncnet.STEPS
        samples = np.zeros((steps - 1) * HOP + WINDOW, np.float32)
        lead = round(REACH / FRAME_RATE * SAMPLE_RATE)
        inside = heard[: len(samples) - lead]
        samples[lead : lead + len(inside)] = inside
        windows = np.lib.stride_tricks.sliding_window_view(cepstra(samples), syncnet.STEPS, axis=0)[::STEPS_PER_FRAME]
        batches = torch.split(torch.from_numpy(np.ascontiguousarray(windows[:, None])), BATCH)
        return torch.cat([self._network.forward_aud(batch) for batch in batches])


def face_pictures(take: Take, landmarks: NDArray[np.float32], count: int) -> NDArray[np.uint8]:
    """(count, 224, 224, 3) blue, green, red: the face 25 times a second from the first frame on."""
    known = np.flatnonzero(np.isfinite(landmarks[:, 0, 0]))
    found = np.array([[*face_center(landmarks[t]), face_size(landmarks[t]) / 2] for t in known])
    every = np.arange(take.frame_count)
    places = steady(np.stack([np.interp(every, known, column) for column in found.T], axis=1))
    times_s = take.info.times_s[take.first : take.first + take.frame_count] - take.info.times_s[take.first]
    rows = np.abs(times_s[:, None] - np.arange(count) / FRAME_RATE).argmin(axis=0)
    frames = read_frames(take.info, (rows + take.first).tolist())
    aspect = take.info.pixel_aspect
    return np.stack(
        [loose_crop(frame, places[row], syncnet.SIDE, aspect) for frame, row in zip(frames, rows, strict=True)]
    )
