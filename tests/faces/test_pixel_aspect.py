"""Pixels that aren't square: what is cut out and put back lies where a player shows it, and nothing else changes."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.faces import crop, geometry
from dreamhead.faces.compositing import Layer, composite
from dreamhead.faces.loose_crop import loose_crop
from dreamhead.faces.pixel_aspect import from_stored, square_pixels
from dreamhead.media.video import probe
from tests.anamorphic import ASPECTS
from tests.toy_faces import canonical_face, posed, texture, turn

SIZE = 64
LEVELS = 0.53
"""Of colour a pixel in a ramp: a rounder number would be rounded the same way in every pixel."""
Transform = NDArray[np.float64]


def shown_ramp(height: int, width: int, aspect: float) -> NDArray[np.uint8]:
    """A stored frame whose colours grow with where a player shows each pixel's middle: x, then y."""
    rows, columns = np.mgrid[:height, :width]
    x = aspect * (columns + 0.5) - 0.5
    return np.round(np.stack([x, rows, 0 * rows], axis=-1) * LEVELS).astype(np.uint8)


def similarity(scale: float, angle_deg: float, middle: tuple[float, float], size: int = SIZE) -> Transform:
    cos, sin = scale * np.cos(np.radians(angle_deg)), scale * np.sin(np.radians(angle_deg))
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, size / 2 - linear @ middle])


def face_at(middle: tuple[float, float], eyes: float = 60) -> tuple[Transform, NDArray[np.float32]]:
    """The transform and the (128, 128) mask of a face, in square pixels."""
    pose = geometry.fit_pose(posed(canonical_face(), eyes, middle, turn(roll_deg=25))[None])
    (transform,) = crop.crop_transforms(pose, 128)
    return transform, crop.pose_mask(canonical_face(), pose, transform, 128, 0.06)


def test_square_pixels_are_left_alone() -> None:
    transform, frame = similarity(0.7, 20, (90, 70)).astype(np.float32), texture(40, 60)
    same = from_stored(transform, 1.0)
    np.testing.assert_array_equal(same, transform)
    assert same.dtype == np.float32
    assert square_pixels(frame, 1.0) is frame
    assert square_pixels(frame, 1.001) is frame


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("scale", [0.28, 0.6, 1.5])
@pytest.mark.parametrize("angle", [0, 40, 90])
def test_a_crop_shows_what_a_player_shows(aspect: Fraction, scale: float, angle: float) -> None:
    frame = shown_ramp(400, round(400 / aspect), float(aspect))
    transform = similarity(scale, angle, (205, 190))
    found = crop.extract(frame, from_stored(transform, float(aspect)), SIZE)[..., :2].astype(float)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    place = np.stack([columns, rows], axis=-1) - transform[:, 2]
    wanted = place @ np.linalg.inv(transform[:, :2]).T * LEVELS
    seen = ((wanted > 5) & (wanted < 190)).all(axis=-1)
    # Colours are rounded when they are drawn, moved and averaged, by up to half a level each; on the whole by
    # next to none.
    assert np.abs(found - wanted)[seen].max() < 1.25
    assert np.abs((found - wanted)[seen].mean(axis=0)).max() < 0.15


@pytest.mark.parametrize("aspect", [0.5, 2.0])
def test_a_face_is_shrunk_without_aliasing_in_both_directions(aspect: float) -> None:
    rows, columns = np.mgrid[:512, :512]
    board = np.repeat((255 * ((rows + columns) % 2))[..., None], 3, axis=2).astype(np.uint8)
    # Rows or columns of the picture lie closer than the others by the aspect; the closest ones must be averaged too.
    for stripes in (board, np.repeat((255 * (rows % 2))[..., None], 3, axis=2).astype(np.uint8)):
        found = crop.extract(stripes, from_stored(similarity(0.25, 0, (512 * aspect / 2, 256)), aspect), SIZE)
        np.testing.assert_allclose(found[2:-2, 2:-2], 127.5, atol=1)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_pasting_changes_little_inside_and_nothing_outside(aspect: Fraction) -> None:
    frame = texture(320, round(320 / aspect))
    transform, opacity = face_at((150, 110))
    to_crop = from_stored(transform, float(aspect))
    before = frame.copy()
    pasted = composite(frame, [], crop.extract(frame, to_crop, 128), opacity, to_crop)
    np.testing.assert_array_equal(frame, before)
    assert np.abs(pasted.astype(int) - frame).mean() < 0.5
    white = composite(frame, [], np.full((128, 128, 3), 255, np.uint8), opacity, to_crop)
    rows, columns = np.nonzero((white != frame).any(axis=2))
    x = float(aspect) * (columns + 0.5) - 0.5
    changed = crop.apply_transform(transform, np.stack([x, rows], axis=1).astype(np.float32))
    # A pixel of the frame sees the opacities of the four pixels of the crop around it.
    reach = cv2.dilate(np.pad(opacity, 2), np.ones((3, 3), np.uint8))
    columns, rows = np.rint(changed + 2).astype(int).T
    assert (reach[rows, columns] > 0).all()
    # As much of the picture is covered as the mask says, in the frame's own pixels.
    opaque = float((opacity > 0.5).sum()) / abs(np.linalg.det(to_crop[:, :2]))
    covered = composite(np.zeros_like(frame), [], np.full((128, 128, 3), 255, np.uint8), opacity, to_crop)[..., 0]
    assert (covered > 127).sum() == pytest.approx(opaque, rel=0.02)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_details_are_moved_as_far_as_the_crop_says(aspect: Fraction) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (320, round(320 / aspect), 3)).astype(np.uint8)
    frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), 1.0), np.uint8)
    # A face so large that the crop holds a third of the picture's details.
    transform, opacity = face_at((150, 110), 120)
    to_crop = from_stored(transform, float(aspect))
    columns, rows = np.meshgrid(np.arange(128, dtype=np.float32), np.arange(128, dtype=np.float32))
    source = np.stack([columns + 3, rows - 5], axis=-1)
    shift = np.linalg.inv(to_crop[:, :2]) @ (3, -5)
    expected = cv2.warpAffine(
        frame,
        np.column_stack([np.eye(2), shift]),
        frame.shape[1::-1],
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    layer = Layer(frame, to_crop, (0, 0), source, np.ones((128, 128), np.float32))
    pasted = composite(frame, [layer], np.zeros((128, 128, 3), np.float32), opacity, to_crop)
    ones = composite(np.zeros_like(frame), [], np.full((128, 128, 3), 255, np.uint8), opacity, to_crop)[..., 0]
    inside = ones == 255
    assert inside.sum() > 3000
    assert np.abs(pasted[inside].astype(int) - expected[inside]).mean() < 1
    assert np.abs(pasted[inside].astype(int) - frame[inside]).mean() > 8


@pytest.mark.parametrize("aspect", ASPECTS)
def test_the_loose_crop_shows_what_a_player_shows(aspect: Fraction) -> None:
    frame, place = shown_ramp(300, round(300 / aspect), float(aspect)), np.array([150.0, 120.0, 40.0])
    found = loose_crop(frame, place, 56, float(aspect))[..., ::-1].astype(float)
    # 112 square pixels about x = 150 and from y = 80 on.
    np.testing.assert_allclose(found[28, :, 0] / LEVELS, 94 + 2 * np.arange(56), atol=1 / LEVELS)
    np.testing.assert_allclose(found[:, 28, 1] / LEVELS, 80 + 2 * np.arange(56), atol=1 / LEVELS)


@pytest.mark.parametrize(("rotation", "aspect"), [(0, "4/3"), (90, "3/4"), (180, "4/3"), (270, "3/4")])
def test_the_aspect_is_that_of_the_upright_picture(make_video: Any, rotation: int, aspect: str) -> None:
    info = probe(make_video(frames=2, size=(96, 64), aspect=Fraction(4, 3), rotation=rotation))
    assert info.rotation == rotation
    assert info.pixel_aspect == pytest.approx(float(Fraction(aspect)))
    assert info.shown_size == ((128, 64) if rotation % 180 == 0 else (48, 96))


@pytest.mark.parametrize("aspect", ["0", "-4/3", "1/200", "65535"])
def test_an_aspect_that_cannot_be_is_taken_for_unknown(make_video: Any, aspect: str) -> None:
    info = replace(probe(make_video(frames=2)), sample_aspect_ratio=Fraction(aspect))
    assert info.pixel_aspect == 1
    assert replace(info, rotation=90).pixel_aspect == 1
