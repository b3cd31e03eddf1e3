"""The aligned crop of the lower face: cut it out, mask it by pose alone, match its colours."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology
from dreamhead.faces.geometry import Pose

# The crop in canonical units: from above the eyes to below a wide open jaw.
CROP_WIDTH = 2.8
CROP_CENTER = (0.0, 0.85, -0.12)
# The chin drops by up to this much when the mouth opens wide; the mask leaves room for it whatever the mouth does.
JAW_DROP = 0.3

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8] | NDArray[np.float32]


def crop_transforms(pose: Pose, size: int) -> NDArray[np.float64]:
    """(T, 2, 3) similarities from square pixels of the frame to pixels of the crop; NaN where the pose is."""
    center = pose.to_pixels(np.broadcast_to(np.array(CROP_CENTER), (len(pose.scale), 1, 3)))[:, 0, :2]
    # The in-plane part of the rotation: the 2-D rotation nearest to its upper left block.
    angle = np.arctan2(pose.rotation[:, 1, 0] - pose.rotation[:, 0, 1], pose.rotation[:, 0, 0] + pose.rotation[:, 1, 1])
    return _build(np.concatenate([np.log(pose.scale)[:, None], angle[:, None], center], axis=1), size)


def smooth_transforms(transforms: NDArray[np.float64], sigma: float, size: int) -> NDArray[np.float32]:
    """Smooth (T, 2, 3) transforms over time inside each run without gaps.

    Args:
        sigma: standard deviation of the Gaussian, in frames.
    """
    parameters = _parameters(transforms, size)
    for start, stop in runs(~np.isnan(parameters[:, 0])):
        parameters[start:stop] = _smooth(parameters[start:stop], sigma)
    return _build(parameters, size).astype(np.float32)


def runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(start, stop) of each stretch of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def apply_transform(transform: Floats, points: Floats) -> NDArray[np.float32]:
    """(K, 2 or 3) points in square pixels of the frame to pixels of the crop, by a similarity; z is scaled alike."""
    moved = np.array(points, np.float32)
    moved[:, :2] = points[:, :2] @ transform[:, :2].T + transform[:, 2]
    if points.shape[1] == 3:
        moved[:, 2] = points[:, 2] * np.hypot(*transform[:, 0])
    return moved


def extract(frame: NDArray[np.uint8], transform: Floats, size: int) -> NDArray[np.uint8]:
    """The (S, S, 3) crop of an (H, W, 3) frame; a large face is shrunk without aliasing.

    Args:
        transform: (2, 3) from the frame's own pixels, see `from_stored`.
    """
    # How many of the frame's pixels lie along a side of the crop's; both sides see as many where pixels are square.
    factors = np.clip(np.floor(_strides(transform)), 1, 8).astype(int)
    enlarged = transform.astype(np.float64) * factors[:, None]
    # Pixel centres, not corners, must coincide after the block average.
    enlarged[:, 2] += (factors - 1) / 2
    shape = (int(factors[0]) * size, int(factors[1]) * size)
    crop = cv2.warpAffine(frame, enlarged, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if shape != (size, size):
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, np.uint8)


def _strides(transform: Floats) -> NDArray[np.float64]:
    """(2,) lengths, in pixels of the frame, of a step along the crop's rows and of one along its columns."""
    linear = transform[:, :2].astype(np.float64)
    # The columns of the inverse, without their signs.
    lengths = np.hypot(linear[::-1, 1], linear[::-1, 0])
    strides: NDArray[np.float64] = lengths / abs(linear[0, 0] * linear[1, 1] - linear[0, 1] * linear[1, 0])
    return strides


def pose_mask(neutral: Floats, pose: Pose, transform: Floats, size: int, feather: float) -> NDArray[np.float32]:
    """(S, S) opacity of the dubbed lower face, 0 to 1, soft at the edge.

    Its shape comes from the speaker's resting face and this frame's pose only: were it to follow the mouth, it would
    tell the network what to paint.

    Args:
        neutral: (478, 3) canonical resting face.
        pose: of one frame.
        transform: (2, 3) of the crop, a similarity.
        feather: width of the soft edge as a share of the crop's side.
    """
    outline = pose.to_pixels(lower_face_outline(neutral)[None])[0]
    corners = apply_transform(transform, outline[:, :2])
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(cv2.convexHull(corners) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return _soften(mask, feather * size)


def lower_face_outline(neutral: Floats) -> Floats:
    """(N, 3) canonical points around the lower face: the jaw let down, and a line under the nose.

    Args:
        neutral: (478, 3) canonical face.
    """
    jaw = neutral[list(topology.JAW)].copy()
    jaw = jaw[jaw[:, 1] > neutral[topology.NOSE_BRIDGE[5], 1]]
    depth = np.clip((jaw[:, 1] - 1.0) / 0.85, 0, 1)
    jaw[:, 1] += JAW_DROP * depth**2
    nose = neutral[list(topology.NOSE_BASE)] + [0, 0.02, 0]
    outline: Floats = np.concatenate([jaw, nose])
    return outline


def match_colour(painted: Pixels, target: Pixels, opacity: NDArray[np.float32]) -> NDArray[np.float32]:
    """`painted` with slow changes of colour added so that it meets `target` along the mask's edge.

    Args:
        painted: (S, S, 3), 0 to 255.
        target: (S, S, 3) what surrounds it.
        opacity: (S, S) from `pose_mask`.
    """
    size = painted.shape[0]
    ring = ((opacity > 0) & (opacity < 0.9)).astype(np.float32)
    difference = ring[..., None] * (target.astype(np.float32) - painted)
    # What is blurred this much needs no more than a quarter of the pixels.
    known = cv2.resize(np.dstack([difference, ring]), (size // 4, size // 4), interpolation=cv2.INTER_AREA)
    known = cv2.GaussianBlur(known, (0, 0), size / 48)
    # Far from the edge nothing is known of the difference, and nothing is changed.
    change = cv2.resize(known[..., :3] / (known[..., 3:] + 0.05), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(painted + change, np.float32)


def _soften(mask: NDArray[np.uint8], width: float) -> NDArray[np.float32]:
    """Opacity that rises from 0 at the mask's edge to 1 `width` pixels inside; never beyond the mask."""
    inside = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    share = np.clip(inside / max(width, 1.0), 0, 1)
    # The networks paint the lower three quarters of the crop; a head thrown back must not reach above them.
    share[: mask.shape[0] // 4] = 0
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def _build(parameters: Floats, size: int) -> NDArray[np.float64]:
    """(T, 4) log canonical units per pixel, angle, centre -> (T, 2, 3)."""
    scale = np.exp(parameters[:, 0]) * size / CROP_WIDTH
    cos, sin = scale * np.cos(parameters[:, 1]), scale * np.sin(parameters[:, 1])
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], axis=1)
    offset = size / 2 - np.einsum("tij,tj->ti", linear, parameters[:, 2:])
    return np.concatenate([linear, offset[..., None]], axis=2)


def _parameters(transforms: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The inverse of `_build`."""
    linear = transforms[:, :, :2]
    scale = np.hypot(linear[:, 0, 0], linear[:, 1, 0])
    angle = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    known = ~np.isnan(scale)
    center = np.full((len(scale), 2), np.nan)
    center[known] = np.linalg.solve(linear[known], (size / 2 - transforms[known, :, 2])[..., None])[..., 0]
    return np.concatenate([np.log(scale * CROP_WIDTH / size)[:, None], angle[:, None], center], axis=1)


def _smooth(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    if sigma <= 0 or len(values) < 2:
        return values
    values[:, 1] = np.unwrap(values[:, 1])
    smoothed = cv2.GaussianBlur(
        values, (1, 2 * round(3 * sigma) + 1), sigmaX=1, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE
    )
    return np.asarray(smoothed, np.float64)
