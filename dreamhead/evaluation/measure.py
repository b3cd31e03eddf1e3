"""Measure a video file: landmarks by the detector run afresh, and pixels next to the source's."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamhead.evaluation.conditions import Take
from dreamhead.evaluation.metrics import (
    colour_step,
    edge_step,
    laplacian_energy,
    luma,
    ssim_map,
    weighted_mean,
    weighted_psnr,
)
from dreamhead.evaluation.source import JudgedSource
from dreamhead.faces import geometry
from dreamhead.faces.crop import apply_transform, extract, pose_mask
from dreamhead.faces.pixel_aspect import from_stored, square_pixels
from dreamhead.media.video import read_frames
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.pipelines.example import mouth_region

Picture = NDArray[np.uint8]
Weight = NDArray[np.float32]


class Pair(NamedTuple):
    """One judged frame, and its aligned crop of S x S pixels where the source's face is."""

    frame: int
    our_frame: Picture
    """(H, W, 3) in square pixels."""
    true_frame: Picture
    """(H, W, 3) in square pixels."""
    ours: Picture
    """(S, S, 3)."""
    truth: Picture
    """(S, S, 3)."""
    ours_mouth: Weight
    """(S, S) the lips' region by our landmarks; the true one where our face wasn't found."""
    true_mouth: Weight
    """(S, S) by the source's landmarks."""
    mask: Weight
    """(S, S) opacity of the dubbed region."""


def measure_landmarks(analyser: VideoAnalyser, take: Take) -> NDArray[np.float32]:
    """(T, 478, 3) landmarks of the largest face, in square pixels; NaN where none is found."""
    times_s = take.info.times_s[take.first : take.first + take.frame_count]
    shots = analyser(take.frames(), 0, times_s, "largest", take.info.pixel_aspect)
    return np.concatenate([shot.landmarks for shot in shots])


def pairs(
    source: JudgedSource, take: Take, landmarks: NDArray[np.float32], judged: NDArray[np.bool_], feather: float
) -> Iterator[Pair]:
    """The judged frames, ours and the original's. `landmarks` (T, 478, 3) are ours, `judged` (T,)."""
    originals = read_frames(source.original, range(source.first, source.first + source.frame_count))
    for number, (ours, truth) in enumerate(zip(take.frames(), originals, strict=True)):
        if judged[number]:
            yield _pair(source, number, ours, truth, landmarks[number], feather)


def _pair(
    source: JudgedSource, number: int, ours: Picture, truth: Picture, landmarks: NDArray[np.float32], feather: float
) -> Pair:
    shot, transform = source.shot_of(number), source.crops[number]
    size, aspect = shot.reference_crops.shape[1], shot.pixel_aspect
    stored = from_stored(transform, aspect)
    own = source.landmarks[number]
    pose = geometry.fit_pose(own[None])
    true_mouth = mouth_region(apply_transform(transform, own), size)
    found = bool(np.isfinite(landmarks).all())
    return Pair(
        frame=number,
        our_frame=square_pixels(ours, aspect),
        true_frame=square_pixels(truth, aspect),
        ours=extract(ours, stored, size),
        truth=extract(truth, stored, size),
        ours_mouth=mouth_region(apply_transform(transform, landmarks), size) if found else true_mouth,
        true_mouth=true_mouth,
        mask=pose_mask(shot.neutral, pose, transform, size, feather),
    )


class PixelMeter:
    """Gathers figures of pixels over the judged frames of one take; give it each pair in order."""

    def __init__(self, has_truth: bool) -> None:
        self._has_truth = has_truth
        self._values: dict[str, list[float]] = {}
        self._before: list[Pair] = []

    def add(self, pair: Pair) -> None:
        """Take one frame."""
        if self._has_truth:
            similarity = ssim_map(pair.ours, pair.truth)
            for region, weight in (("mouth", pair.true_mouth), ("face", pair.mask)):
                self._note(f"{region}_psnr_db", weighted_psnr(pair.ours, pair.truth, weight))
                self._note(f"{region}_ssim", weighted_mean(similarity, weight))
        steps, true_steps = edge_step(pair.ours, pair.mask), edge_step(pair.truth, pair.mask)
        self._note("colour_step", colour_step(steps, true_steps))
        self._note("edge_ours", float(np.linalg.norm(steps, axis=1).mean()))
        self._note("edge_truth", float(np.linalg.norm(true_steps, axis=1).mean()))
        self._note("energy_ours", laplacian_energy(pair.ours, pair.ours_mouth))
        self._note("energy_truth", laplacian_energy(pair.truth, pair.true_mouth))
        self._add_flicker(pair)

    def figures(self) -> dict[str, float]:
        """Means over the frames, and ratios of means."""
        found = {name: float(np.mean(values)) for name, values in self._values.items()}
        ratios = {"seam": "edge", "sharpness": "energy", "flicker": "change"}
        for name, part in ratios.items():
            ours, truth = found.pop(f"{part}_ours", np.nan), found.pop(f"{part}_truth", np.nan)
            found[name] = ours / truth if truth > 0 else np.nan
        return found

    def _add_flicker(self, pair: Pair) -> None:
        self._before = [*self._before[-2:], pair]
        if len(self._before) == 3 and pair.frame - self._before[0].frame == 2:
            self._note("change_ours", _second_change([part.ours for part in self._before], self._before[1].ours_mouth))
            self._note(
                "change_truth", _second_change([part.truth for part in self._before], self._before[1].true_mouth)
            )

    def _note(self, name: str, value: float) -> None:
        if np.isfinite(value):
            self._values.setdefault(name, []).append(value)


def _second_change(pictures: Sequence[Picture], weight: Weight) -> float:
    before, now, after = (luma(picture) for picture in pictures)
    return weighted_mean(np.abs(before - 2 * now + after), weight)
