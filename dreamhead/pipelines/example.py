"""What the second stage is told of one frame: pixels moved to the wanted mouth, and where they are to be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.faces import topology
from dreamhead.faces.crop import Pixels, match_colour
from dreamhead.faces.landmark_image import draw
from dreamhead.faces.mesh_index import triangle_index, vertices
from dreamhead.faces.warp import STRETCH_LIMIT, Displacement, displacement, warp

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

DETAIL_SIGMA = 1 / 170
"""Details finer than this share of the crop's side come from the nearest reference alone."""
SHUT_SHARE, OPEN_SHARE = 0.1, 0.4
"""A reference that shows less than the first share of the wanted mouth's inside shows nothing, from the second all."""
CAVITY_TONE = (0.32, 0.2, 0.2)
"""Colour of a mouth's inside relative to the face's."""


class Reference(NamedTuple):
    """A frame whose mouth is moved."""

    picture: Picture
    """(S, S, 3)."""
    landmarks: Floats
    """(478, 3) pixels of the crop."""


class Moved(NamedTuple):
    """A picture moved to the target landmarks."""

    picture: Picture
    """(S, S, 3)."""
    source: NDArray[np.float32]
    """(S, S, 2) where in its crop each pixel comes from."""


@dataclass(frozen=True, eq=False)
class Example:
    """What the network is told of one frame. S is the side of the crop."""

    warped: Picture
    """(S, S, 3) first guess: the frame outside the mask, moved pixels inside."""
    target_image: Picture
    """(S, S, 3) landmark image of the target."""
    reference_image: Picture
    """(S, S, 3) landmark image of the nearest reference before it was moved."""
    stretch: NDArray[np.float32]
    """(S, S) log2 of how much the nearest reference was stretched."""
    mask: NDArray[np.float32]
    """(S, S) opacity of the dubbed region."""
    mouth: NDArray[np.float32]
    """(S, S) the target's lips and what is between them, soft."""
    nearest: Moved
    """The nearest reference."""
    unseen: NDArray[np.float32]
    """(S, S) where no reference shows the mouth's inside: there it is dark."""


def make_example(
    crop: Picture,
    references: Sequence[Reference],
    target: NDArray[np.float32],
    mask: NDArray[np.float32],
    index: NDArray[np.int16] | None = None,
) -> Example:
    """Move the references to the target landmarks, merge them, and put them, colour-matched, into the frame's mask.

    Args:
        crop: (S, S, 3) the frame; what its mask hides is not looked at.
        references: nearest mouth first.
        target: (478, 3) wanted, pixels of the crop.
        mask: (S, S).
        index: (S, S) of the target, see `triangle_index`.
    """
    size = crop.shape[0]
    if index is None:
        index = triangle_index(vertices(target), size)
    fields = [displacement(its.landmarks.astype(np.float32), target, size, index) for its in references]
    pictures = [warp(its.picture, field) for its, field in zip(references, fields, strict=True)]
    merged = merge([match_colour(picture, crop, mask) for picture in pictures])
    unseen = unseen_mouth(references, target, size)
    nearest = references[0].landmarks.astype(np.float32)
    return Example(
        warped=_blend(crop, darkened(merged, unseen, target), mask),
        target_image=draw(target, size),
        reference_image=draw(nearest, size),
        stretch=_smooth_stretch(fields[0]),
        mask=mask,
        mouth=mouth_region(target, size),
        nearest=Moved(pictures[0], fields[0].source),
        unseen=unseen,
    )


def with_skin(example: Example, skin: Picture) -> Example:
    """The example with another picture's pixels outside the lips; the mouth keeps its colour relative to them."""
    inside = match_colour(example.warped, skin, example.mouth)
    return replace(example, warped=_blend(skin, inside, example.mouth), stretch=example.stretch * example.mouth)


def merge(pictures: Sequence[Pixels]) -> Picture:
    """(S, S, 3) the first picture's details on the coarse mean of all: two bands of Burt and Adelson 1983.

    The mean is nearer to the truth, since errors of several landmarks cancel, but a mean of details is a blur.
    """
    first = pictures[0].astype(np.float32)
    difference = np.mean([picture.astype(np.float32) for picture in pictures], axis=0) - first
    coarse = cv2.GaussianBlur(difference, (0, 0), len(first) * DETAIL_SIGMA)
    return np.asarray(np.clip(np.rint(first + coarse), 0, 255), np.uint8)


def unseen_mouth(references: Sequence[Reference], target: Floats, size: int) -> NDArray[np.float32]:
    """(S, S) how far the mouth's inside is what no reference shows: shut lips, drawn apart, are no mouth's inside."""
    wanted = _inside_area(target)
    shown = max(_inside_area(its.landmarks) for its in references) / max(wanted, 1.0)
    unseen = 1 - np.clip((shown - SHUT_SHARE) / (OPEN_SHARE - SHUT_SHARE), 0, 1)
    region = np.zeros((size, size), np.float32)
    if unseen == 0 or wanted < 1:
        return region
    cv2.fillPoly(region, [np.round(_inside(target) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, shift=4)
    # Narrower than the opening itself, so that the lips' own edge stays theirs.
    soft = cv2.GaussianBlur(cv2.erode(region, np.ones((2, 2), np.uint8)), (0, 0), size / 128)
    return np.asarray(unseen * soft, np.float32)


def darkened(picture: Picture, unseen: NDArray[np.float32], target: Floats) -> Picture:
    """The (S, S, 3) picture with the tone of a mouth's inside where (S, S) it is `unseen`."""
    if not unseen.any():
        return picture
    lips = mouth_region(target, len(picture)) > 0.5
    tone = picture[lips].mean(axis=0) if lips.any() else picture.mean(axis=(0, 1))
    return _blend(picture, np.broadcast_to(tone * np.array(CAVITY_TONE), picture.shape), unseen)


class Told(NamedTuple):
    """Examples as tensors, only the R rows that are painted."""

    warped: Tensor
    """(B, 3, R, S) in -1..1."""
    mask: Tensor
    """(B, 1, R, S) in 0..1."""
    guides: Tensor
    """(B, 8, R, S) in -1..1: see GUIDE_CHANNELS."""


def painted_rows(size: int) -> slice:
    """Rows of the crop that the networks see: above them is nothing that they may change."""
    return slice(size // 4, size)


def tell(examples: Sequence[Example]) -> Told:
    """Examples to tensors."""
    rows = painted_rows(examples[0].warped.shape[0])
    warped = _tensor(np.stack([example.warped[rows] for example in examples]))
    mask = torch.from_numpy(np.stack([example.mask[rows] for example in examples]))[:, None]
    return Told(warped, mask, _guides(examples)[..., rows, :])


def _guides(examples: Sequence[Example]) -> Tensor:
    """(B, 8, S, S) in -1..1: see GUIDE_CHANNELS."""
    stretch = np.stack([example.stretch for example in examples])[:, None] / STRETCH_LIMIT
    mask = np.stack([example.mask for example in examples])[:, None] * 2 - 1
    drawn = [
        _tensor(np.stack([getattr(example, name) for example in examples]))
        for name in ("target_image", "reference_image")
    ]
    return torch.cat([*drawn, torch.from_numpy(stretch), torch.from_numpy(mask)], dim=1)


def mouth_region(landmarks: Floats, size: int) -> NDArray[np.float32]:
    """(S, S) 1 on the lips and between them, fading out around them."""
    region = np.zeros((size, size), np.float32)
    outline = landmarks[list(topology.OUTER_LOWER_LIP + topology.OUTER_UPPER_LIP), :2]
    cv2.fillConvexPoly(region, cv2.convexHull(np.round(outline * 16).astype(np.int32)), 1.0, cv2.LINE_AA, shift=4)
    reach = max(1, size // 32)
    grown = cv2.dilate(region, np.ones((reach, reach), np.uint8))
    return np.asarray(cv2.GaussianBlur(grown, (0, 0), size / 85), np.float32)


def _inside(landmarks: Floats) -> NDArray[np.float32]:
    """(N, 2) outline of the inner lips."""
    outline = (*topology.INNER_UPPER_LIP, *reversed(topology.INNER_LOWER_LIP))
    return np.ascontiguousarray(landmarks[list(outline), :2], np.float32)


def _inside_area(landmarks: Floats) -> float:
    return float(cv2.contourArea(_inside(landmarks)))


def _blend(outside: Pixels, inside: Pixels, share: NDArray[np.float32]) -> Picture:
    mixed = outside.astype(np.float32) + share[..., None] * (inside.astype(np.float32) - outside)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _smooth_stretch(field: Displacement) -> NDArray[np.float32]:
    """The mesh's facets say nothing of the picture: what counts is where the stretch is."""
    return np.asarray(cv2.GaussianBlur(field.stretch, (0, 0), field.stretch.shape[0] / 128), np.float32)


def _tensor(pictures: Picture) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
