"""Canonical pose: similarity transforms between a face in a picture and the mean face.

Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (PAMI 1991), batched.
Shapes: T frames, K landmarks.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology

Floats = NDArray[np.floating[Any]]


class Pose(NamedTuple):
    """Similarity from pixels of the frame to canonical units: canonical = scale * rotation @ pixels + translation."""

    scale: Floats
    """(T,) canonical units per pixel."""
    rotation: Floats
    """(T, 3, 3)."""
    translation: Floats
    """(T, 3) canonical units."""

    def to_canonical(self, points: Floats) -> Floats:
        """(T, K, 3) pixels to (T, K, 3) canonical units."""
        turned = np.einsum("tij,tkj->tki", self.rotation, points)
        moved: Floats = self.scale[:, None, None] * turned + self.translation[:, None]
        return moved

    def to_pixels(self, points: Floats) -> Floats:
        """(T, K, 3) canonical units to (T, K, 3) pixels: the exact inverse."""
        offset = (points - self.translation[:, None]) / self.scale[:, None, None]
        turned: Floats = np.einsum("tji,tkj->tki", self.rotation, offset)
        return turned

    def yaw_deg(self) -> Floats:
        """(T,) turn to the side, degrees."""
        yaw: Floats = np.degrees(np.arcsin(np.clip(self.rotation[:, 0, 2], -1, 1)))
        return yaw

    def pitch_deg(self) -> Floats:
        """(T,) turn up or down, degrees."""
        pitch: Floats = np.degrees(np.arctan2(-self.rotation[:, 1, 2], self.rotation[:, 2, 2]))
        return pitch


def similarity(source: Floats, target: Floats) -> Pose:
    """Least-squares similarity of each source to its target.

    Args:
        source: (T, N, D) points.
        target: (N, D) or (T, N, D) points.
    """
    source, target = source.astype(np.float64), np.broadcast_to(target.astype(np.float64), source.shape)
    source_mean, target_mean = source.mean(axis=1), target.mean(axis=1)
    source_centred, target_centred = source - source_mean[:, None], target - target_mean[:, None]
    covariance = np.einsum("tni,tnj->tij", target_centred, source_centred) / source.shape[1]
    U, singular, Vt = np.linalg.svd(covariance)
    # Eq. 43: a reflection is turned into the nearest rotation.
    signs = np.ones_like(singular)
    signs[:, -1] = np.sign(np.linalg.det(U) * np.linalg.det(Vt))
    rotation = np.einsum("tij,tj,tjk->tik", U, signs, Vt)
    variance = (source_centred**2).sum(axis=2).mean(axis=1)
    scale = (singular * signs).sum(axis=1) / np.maximum(variance, 1e-12)
    translation = target_mean - scale[:, None] * np.einsum("tij,tj->ti", rotation, source_mean)
    return Pose(scale, rotation, translation)


def fit_pose(landmarks: Floats) -> Pose:
    """Pose of each face by its rigid points.

    Args:
        landmarks: (T, 478, 3) pixels; rows of NaN give a pose of NaN.
    """
    rigid = list(topology.RIGID)
    missing = np.isnan(landmarks[:, 0, 0])
    known = np.where(missing[:, None, None], topology.face_model().canonical, landmarks)
    pose = similarity(known[:, rigid], topology.face_model().canonical[rigid])
    for part in pose:
        part[missing] = np.nan
    return pose


def align(shapes: Floats, target: Floats, by: "NDArray[np.int64] | tuple[int, ...]") -> Floats:
    """Each (T, K, 3) shape moved onto (K, 3) `target` by the similarity of the points `by`."""
    points = list(by)
    return similarity(shapes[:, points], target[points]).to_canonical(shapes)


def lip_opening(canonical: Floats) -> Floats:
    """(...,) gap between the inner lips' middles of (..., 478, 3) canonical shapes, in units of eye distance."""
    gap = canonical[..., topology.UPPER_LIP_MIDDLE, :] - canonical[..., topology.LOWER_LIP_MIDDLE, :]
    opening: Floats = np.linalg.norm(gap, axis=-1)
    return opening


def articulation(opening: Floats) -> float:
    """How wide a speaker opens the mouth: 0.95 quantile of the (T,) lip openings, in units of eye distance.

    Pauses hardly move a high quantile, as they would a deviation.
    """
    return float(np.quantile(opening, 0.95))


def most_shut(opening: Floats) -> NDArray[np.bool_]:
    """(T,) the fifth of the frames whose mouth is most shut, by their lip openings."""
    return np.asarray(opening <= np.quantile(opening, 0.2))


def resting_face(shut: Floats) -> NDArray[np.float32]:
    """(478, 3) the speaker's neutral: the mean of some (T, 478, 3) canonical faces, its lips then closed.

    Of a speaker's frames those with the mouth `most_shut` are to be given.
    """
    return np.asarray(close_lips(shut.mean(axis=0)), np.float32)


def close_lips(canonical: Floats) -> Floats:
    """The same (..., 478, 3) shapes with the lips shut.

    Each pair of inner-lip points meets half-way; what lies around follows, less the further away it is.
    """
    upper, lower = list(topology.INNER_UPPER_LIP), list(topology.INNER_LOWER_LIP)
    gap = canonical[..., lower, :] - canonical[..., upper, :]
    moves = np.concatenate([gap / 2, -gap / 2], axis=-2)
    anchors = topology.face_model().canonical[upper + lower]
    closed: Floats = canonical + np.einsum("kn,...ni->...ki", _lip_weights(anchors), moves)
    return closed


def _lip_weights(anchors: Floats) -> Floats:
    """(478, N) share of each inner-lip point's move that each landmark makes; an inner-lip point makes its own."""
    face = topology.face_model().canonical
    upper_count = len(topology.INNER_UPPER_LIP)
    middle = face[list(topology.INNER_UPPER_LIP + topology.INNER_LOWER_LIP), 1].mean()
    distance = np.linalg.norm(face[:, None, :2] - anchors[None, :, :2], axis=-1)
    kernel = np.exp(-((distance / 0.12) ** 2))
    # The upper lip's points follow the upper inner lip only, the lower lip's the lower: the two move apart.
    is_upper = face[:, 1] < middle
    kernel[is_upper, upper_count:] = 0
    kernel[~is_upper, :upper_count] = 0
    reach = np.exp(-((distance.min(axis=1) / 0.25) ** 2))
    weights: Floats = kernel / np.maximum(kernel.sum(axis=1, keepdims=True), 1e-9) * reach[:, None]
    inner = list(topology.INNER_UPPER_LIP + topology.INNER_LOWER_LIP)
    weights[inner] = np.eye(len(inner))
    # The mouth's corners stand in both rows; either row says the same.
    for corner in (topology.INNER_UPPER_LIP[0], topology.INNER_UPPER_LIP[-1]):
        weights[corner] = 0
    outside = np.ones(len(face), bool)
    outside[topology.lower_face()] = False
    weights[outside] = 0
    return weights
