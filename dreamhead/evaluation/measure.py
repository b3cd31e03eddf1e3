"""Measure a video file: landmarks by the detector run afresh, and pixels next to the source's."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamhead.evaluation.conditions import Take
from dreamhead.evaluation.metrics import (
    colour_step,
    edge_step,
    fine_detail,
    ssim_map,
    unexplained_change,
    weighted_mean,
    weighted_psnr,
)
from dreamhead.evaluation.source import JudgedSource
from dreamhead.faces import geometry, topology
from dreamhead.faces.crop import apply_transform, extract, pose_mask
from dreamhead.faces.pixel_aspect import from_stored, square_pixels, to_stored
from dreamhead.media.video import read_frames
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.pipelines.example import mouth_region

Picture = NDArray[np.uint8]
Weight = NDArray[np.float32]


MOUTH_SHARE = 0.5
"""Side of the window around the mouth, as a share of the crop's."""
CLOSE_SHARE = 1.5
"""Side of the close-up, as a multiple of the mouth's longer side."""


class CloseUp(NamedTuple):
    """The mouth at the frame's own resolution, in pixels as they are stored."""

    picture: Picture
    """(h, w, 3)."""
    mouth: Weight
    """(h, w) the lips and what is between them."""


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
    ours_close: CloseUp
    """By our landmarks; by the true ones where our face wasn't found."""
    true_close: CloseUp
    """By the source's landmarks."""
    begins: bool
    """Whether a shot begins with this frame."""


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
        ours_close=close_up(ours, to_stored(landmarks if found else own, aspect)),
        true_close=close_up(truth, to_stored(own, aspect)),
        begins=number == shot.start,
    )


def close_up(frame: Picture, landmarks: NDArray[np.float32]) -> CloseUp:
    """The mouth of (478, 3) landmarks, in the frame's own pixels, cut out of an (H, W, 3) frame."""
    outline = landmarks[list(topology.OUTER_LOWER_LIP + topology.OUTER_UPPER_LIP), :2]
    low, high = outline.min(axis=0), outline.max(axis=0)
    side = max(1, int(np.ceil(CLOSE_SHARE * (high - low).max())))
    left, top = np.floor((low + high - side) / 2).astype(int)
    mouth = mouth_region(landmarks[:, :2] - np.array([left, top], np.float32), side)
    # A mouth that reaches over the frame's edge is seen as far as it goes.
    height, width = frame.shape[:2]
    rows, columns = (
        slice(min(max(0, first), limit), max(0, min(first + side, limit)))
        for first, limit in ((int(top), height), (int(left), width))
    )
    return CloseUp(
        frame[rows, columns], mouth[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    )


def mouth_window(mouth: Weight) -> tuple[slice, slice]:
    """Rows and columns of a square around an (S, S) mouth: MOUTH_SHARE of the crop's side, and inside it."""
    size = len(mouth)
    side = max(1, round(MOUTH_SHARE * size))
    total = max(float(mouth.sum()), 1e-6)
    places = np.arange(size, dtype=np.float32)
    middles = (float(mouth.sum(axis=1 - axis) @ places) / total for axis in (0, 1))
    firsts = (int(np.clip(round(middle - side / 2), 0, size - side)) for middle in middles)
    rows, columns = (slice(first, first + side) for first in firsts)
    return rows, columns


class PixelMeter:
    """Gathers figures of pixels over the judged frames of one take; give it each pair in order."""

    def __init__(self, has_truth: bool) -> None:
        self._has_truth = has_truth
        self._values: dict[str, list[float]] = {}
        self._before: Pair | None = None

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
        self._note("detail_ours", fine_detail(*pair.ours_close))
        self._note("detail_truth", fine_detail(*pair.true_close))
        self._add_flicker(pair)

    def figures(self) -> dict[str, float]:
        """Means over the frames, and ratios of means."""
        found = {name: float(np.mean(values)) for name, values in self._values.items()}
        ratios = {"seam": "edge", "sharpness": "detail", "flicker": "change"}
        for name, part in ratios.items():
            ours, truth = found.pop(f"{part}_ours", np.nan), found.pop(f"{part}_truth", np.nan)
            found[name] = ours / truth if truth > 0 else np.nan
        return found

    def _add_flicker(self, pair: Pair) -> None:
        before, self._before = self._before, pair
        if before is None or pair.begins or pair.frame - before.frame != 1:
            return
        rows, columns = window = mouth_window(pair.true_mouth)
        for name, first, second, mouth in (
            ("change_ours", before.ours, pair.ours, pair.ours_mouth),
            ("change_truth", before.truth, pair.truth, pair.true_mouth),
        ):
            self._note(name, unexplained_change(first[rows, columns], second[rows, columns], mouth[window]))

    def _note(self, name: str, value: float) -> None:
        if np.isfinite(value):
            self._values.setdefault(name, []).append(value)
