"""The mouths of one shot's frames, mixed of moved references and of the frames' own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.faces.reference import mouth_shape
from dreamhead.faces.warp import mesh
from dreamhead.models.reference_mixer import ReferenceMixer
from dreamhead.pipelines.example import Reference
from dreamhead.pipelines.moving import Drawn, FaceStore, make_examples, measure_frame

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Face:
    """One frame of the shot and what its mouth shall be. S is the side of the crop."""

    crop: NDArray[np.uint8]
    """(S, S, 3)."""
    landmarks: NDArray[np.float32]
    """(478, 3) where they are, pixels of the crop."""
    target: NDArray[np.float32]
    """(478, 3) where they shall be."""
    resting: NDArray[np.float32]
    """(478, 3) the speaker's resting face in this pose."""
    mask: NDArray[np.float32]
    """(S, S) opacity of the dubbed region."""
    canonical: NDArray[np.float32]
    """(478, 3) the wanted face in the canonical pose."""
    own_canonical: NDArray[np.float32]
    """(478, 3) the frame's own face in the canonical pose."""
    references: NDArray[np.int64]
    """(K,) of the shot's references, nearest mouth first."""


class Mouth(NamedTuple):
    """What is painted of one frame."""

    window: tuple[slice, slice]
    """Rows and columns of the crop."""
    picture: NDArray[np.float32]
    """(W, W, 3), 0 to 255."""
    own: NDArray[np.float32]
    """(W, W) share of the frame's own details."""


class MouthMixer:
    """Paints mouths.

    Args:
        model: in evaluation mode, on its device.
        half: compute in bfloat16.
    """

    def __init__(self, model: ReferenceMixer, half: bool) -> None:
        self._model = model
        self._half = half
        self._window = int(model.config["window"])
        self._triangles = torch.from_numpy(mesh()).to(model.device)

    @torch.no_grad()
    def __call__(
        self, references: Sequence[Reference], shapes: Floats, faces: Sequence[Face], own: bool = True
    ) -> list[Mouth]:
        """The mouth of each face.

        Args:
            references: R of the shot.
            shapes: (R, N) their mouths, see `mouth_shape`.
            faces: B frames of the shot.
            own: whether the frames' own pixels may be taken; not when they are the answer, in judging.
        """
        # Only those that are looked at are measured.
        used = np.unique(np.concatenate([face.references for face in faces]))
        store = self._store([references[number] for number in used], faces)
        drawn = self._drawn(faces, used, shapes, own)
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._half):
            made = make_examples(self._model.encode, store, self._triangles, drawn)
            mixture = self._model(made.moved, made.guides)
        pictures = ((mixture.picture.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy()
        share, corners = mixture.fine[:, -1].cpu().numpy(), store.corners[drawn.frames].cpu().numpy()
        windows = [(slice(y, y + self._window), slice(x, x + self._window)) for x, y in corners.tolist()]
        return [Mouth(*each) for each in zip(windows, pictures, share, strict=True)]

    def _store(self, references: Sequence[Reference], faces: Sequence[Face]) -> FaceStore:
        """The references, then the frames as they are, then the frames as they shall be."""
        size = len(faces[0].crop)
        nothing = np.zeros((size, size), np.float32)
        rows = [
            *((its.picture, np.asarray(its.landmarks, np.float32), its.landmarks, nothing) for its in references),
            *((face.crop, face.landmarks, face.resting, nothing) for face in faces),
            *((face.crop, face.target, face.resting, face.mask) for face in faces),
        ]
        measured = [measure_frame(*row, self._window) for row in rows]
        parts = {name: torch.from_numpy(np.stack([row[name] for row in measured])) for name in measured[0]}
        return FaceStore(**parts).to(self._model.device)

    def _drawn(self, faces: Sequence[Face], used: NDArray[np.int64], shapes: Floats, own: bool) -> Drawn:
        device, count, known = self._model.device, len(faces), len(used)
        numbers = np.stack([np.searchsorted(used, face.references) for face in faces])
        themselves = known + np.arange(count)
        wanted = mouth_shape(np.stack([face.canonical for face in faces]))
        there = mouth_shape(np.stack([face.own_canonical for face in faces]))
        apart = np.linalg.norm(shapes[used][numbers] - wanted[:, None], axis=2)
        distance = np.concatenate([apart, np.linalg.norm(there - wanted, axis=1)[:, None]], axis=1)
        columns = numbers.shape[1] + 1
        is_own = np.zeros((count, columns), bool)
        is_own[:, -1] = True

        def on_device(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        return Drawn(
            frames=on_device(themselves + count),
            references=on_device(np.concatenate([numbers, themselves[:, None]], axis=1)),
            present=on_device(np.ones((count, columns), bool) & (own | ~is_own)),
            own=on_device(is_own),
            distance=on_device(distance.astype(np.float32)),
            mirrored=on_device(np.zeros(count, bool)),
            colour=torch.eye(3, device=device).expand(count, 3, 3),
            noise=torch.zeros(count, columns, device=device),
        )
