"""Where one frame's face is, where its landmarks shall go, and what it shows without what is burnt in."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import geometry, topology
from dreamhead.faces.crop import apply_transform
from dreamhead.faces.geometry import Pose
from dreamhead.faces.overlay import overlay_mask, with_overlay, without_overlay
from dreamhead.faces.pixel_aspect import from_stored
from dreamhead.faces.reference import patch
from dreamhead.records import ShotAnalysis

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Place:
    """Where one frame's face is, and where its landmarks shall go, in pixels of the crop."""

    pose: Pose
    transform: NDArray[np.float32]
    """(2, 3) from square pixels to the crop."""
    stored: Floats
    """(2, 3) from the frame's own pixels to the crop."""
    landmarks: NDArray[np.float32]
    target: NDArray[np.float32]
    canonical: NDArray[np.float32]
    """(478, 3) the wanted face."""
    own_canonical: NDArray[np.float32]
    """(478, 3) the frame's own."""

    @classmethod
    def of(cls, shot: ShotAnalysis, frame: int, strength: float, lower: Floats, size: int) -> "Place":
        """Of the source's frame with this number.

        Args:
            strength: how far the mouth has gone from the source's to the wanted one.
            lower: (K, 3) wanted canonical lower face.
            size: side of the crop.
        """
        landmarks, transform = shot.landmarks[frame - shot.start], shot.crops[frame - shot.start]
        pose = geometry.fit_pose(landmarks[None])
        canonical = pose.to_canonical(landmarks[None])
        own, points = canonical[0].copy(), topology.lower_face()
        # A mouth on its way in or out has gone only part of the way from the source's.
        share = strength * topology.lower_face_weight()[:, None]
        canonical[0, points] += share * (lower - canonical[0, points])
        target = pose.to_pixels(canonical)[0]
        now, then = (apply_transform(transform, points) for points in (landmarks, target))
        stored = from_stored(transform, shot.pixel_aspect)
        return cls(pose, transform, stored, now, then, canonical[0], own)


class Bared(NamedTuple):
    """A frame, and what it shows without what is burnt in over the lower face."""

    whole: Picture
    clean: Picture
    overlay: Picture | None

    @classmethod
    def of(cls, frame: Picture, number: int, shot: ShotAnalysis) -> "Bared":
        """Of the (H, W, 3) frame with this number."""
        overlay = overlay_mask(shot.overlay_spans, shot.overlay_pixels, int(number), frame.shape[:2])
        # The skin around it is moved: letters would be moved along, and seen beside those that are kept.
        return cls(frame, frame if overlay is None else without_overlay(frame, overlay), overlay)

    def covered(self, painted: Picture) -> Picture:
        """The painted frame with what was burnt in where it was."""
        return painted if self.overlay is None else with_overlay(painted, self.whole, self.overlay)


def with_bare_references(shot: ShotAnalysis) -> ShotAnalysis:
    """The shot with what is burnt in taken off its references: letters over a mouth would move with it."""
    if not len(shot.overlay_pixels):
        return shot
    crops, pixels = shot.reference_crops.copy(), shot.reference_pixels.copy()
    bared = replace(shot, reference_crops=crops, reference_pixels=pixels)
    # Large enough for all that is burnt in, and for all that is kept.
    reach = np.maximum(shot.overlay_pixels.max(axis=0) + 1, shot.reference_boxes[:, 2:].max(axis=0, initial=0))
    for place, number in enumerate(shot.reference_frames.tolist()):
        overlay = overlay_mask(shot.overlay_spans, shot.overlay_pixels, number, (int(reach[1]), int(reach[0])))
        if overlay is None:
            continue
        left, top, right, bottom = shot.reference_boxes[place].tolist()
        _bare(patch(bared, place).pixels, overlay[top:bottom, left:right])
        transform = shot.reference_crop_transforms[place]
        _bare(crops[place], cv2.warpAffine(overlay, transform, crops[place].shape[1::-1], flags=cv2.INTER_LINEAR))
    return bared


def _bare(picture: Picture, hidden: NDArray[Any]) -> None:
    if hidden.any():
        picture[:] = without_overlay(picture, np.where(hidden > 0, np.uint8(255), np.uint8(0)))
