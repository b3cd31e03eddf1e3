"""Walk a video's frames once: shots, the chosen face of each frame, its crop, its resting shape, references."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.config import AnalysisSettings, WeightsSettings
from dreamhead.faces import geometry
from dreamhead.faces.compositing import frame_box
from dreamhead.faces.crop import (
    apply_transform,
    crop_transforms,
    extract,
    lower_face_outline,
    runs,
    smooth_transforms,
)
from dreamhead.faces.detection import FaceDetector
from dreamhead.faces.overlay import OverlayFinder
from dreamhead.faces.pixel_aspect import from_stored, square_pixels, to_stored
from dreamhead.faces.reference import KeptFrame, ReferenceKeeper, mouth_shape, reference_arrays
from dreamhead.faces.tracking import FaceChoice, FaceTracker
from dreamhead.media.shots import ShotDetector
from dreamhead.records import Route, ShotAnalysis

# From brow to chin in canonical units; faces are judged by it since it doesn't change with a turn of the head.
BROW_TO_CHIN = 2.2
LEAST_ARTICULATION_S = 2.0
MARGIN = 0.06
"""Kept around a reference's lower face, as a share of the crop's side: what is moved may come from there."""

Picture = NDArray[np.uint8]


class VideoAnalyser:
    """Holds the face detector; call it on a stretch of frames."""

    def __init__(self, settings: AnalysisSettings, weights: WeightsSettings) -> None:
        self._settings = settings
        self._detector = FaceDetector(pretrained.face_landmarker(weights.face_landmarker))

    def close(self) -> None:
        """Free the detector."""
        self._detector.close()

    def __call__(
        self,
        frames: Iterable[Picture],
        first: int,
        times_s: NDArray[np.float64],
        face: str,
        pixel_aspect: float = 1.0,
    ) -> Iterator[ShotAnalysis]:
        """Yield the analysis of each shot as it ends. Holds no frame but the current one, and the references.

        Args:
            frames: T frames (H, W, 3) RGB, upright, of pixels as stored.
            first: number of the first of them in the video.
            times_s: (T,) seconds of each frame from the start of the video.
            face: which face; see `FaceChoice.parse`.
            pixel_aspect: width of the frames' pixels over their height.

        Raises:
            InputError: `face` can't be read, or nobody is where it says.
        """
        tracker = FaceTracker(self._detector, FaceChoice.parse(face), times_s)
        rate = 1 / float(np.median(np.diff(times_s))) if len(times_s) > 1 else 25.0
        cuts = ShotDetector(self._settings.shot_threshold, rate)
        shot = _Shot(first, self._settings, rate, pixel_aspect)
        for number, (frame, time_s) in enumerate(zip(frames, times_s, strict=True), start=first):
            if cuts.is_cut(frame) and number > shot.start:
                yield shot.finish()
                shot = _Shot(number, self._settings, rate, pixel_aspect)
                tracker.start_shot()
            shot.add(frame, tracker(square_pixels(frame, pixel_aspect), float(time_s)))
        tracker.finish()
        yield shot.finish()


class _Shot:
    """Gathers one shot frame by frame; of each it keeps the landmarks, which are the analysis, and a few numbers."""

    def __init__(self, start: int, settings: AnalysisSettings, rate: float, pixel_aspect: float) -> None:
        self.start = start
        self._pixel_aspect = pixel_aspect
        self._settings = settings
        self._rate = rate
        self._landmarks: list[NDArray[np.float32]] = []
        self._poses: list[geometry.Pose] = []
        self._openings: list[float] = []
        self._routes: list[Route] = []
        self._keeper = ReferenceKeeper(settings.reference_frames, settings.reference_mb << 20)
        self._overlays = OverlayFinder(rate)

    def add(self, frame: Picture, landmarks: NDArray[np.float32] | None) -> None:
        number = self.start + len(self._routes)
        if landmarks is None:
            landmarks = np.full((478, 3), np.nan, np.float32)
        self._overlays.add(number, frame, to_stored(landmarks, self._pixel_aspect))
        pose = geometry.fit_pose(landmarks[None])
        canonical = pose.to_canonical(landmarks[None])
        self._landmarks.append(landmarks)
        self._poses.append(pose)
        self._openings.append(float(geometry.lip_opening(canonical)[0]))
        self._routes.append(self._route(pose))
        shape = mouth_shape(canonical)[0]
        if self._routes[-1] == Route.DUB and self._keeper.wants(shape):
            self._keeper.keep(shape, self._kept(number, frame, landmarks, pose, canonical[0]))

    def _kept(
        self,
        number: int,
        frame: Picture,
        landmarks: NDArray[np.float32],
        pose: geometry.Pose,
        canonical: NDArray[np.floating[Any]],
    ) -> KeptFrame:
        size = self._settings.crop_size
        transform = crop_transforms(pose, size)[0]
        stored = from_stored(transform, self._pixel_aspect)
        outline = apply_transform(transform, pose.to_pixels(lower_face_outline(canonical)[None])[0])[:, :2]
        ends = np.concatenate([outline.min(axis=0) - MARGIN * size, outline.max(axis=0) + MARGIN * size])
        box = frame_box(ends, stored, frame.shape[1::-1]) or (0, 0, 1, 1)
        left, top, right, bottom = box
        return KeptFrame(
            number=number,
            crop=extract(frame, stored, size),
            landmarks=apply_transform(transform, landmarks),
            transform=stored,
            box=box,
            pixels=frame[top:bottom, left:right].copy(),
        )

    def finish(self) -> ShotAnalysis:
        settings = self._settings
        routes, opening = np.array(self._routes, np.uint8), np.array(self._openings)
        landmarks = np.stack(self._landmarks)
        # A shot may be minutes long: canonical faces of all its frames would be the most that this process holds.
        self._landmarks.clear()
        pose = geometry.Pose(*(np.concatenate(part) for part in zip(*self._poses, strict=True)))
        transforms = crop_transforms(pose, settings.crop_size)
        usable = routes == Route.DUB
        overlay_spans, overlay_pixels = self._overlays.finish()
        return ShotAnalysis(
            start=self.start,
            stop=self.start + len(landmarks),
            landmarks=landmarks,
            routes=_without_glimpses(routes, self._rate),
            neutral=_neutral(landmarks, pose, usable, opening),
            articulation=_articulation(opening[usable], self._rate),
            crops=smooth_transforms(transforms, settings.crop_smoothing_s * self._rate, settings.crop_size),
            **reference_arrays(self._keeper.frames, settings.crop_size),
            pixel_aspect=self._pixel_aspect,
            overlay_spans=overlay_spans,
            overlay_pixels=overlay_pixels,
        )

    def _route(self, pose: geometry.Pose) -> Route:
        settings = self._settings
        if np.isnan(pose.scale[0]):
            return Route.NO_FACE
        if BROW_TO_CHIN / float(pose.scale[0]) < settings.min_face_px:
            return Route.FACE_TOO_SMALL
        if abs(pose.yaw_deg()[0]) > settings.max_yaw_deg or abs(pose.pitch_deg()[0]) > settings.max_pitch_deg:
            return Route.TURNED_AWAY
        return Route.DUB


def _neutral(
    landmarks: NDArray[np.float32], pose: geometry.Pose, usable: NDArray[np.bool_], opening: NDArray[np.float64]
) -> NDArray[np.float32]:
    if not usable.any():
        return np.full((478, 3), np.nan, np.float32)
    shut = np.flatnonzero(usable)[geometry.most_shut(opening[usable])]
    return geometry.resting_face(geometry.Pose(*(part[shut] for part in pose)).to_canonical(landmarks[shut]))


def _articulation(opening: NDArray[np.float64], rate: float) -> float:
    return geometry.articulation(opening) if len(opening) >= LEAST_ARTICULATION_S * rate else math.nan


def _without_glimpses(routes: NDArray[np.uint8], rate: float) -> NDArray[np.uint8]:
    """A face seen for less than a fifth of a second in a longer shot passes through: dubbing it would only flash."""
    kept: NDArray[np.uint8] = routes.copy()
    for start, stop in runs(routes == Route.DUB):
        if stop - start < round(rate / 5) and len(routes) > stop - start:
            kept[start:stop] = Route.NO_FACE
    return kept
