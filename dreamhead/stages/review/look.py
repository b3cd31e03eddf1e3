"""Look at a stretch of a dub: find its face afresh, and compare lips and pixels with what was wanted and the source."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamhead.evaluation import metrics
from dreamhead.evaluation.pictures import Shown
from dreamhead.faces import geometry, topology
from dreamhead.faces.crop import apply_transform, extract, pose_mask
from dreamhead.faces.pixel_aspect import from_stored, square_pixels
from dreamhead.media.video import read_frames
from dreamhead.pipelines.example import mouth_region
from dreamhead.records import ShotAnalysis, VideoInfo
from dreamhead.stages.review.sample import Stretch
from dreamhead.stages.source import Source

if TYPE_CHECKING:
    from dreamhead.faces.detection import FaceDetector

Floats = NDArray[np.floating[Any]]
Picture = NDArray[np.uint8]


class Pixels(NamedTuple):
    """What the pixels of one frame say."""

    shown: Shown
    """The aligned crops of the source's frame and of ours."""
    colour_step: float
    """Levels of 255 by which the change of colour across the mask's edge differs from the source's."""
    edge: float
    """Mean length of that change on our crop."""
    true_edge: float
    """The same on the source's."""
    detail: float
    """Fine detail of our mouth, see `metrics.laplacian_energy`."""
    true_detail: float
    """The same of the source's mouth."""
    untouched_db: float
    """PSNR, in dB, against the source's crop where nothing was painted."""


class Look(NamedTuple):
    """What one stretch of T frames shows. Faces are in the canonical pose, in units of eye distance."""

    start: int
    """First frame, on the output's timeline."""
    times_s: NDArray[np.float64]
    """(T,) seconds from the output's start."""
    ours: Floats
    """(T, 478, 3) the face found in the output; NaN where none was."""
    wanted: Floats
    """(T, 478, 3) the face that was to be painted."""
    source: Floats
    """(T, 478, 3) the source's own."""
    pixels: list[Pixels]
    """Of some of the frames, in order."""


def look_at(
    stretch: Stretch,
    source: Source,
    output: VideoInfo,
    shot: ShotAnalysis,
    targets: NDArray[np.float32],
    detector: "FaceDetector",
    *,
    every: int,
    feather: float,
) -> Look:
    """Decode a stretch of the output, and the source's frames that it shows.

    Args:
        shot: of the stretch.
        targets: (T_chunk, K, 3) canonical lower faces of the stretch's chunk.
        every: pixels are looked at in one of so many frames.
        feather: see `pose_mask`.
    """
    frames = np.arange(stretch.start, stretch.stop)
    shown = source.timeline.source[frames] - shot.start
    landmarks = shot.landmarks[shown]
    found = np.full(landmarks.shape, np.nan, np.float32)
    pixels: list[Pixels] = []
    for number, (ours, truth) in enumerate(_pictures(stretch, source, output)):
        face = detector.follow(square_pixels(ours, shot.pixel_aspect), landmarks[number])
        if face is not None:
            found[number] = face
        if number % every == 0:
            pixels.append(_pixels(int(frames[number]), ours, truth, found[number], shot, int(shown[number]), feather))
    own = geometry.fit_pose(landmarks).to_canonical(landmarks)
    return Look(
        start=stretch.start,
        times_s=source.timeline.times_s[frames],
        ours=geometry.fit_pose(found).to_canonical(found),
        wanted=wanted_faces(own, targets[frames - stretch.chunk.start]),
        source=own,
        pixels=pixels,
    )


def _pictures(stretch: Stretch, source: Source, output: VideoInfo) -> Iterator[tuple[Picture, Picture]]:
    numbers = range(stretch.start, stretch.stop)
    originals = read_frames(source.video, source.timeline.source[stretch.start : stretch.stop].tolist())
    return zip(read_frames(output, numbers), originals, strict=True)


def wanted_faces(own: Floats, targets: Floats) -> Floats:
    """(T, 478, 3) the source's faces with the (T, K, 3) lower faces that the renderer was given, as it uses them."""
    points = topology.lower_face()
    wanted: Floats = own.copy()
    wanted[:, points] += topology.lower_face_weight()[:, None] * (targets - wanted[:, points])
    return wanted


def _pixels(
    frame: int, ours: Picture, truth: Picture, found: Floats, shot: ShotAnalysis, number: int, feather: float
) -> Pixels:
    size, transform, own = shot.reference_crops.shape[1], shot.crops[number], shot.landmarks[number]
    stored = from_stored(transform, shot.pixel_aspect)
    our_crop, true_crop = extract(ours, stored, size), extract(truth, stored, size)
    mask = pose_mask(shot.neutral, geometry.fit_pose(own[None]), transform, size, feather)
    true_mouth = mouth_region(apply_transform(transform, own), size)
    is_found = bool(np.isfinite(found).all())
    our_mouth = mouth_region(apply_transform(transform, found), size) if is_found else true_mouth
    outside = (mask <= 0).astype(np.float32)
    steps, true_steps = metrics.edge_step(our_crop, mask), metrics.edge_step(true_crop, mask)
    return Pixels(
        shown=Shown(frame, true_crop, our_crop),
        colour_step=metrics.colour_step(steps, true_steps),
        edge=_mean_length(steps),
        true_edge=_mean_length(true_steps),
        detail=metrics.laplacian_energy(our_crop, our_mouth),
        true_detail=metrics.laplacian_energy(true_crop, true_mouth),
        untouched_db=metrics.weighted_psnr(our_crop, true_crop, outside) if outside.any() else float("nan"),
    )


def _mean_length(steps: Floats) -> float:
    return float(np.linalg.norm(steps, axis=1).mean()) if len(steps) else float("nan")
