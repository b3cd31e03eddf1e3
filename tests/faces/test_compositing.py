"""A painted face lands where it belongs; moved pictures keep their own resolution; nothing else changes."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.faces import crop, topology
from dreamhead.faces.compositing import Layer, composite, frame_box
from tests.faces.test_crop import SIZE, mask_of, transforms_of
from tests.toy_faces import canonical_face, posed, texture, turn

Picture = NDArray[np.uint8]


def painted_over(frame: Picture, picture: Picture, opacity: NDArray[np.float32], transform: NDArray) -> Picture:
    """The frame with a crop blended in that has no layers."""
    return composite(frame, [], picture, opacity, transform)


@pytest.mark.parametrize("eyes", [23, 60])
def test_pasting_the_unchanged_crop_changes_little_inside_and_nothing_outside(eyes: int) -> None:
    frame = texture(220, 260)
    landmarks = posed(canonical_face(), eyes, (120, 80), turn(roll_deg=12))
    (transform,) = transforms_of(landmarks, size=128)
    opacity = mask_of(landmarks, 128)
    before = frame.copy()
    pasted = painted_over(frame, crop.extract(frame, transform, 128), opacity, transform)
    np.testing.assert_array_equal(frame, before)
    assert np.abs(pasted.astype(int) - frame).mean() < 0.5
    assert np.abs(pasted.astype(int) - frame).max() < 12


def test_where_the_mask_is_empty_the_frame_keeps_its_bits() -> None:
    frame = texture(220, 260)
    landmarks = posed(canonical_face(), 50, (120, 80), turn(5, roll_deg=12))
    (transform,) = transforms_of(landmarks)
    opacity = mask_of(landmarks)
    pasted = painted_over(frame, np.full((SIZE, SIZE, 3), 255, np.uint8), opacity, transform)
    rows, columns = np.nonzero((pasted != frame).any(axis=2))
    changed = crop.apply_transform(transform, np.stack([columns, rows], axis=1).astype(np.float32))
    assert len(changed) > 1000
    # A pixel of the frame sees the opacities of the four pixels of the crop around it.
    reach = cv2.dilate(np.pad(opacity, 2), np.ones((3, 3), np.uint8))
    columns, rows = np.rint(changed + 2).astype(int).T
    assert (reach[rows, columns] > 0).all()
    middle = crop.apply_transform(transform, landmarks)[topology.LOWER_LIP_MIDDLE, :2]
    assert opacity[int(middle[1]), int(middle[0])] == 1
    assert (pasted[tuple(np.rint(landmarks[topology.LOWER_LIP_MIDDLE, 1::-1]).astype(int))] == 255).all()


def test_a_face_at_the_pictures_edge_is_pasted_as_far_as_it_is_seen() -> None:
    frame = texture(100, 100)
    landmarks = posed(canonical_face(), 40, (5, 40))
    (transform,) = transforms_of(landmarks)
    pasted = painted_over(frame, np.zeros((SIZE, SIZE, 3), np.uint8), mask_of(landmarks), transform)
    assert (pasted[70:80, :10] == 0).all()
    np.testing.assert_array_equal(pasted[:, 70:], frame[:, 70:])


def test_a_face_beyond_the_picture_changes_nothing() -> None:
    frame = texture(60, 60)
    (transform,) = transforms_of(posed(canonical_face(), 40, (900, 900)))
    pasted = painted_over(frame, np.zeros((SIZE, SIZE, 3), np.uint8), np.ones((SIZE, SIZE), np.float32), transform)
    np.testing.assert_array_equal(pasted, frame)


def still(size: int = SIZE) -> NDArray[np.float32]:
    columns, rows = np.meshgrid(*2 * [np.arange(size, dtype=np.float32)])
    return np.stack([columns, rows], axis=-1)


def nothing(size: int = SIZE) -> NDArray[np.float32]:
    return np.zeros((size, size, 3), np.float32)


WHOLE = np.ones((SIZE, SIZE), np.float32)


@pytest.mark.parametrize("eyes", [12, 60, 200])
@pytest.mark.parametrize("roll", [0, 25])
def test_a_layer_that_doesnt_move_keeps_its_bits(eyes: int, roll: int) -> None:
    # At every size of the face: the crop is never a detour.
    frame = np.random.default_rng(0).integers(0, 256, (220, 260, 3), np.uint8)
    (transform,) = transforms_of(posed(canonical_face(), eyes, (120, 80), turn(roll_deg=roll)))
    layer = Layer(frame, transform, (0, 0), still(), WHOLE)
    made = composite(frame, [layer], nothing(), WHOLE, transform)
    assert np.abs(made.astype(int) - frame).max() <= 1


@pytest.mark.parametrize("roll", [0, 25])
def test_a_layer_is_moved_at_its_own_resolution(roll: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (220, 260, 3), np.uint8)
    (transform,) = transforms_of(posed(canonical_face(), 60, (120, 80), turn(roll_deg=roll)))
    along = transform[:, :2] @ (6, 0)
    layer = Layer(frame, transform, (0, 0), (still() - along).astype(np.float32), WHOLE)
    made = composite(np.zeros_like(frame), [layer], nothing(), WHOLE, transform)
    # The noise is finer than the crop, and yet it is there, six pixels further.
    inside = np.s_[60:120, 90:150]
    wanted = np.roll(frame, 6, axis=1)
    assert np.corrcoef(made[inside].ravel(), wanted[inside].ravel())[0, 1] > 0.99


def test_another_frames_pixels_come_from_where_its_crop_says() -> None:
    # The same face, in another picture, turned and at another place; only its surroundings were kept.
    picture = np.asarray(
        cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (240, 300, 3), np.uint8), (0, 0), 1)
    )
    face, other = (
        posed(canonical_face(), 60, place, turn(roll_deg=roll)) for place, roll in (((120, 80), 0), ((150, 95), 20))
    )
    (to_crop,), (its_crop,) = transforms_of(face), transforms_of(other)
    box = (40, 30, 270, 230)
    kept = its_crop.astype(np.float64)
    kept[:, 2] += kept[:, :2] @ box[:2]
    layer = Layer(picture[box[1] : box[3], box[0] : box[2]], kept, (0, 0), still(), WHOLE)
    made = composite(np.zeros((220, 260, 3), np.uint8), [layer], nothing(), WHOLE, to_crop)
    both = np.vstack([its_crop, [0, 0, 1]])
    way = (np.linalg.inv(both) @ np.vstack([to_crop, [0, 0, 1]]))[:2]
    wanted = cv2.warpAffine(picture, way, (260, 220), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    inside = np.s_[70:150, 90:150]
    assert np.abs(made[inside].astype(int) - wanted[inside]).mean() < 1


def test_shares_and_windows_add_up() -> None:
    frame = texture(220, 260)
    (transform,) = transforms_of(posed(canonical_face(), 60, (120, 80)))
    seen = np.zeros((SIZE, SIZE), np.float32)
    seen[20:50, 10:40] = cv2.GaussianBlur(np.pad(np.ones((18, 18), np.float32), 6), (0, 0), 2)
    window = np.s_[16:56, 6:46]
    layers = [
        Layer(frame, transform, (0, 0), still(), 1 - seen),
        Layer(np.full_like(frame, 200), transform, (6, 16), still()[window], seen[window]),
    ]
    made = composite(frame, layers, nothing(), WHOLE, transform).astype(int)
    share = cv2.warpAffine(seen, transform, frame.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    wanted = frame + share[..., None] * (200.0 - frame)
    there = cv2.warpAffine(np.pad(WHOLE[2:-2, 2:-2], 2), transform, frame.shape[1::-1], flags=cv2.WARP_INVERSE_MAP) > 0
    assert there.sum() > 5000
    assert np.abs(made - wanted)[there].max() <= 1.5


def test_what_lies_too_close_is_smoothed_not_aliased() -> None:
    # Stripes of single pixels of a face four times as large.
    frame = np.zeros((220, 260, 3), np.uint8)
    stripes = np.tile(np.array([0, 255], np.uint8), 600)[None, :, None] * np.ones((900, 1, 3), np.uint8)
    (small,), (large,) = (
        transforms_of(posed(canonical_face(), eyes, place)) for eyes, place in ((30, (120, 80)), (120, (500, 320)))
    )
    made = composite(frame, [Layer(stripes, large, (0, 0), still(), WHOLE)], nothing(), WHOLE, small)
    inside = made[90:120, 100:140].astype(int)
    assert np.abs(inside - 127).max() < 12


def test_a_box_of_the_crop_in_the_frame() -> None:
    transform = np.array([[0.5, 0, -10], [0, 0.5, -20]])
    assert frame_box(np.array([0, 0, 10, 10]), transform, (100, 100)) == (20, 40, 41, 61)
    assert frame_box(np.array([0, 0, 90, 90]), transform, (100, 100)) == (20, 40, 100, 100)
    assert frame_box(np.array([60, 0, 90, 90]), transform, (100, 100)) is None


def test_along_a_tear_colours_meet_and_nothing_is_squeezed_in() -> None:
    # The upper half comes from where it is, the lower one from 20 pixels further down: the dark band is left out.
    frame = np.full((220, 260, 3), 200, np.uint8)
    (transform,) = transforms_of(posed(canonical_face(), 100, (120, 80)))
    source = still()
    source[32:, :, 1] += 12
    top, bottom = (round((row - transform[1, 2]) / transform[1, 1]) for row in (32.5, 42.5))
    frame[top:bottom] = 0
    frame[bottom:] = 120
    layer = Layer(frame, transform, (0, 0), source, WHOLE)
    made = composite(np.zeros_like(frame), [layer], nothing(), WHOLE, transform)
    seam = made[top - 12 : top + 12, 100:140].astype(int)
    assert seam.min() >= 118
    assert seam.max() <= 202
    assert (np.diff(seam[:, 20, 0]) <= 1).all()
