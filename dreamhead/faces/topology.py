"""Which of MediaPipe's 478 landmarks is what: contours, mesh, mirror pairs and the mean face."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""Clockwise as the picture shows it, from the top of the forehead."""
JAW = FACE_OVAL[8:29]
"""The part of the oval from one ear over the chin to the other."""
OUTER_LOWER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
OUTER_UPPER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
INNER_LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
INNER_UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYEBROW = (276, 283, 282, 295, 285)
RIGHT_EYEBROW = (46, 53, 52, 65, 55)
NOSE_BRIDGE = (168, 6, 197, 195, 5, 4, 1)
NOSE_BASE = (98, 97, 2, 326, 327)

UPPER_LIP_MIDDLE, LOWER_LIP_MIDDLE = 13, 14
CHIN = 152
RIGID = (
    33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 98, 327, 10, 151, 9, 8, 67, 109, 338, 297, 54, 284,
    103, 332, 68, 298, 104, 333, 69, 299, 108, 337, 193, 417, 122, 351, 245, 465, 127, 356, 162, 389, 21, 251,
)  # fmt: skip
"""Points that neither speech nor blinking moves: eye corners, forehead, temples, bridge and tip of the nose."""


class FaceModel(NamedTuple):
    """Facts of the landmark set that are too long to type."""

    canonical: NDArray[np.float32]
    """(478, 3) mean resting face: origin between the irises, one unit apart; x right, y down, z away from us."""
    triangles: NDArray[np.uint16]
    """(F, 3) mesh of the 468 surface points, the mouth's inside included."""
    flip: NDArray[np.uint16]
    """(478,) index of each point's mirror image."""


@cache
def face_model() -> FaceModel:
    """Read the stored facts once."""
    with np.load(Path(__file__).with_name("face_model.npz")) as stored:
        mesh = np.concatenate([stored["triangles"], mouth_triangles()])
        return FaceModel(stored["canonical"], mesh, stored["flip"])


def mouth_triangles() -> NDArray[np.uint16]:
    """(18, 3) triangles between the inner lips, which the tessellation leaves open."""
    upper, lower = INNER_UPPER_LIP, INNER_LOWER_LIP
    found = []
    for i in range(len(upper) - 1):
        found += [(upper[i], upper[i + 1], lower[i]), (upper[i + 1], lower[i + 1], lower[i])]
    return np.array([corners for corners in found if len(set(corners)) == 3], np.uint16)


@cache
def lower_face() -> NDArray[np.int64]:
    """(K,) ascending indices of the points that speech moves: lips, jaw, chin and cheeks below the nose's tip."""
    canonical = face_model().canonical[:468]
    # The nose's base stays with the head; everything level with or below the upper lip's base moves.
    below = canonical[:, 1] > canonical[2, 1] - 0.02
    cheeks = (canonical[:, 1] > canonical[4, 1]) & (np.abs(canonical[:, 0]) > 0.45)
    return np.flatnonzero(below | cheeks)


@cache
def lower_face_weight() -> NDArray[np.float32]:
    """(K,) share of its motion that each lower-face point keeps: rising from 0 beside the nose and the ears to 1.

    Without the slope the mesh tears at the nostrils, where a point that stays is next to one that moves.
    """
    canonical = face_model().canonical[lower_face()]
    below_nose = (canonical[:, 1] - face_model().canonical[2, 1]) / 0.15
    cheek = (canonical[:, 1] - face_model().canonical[4, 1]) / 0.5
    share = np.where(np.abs(canonical[:, 0]) > 0.45, cheek, below_nose)
    weight: NDArray[np.float32] = np.clip(share, 0, 1).astype(np.float32)
    return weight
