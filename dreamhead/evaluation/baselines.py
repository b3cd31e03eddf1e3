"""Frames made from the source's own landmarks: painted by the network, and by the trivial alternatives."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import RenderSettings
from dreamhead.evaluation.source import JudgedSource
from dreamhead.faces import geometry, topology
from dreamhead.faces.compositing import Layer, composite
from dreamhead.faces.crop import extract, match_colour, pose_mask
from dreamhead.faces.pixel_aspect import from_stored
from dreamhead.faces.reference import choose_references, patch
from dreamhead.models.latent_denoiser import LatentDenoiser
from dreamhead.pipelines.landmarks_to_frames import LandmarksToFrames
from dreamhead.records import ShotAnalysis

Picture = NDArray[np.uint8]
Way = Literal["painted", "merged", "warp", "copy"]
MERGED = 3
"""References of the `merged` way: what the first guess of a dub is made of unless settings say otherwise."""


class TrueLandmarks:
    """Frames whose target landmarks are the source's own, and whose mouth comes from a reference some time away.

    `painted` is the network's, `warp` the nearest reference alone, moved along the landmarks, `merged` the three
    nearest so moved and merged, `copy` the nearest as it is.
    Skin is the reference's too: were it the frame's own, the answer would be given away.
    """

    def __init__(self, checkpoint: Checkpoint, settings: RenderSettings, device: torch.device) -> None:
        self._model: LatentDenoiser = checkpoint.latent_denoiser(device)
        self._autoencoder: nn.Module = checkpoint.autoencoder(device)
        self._settings = settings
        self._mixer = checkpoint.reference_mixer(device) if settings.renderer == "mixer" else None
        self._size = checkpoint.config.crop_size

    def __call__(self, way: Way, source: JudgedSource, frames: Iterable[Picture], apart_s: float) -> Iterator[Picture]:
        """One frame out for each of the source's frames (H, W, 3), in order; those that aren't dubbed as they are."""
        apart = round(apart_s * float(source.info.average_rate))
        rows = iter(frames)
        for shot in source.shots:
            numbers = range(shot.start, shot.stop)
            own = (next(rows) for _ in numbers)
            strength = source.strength[shot.start : shot.stop]
            if not len(shot.reference_frames):
                yield from own
            elif way == "copy":
                yield from self._copy(own, shot, strength, apart)
            else:
                yield from self._pipeline(way, apart)(own, numbers, strength, shot, own_targets(shot), seed=0)

    def _pipeline(self, way: Way, apart: int) -> LandmarksToFrames:
        changes: dict[str, Any] = {"renderer": "diffusion" if self._mixer is None else "mixer"}
        if way == "warp" or way == "merged":
            changes = {"renderer": "warp", "references": 1 if way == "warp" else MERGED}
        settings = self._settings.model_copy(update={"skin": "reference", **changes})
        mixer = self._mixer if way == "painted" else None
        return LandmarksToFrames(self._model, self._autoencoder, settings, self._size, apart, mixer)

    def _copy(
        self, frames: Iterator[Picture], shot: ShotAnalysis, strength: NDArray[np.float32], apart: int
    ) -> Iterator[Picture]:
        numbers = np.arange(shot.start, shot.stop, dtype=np.int64)
        nearest = choose_references(shot, own_targets(shot), frames=numbers, apart=apart)[:, 0]
        for number, (frame, share, reference) in enumerate(zip(frames, strength, nearest, strict=True)):
            yield self._pasted(frame, shot, number, int(reference), float(share)) if share > 0 else frame

    def _pasted(self, frame: Picture, shot: ShotAnalysis, number: int, reference: int, share: float) -> Picture:
        transform, stored = shot.crops[number], from_stored(shot.crops[number], shot.pixel_aspect)
        pose = geometry.fit_pose(shot.landmarks[number][None])
        mask = pose_mask(shot.neutral, pose, transform, self._size, self._settings.feather)
        there = shot.reference_crops[reference]
        change = match_colour(there, extract(frame, stored, self._size), mask) - there
        columns, rows = np.meshgrid(*2 * [np.arange(self._size, dtype=np.float32)])
        still = np.stack([columns, rows], axis=-1)
        layer = Layer(*patch(shot, reference), (0, 0), still, np.ones_like(mask))
        return composite(frame, [layer], change, mask * np.float32(share), stored)


def own_targets(shot: ShotAnalysis) -> NDArray[np.float32]:
    """(T, K, 3) canonical lower faces of the shot itself; the resting one where there is no face."""
    canonical: NDArray[np.floating[Any]] = geometry.fit_pose(shot.landmarks).to_canonical(shot.landmarks)
    known = np.isfinite(canonical[:, :1, :1])
    return np.asarray(np.where(known, canonical, shot.neutral)[:, topology.lower_face()], np.float32)
