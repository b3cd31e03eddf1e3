"""The mouths of one shot's frames, mixed of moved references and of the frames' own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.faces import geometry
from dreamhead.faces.mesh_index import mesh
from dreamhead.faces.reference import mouth_shape
from dreamhead.models.reference_mixer import Mixture, ReferenceMixer, enlarged
from dreamhead.pipelines.example import Reference
from dreamhead.pipelines.moving import (
    Drawn,
    Examples,
    FaceStore,
    Measured,
    halved,
    looked_up,
    make_examples,
    measure_frame,
    measure_source,
    to_pixels,
)

Floats = NDArray[np.floating[Any]]

TRACE = 0.05
"""A reference with a smaller share of the fine band isn't seen."""


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
    index: NDArray[np.int16]
    """(S, S) the target's `triangle_index`."""


class Mouth(NamedTuple):
    """What is painted of one frame, W x W: K references and the frame itself, last, each moved, and a change."""

    window: tuple[slice, slice]
    """Rows and columns of the crop."""
    sources: NDArray[np.float32]
    """(K + 1, W, W, 2) where each pixel comes from, pixels of the reference's crop."""
    shares: NDArray[np.float32]
    """(K + 1, W, W) how much of each is seen; they sum to one."""
    change: NDArray[np.float32]
    """(W, W, 3) what is added to them, of 255."""


class ShotMixer:
    """Paints the mouths of one shot. Each reference is measured and encoded once, when it is first needed.

    Args:
        model: in evaluation mode, on its device.
        half: compute in bfloat16.
        references: R of the shot.
    """

    def __init__(self, model: ReferenceMixer, half: bool, references: Sequence[Reference]) -> None:
        self._model = model
        self._half = half
        self._window = int(model.config["window"])
        self._triangles = torch.from_numpy(mesh()).to(model.device)
        self._references = references
        if references:
            there = np.stack([its.landmarks for its in references])
            self._shapes = mouth_shape(_canonical(there))
        self._known: dict[int, _Known] = {}

    @torch.no_grad()
    def __call__(self, faces: Sequence[Face], own: bool = True) -> list[Mouth]:
        """The mouth of each face.

        Args:
            faces: B frames of the shot.
            own: whether the frames' own pixels may be taken; not when they are the answer, in judging.
        """
        used = np.unique(np.concatenate([face.references for face in faces]))
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._half):
            self._learn([int(number) for number in used if int(number) not in self._known])
            known = [self._known[int(number)] for number in used]
            themselves = self._encoded([_measured_source(face, self._window) for face in faces])
            targets = [_measured_target(face, self._window) for face in faces]
            rows = [*known, *themselves]
            store = _store([*(its.measured for its in rows), *targets]).to(self._model.device)
            features = looked_up(*(torch.stack([its.features[level] for its in rows]) for level in (0, 1)))
            halves = torch.stack([its.half for its in [*rows, *themselves]])
            made = make_examples(features, store, self._triangles, self._drawn(faces, used, own), halves)
            mixture = self._model(made.moved, made.guides)
        corners = store.corners[len(rows) :].tolist()
        windows = [(slice(y, y + self._window), slice(x, x + self._window)) for x, y in corners]
        mixture = _without_traces(mixture, made.moved.pictures)
        parts = (made.sources, enlarged(mixture.fine), _change(mixture, made))
        arrays = (part.float().cpu().numpy() for part in parts)
        return [Mouth(*each) for each in zip(windows, *arrays, strict=True)]

    def _learn(self, numbers: list[int]) -> None:
        measured = []
        for number in numbers:
            picture, landmarks = self._references[number][:2]
            points = np.asarray(landmarks, np.float32)
            measured.append(measure_source(picture, points, points, self._window))
        self._known.update(zip(numbers, self._encoded(measured), strict=True))

    def _encoded(self, measured: list[Measured]) -> "list[_Known]":
        if not measured:
            return []
        cuts = [_window_of(row, self._window) for row in measured]
        parts = (cuts, [row["drawn"] for row in measured], [row["pictures"] for row in measured])
        windows, images, crops = (to_pixels(torch.from_numpy(np.stack(part)).to(self._model.device)) for part in parts)
        levels, halves = self._model.encode(windows, images), halved(crops)
        return [_Known(row, levels[0][n], levels[1][n], halves[n]) for n, row in enumerate(measured)]

    def _drawn(self, faces: Sequence[Face], used: NDArray[np.int64], own: bool) -> Drawn:
        device, count, known = self._model.device, len(faces), len(used)
        numbers = np.stack([np.searchsorted(used, face.references) for face in faces])
        themselves = known + np.arange(count)
        wanted = mouth_shape(np.stack([face.canonical for face in faces]))
        there = mouth_shape(np.stack([face.own_canonical for face in faces]))
        apart = np.linalg.norm(self._shapes[used][numbers] - wanted[:, None], axis=2)
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
        )


class _Known(NamedTuple):
    """A frame that is moved, its features (C0, h, h) and (C1, h / 2, h / 2), and its (3, S / 2, S / 2) half."""

    measured: Measured
    fine: Tensor
    coarse: Tensor
    half: Tensor

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        return self.fine, self.coarse


def _without_traces(mixture: Mixture, pictures: Tensor) -> Mixture:
    """The mixture without shares of details that nobody would see: each costs as much to sample as any other.

    Args:
        pictures: (B, K, 3, h, h) the coarse bands, whose mixture stays as it is.
    """
    kept = mixture.fine * (mixture.fine >= TRACE)
    kept = kept / kept.sum(dim=1, keepdim=True)
    slow = mixture.slow + ((mixture.fine - kept)[:, :, None] * pictures).sum(dim=1)
    return mixture._replace(fine=kept, slow=slow)


def _change(mixture: Mixture, made: Examples) -> Tensor:
    """(B, W, W, 3) what the painted mouth has beside the moved pictures' own pixels, of 255."""
    matching = (mixture.fine[:, :, None] * made.matching).sum(dim=1)
    change = mixture._replace(slow=mixture.slow + matching).change()
    return (change * 127.5).permute(0, 2, 3, 1)


def _canonical(landmarks: Floats) -> Floats:
    return geometry.fit_pose(landmarks).to_canonical(landmarks)


def _measured_source(face: Face, window: int) -> Measured:
    return measure_source(face.crop, face.landmarks, face.resting, window)


def _measured_target(face: Face, window: int) -> Measured:
    return measure_frame(face.crop, face.target, face.resting, face.mask, window, face.index)


def _window_of(row: Measured, window: int) -> NDArray[np.generic]:
    x, y = row["corners"].tolist()
    return row["pictures"][y : y + window, x : x + window]


def _store(rows: Sequence[Measured]) -> FaceStore:
    return FaceStore(**{name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]})
