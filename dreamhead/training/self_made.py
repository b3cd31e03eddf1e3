"""Pairs that the renderer makes itself: a real frame, and the same frame with its mouth moved to another one's.

When dubbing, the frame itself is at hand, in the right pose and light, but its mouth says something else. X-Dub and
FlashLips train on such pairs. Ours are moved by the warp, which hides teeth where lips shut, and tears lips apart.
"""

import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import geometry, topology
from dreamhead.faces.landmark_image import draw
from dreamhead.faces.mouth_window import window_corner
from dreamhead.faces.warp import displacement, warp
from dreamhead.training.face_store import resting_face
from dreamhead.training.image_stage import Face


def with_mouth_of(face: Face, frame: int, other: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The (S, S, 3) crop of a frame with the lower face of another one of its clip, and (478, 3) its landmarks."""
    own, theirs = (face.landmarks[number][None] for number in (frame, other))
    pose = geometry.fit_pose(own)
    canonical, wanted = pose.to_canonical(own), geometry.fit_pose(theirs).to_canonical(theirs)
    points, share = topology.lower_face(), topology.lower_face_weight()[:, None]
    canonical[0, points] += share * (wanted[0, points] - canonical[0, points])
    landmarks = np.asarray(pose.to_pixels(canonical)[0], np.float32)
    picture = face.clip.crop(frame)
    return warp(picture, displacement(face.landmarks[frame], landmarks, len(picture))), landmarks


def drawn_window(face: Face, frame: int, landmarks: NDArray[np.float32], window: int) -> NDArray[np.uint8]:
    """(W, W, 3) landmark image in a frame's window."""
    size = face.clip.crop_size
    x, y = window_corner(resting_face(face, frame), size, window)
    return draw(landmarks, size)[y : y + window, x : x + window]
