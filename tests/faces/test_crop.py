"""The crop: cut out and put back, smoothed inside runs only, masked by the pose alone, matched in colour."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.faces import crop, geometry, topology
from tests.toy_faces import canonical_face, posed, texture, turn

SIZE = 64


def transforms_of(*landmarks: NDArray[np.float32], size: int = SIZE) -> NDArray[np.float64]:
    return crop.crop_transforms(geometry.fit_pose(np.stack(landmarks)), size)


def mask_of(landmarks: NDArray[np.float32], size: int = SIZE, feather: float = 0.06) -> NDArray[np.float32]:
    pose = geometry.fit_pose(landmarks[None])
    return crop.pose_mask(canonical_face(), pose, crop.crop_transforms(pose, size)[0], size, feather)


def test_the_crop_is_upright_about_the_mouth() -> None:
    landmarks = posed(canonical_face(), 40, (90, 60), turn(roll_deg=30))
    (transform,) = transforms_of(landmarks)
    inside = crop.apply_transform(transform, landmarks)
    eyes = inside[[468, 473]]
    assert eyes[0, 1] == pytest.approx(eyes[1, 1], abs=0.1)
    assert abs(eyes[0, 0] - eyes[1, 0]) == pytest.approx(SIZE / crop.CROP_WIDTH, rel=0.01)
    assert eyes[:, 1].max() < SIZE / 4 < inside[topology.UPPER_LIP_MIDDLE, 1] < inside[topology.CHIN, 1] < SIZE
    np.testing.assert_allclose(inside[topology.CHIN, 0], SIZE / 2, atol=1)


def test_depth_is_scaled_like_the_picture() -> None:
    landmarks = posed(canonical_face())
    (transform,) = transforms_of(landmarks)
    moved = crop.apply_transform(transform, landmarks)
    distance = [np.linalg.norm(points[topology.CHIN] - points[10]) for points in (landmarks, moved)]
    assert distance[1] / distance[0] == pytest.approx(SIZE / crop.CROP_WIDTH / 40, rel=1e-3)
    np.testing.assert_array_equal(crop.apply_transform(transform, landmarks[:, :2]), moved[:, :2])


def test_transforms_are_rebuilt_from_what_is_smoothed() -> None:
    turns = [turn(roll_deg=angle) for angle in (0, 50, 179, -179)]
    transforms = transforms_of(*[posed(canonical_face(), 20 + i, (50, 9 * i), r) for i, r in enumerate(turns)])
    np.testing.assert_allclose(crop.smooth_transforms(transforms, 0, SIZE), transforms, atol=1e-3)


def test_smoothing_stays_inside_runs_and_gaps_stay() -> None:
    still = [posed(canonical_face(), 40, (100, 80))] * 6
    elsewhere = [posed(canonical_face(), 80, (300, 200))] * 6
    transforms = transforms_of(*still, np.full((478, 3), np.nan, np.float32), *elsewhere)
    smoothed = crop.smooth_transforms(transforms, 3, SIZE)
    assert np.isnan(smoothed[6]).all()
    known = np.arange(13) != 6
    np.testing.assert_allclose(smoothed[known], transforms[known], rtol=1e-4, atol=1e-3)
    assert smoothed.dtype == np.float32


def test_smoothing_calms_and_keeps_a_slow_move() -> None:
    jitter = np.random.default_rng(0).normal(0, 2, (60, 2))
    path = [posed(canonical_face(), 40, (100 + t + x, 80 + y)) for t, (x, y) in enumerate(jitter)]
    raw, calm = transforms_of(*path), crop.smooth_transforms(transforms_of(*path), 4, SIZE)
    roughness = [np.abs(np.diff(way[:, :, 2], n=2, axis=0)).mean() for way in (raw, calm)]
    assert roughness[1] < 0.1 * roughness[0]
    np.testing.assert_allclose(calm[20:40, :, 2], raw[20:40, :, 2], atol=3)


def test_smoothing_takes_the_short_way_round() -> None:
    spun = transforms_of(*[posed(canonical_face(), rotation=turn(roll_deg=angle)) for angle in (170, 175, -180, -175)])
    smoothed = crop.smooth_transforms(spun, 1, SIZE)
    np.testing.assert_allclose(smoothed[:, 0, 0], spun[:, 0, 0], atol=0.05)


def test_runs_are_the_stretches() -> None:
    flags = np.array([True, True, False, False, True, False, True])
    assert list(crop.runs(flags)) == [(0, 2), (4, 5), (6, 7)]
    assert list(crop.runs(np.zeros(3, bool))) == list(crop.runs(np.zeros(0, bool))) == []


def test_a_large_face_is_shrunk_without_aliasing() -> None:
    rows, columns = np.mgrid[:512, :512]
    board = np.repeat((255 * ((rows + columns) % 2))[..., None], 3, axis=2).astype(np.uint8)
    quarter = np.array([[0.25, 0, 0], [0, 0.25, 0]])
    # The outermost pixels also see what is repeated beyond the picture's edge.
    np.testing.assert_allclose(crop.extract(board, quarter, 128)[1:, 1:], 127.5, atol=1)


def test_a_shrunk_picture_is_where_the_transform_says() -> None:
    rows, columns = np.mgrid[:256, :256]
    ramp = np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)
    third = np.array([[1 / 3, 0, -5], [0, 1 / 3, -10]])
    shrunk = crop.extract(ramp, third, 48).astype(float)
    np.testing.assert_allclose(shrunk[..., 0], 3 * (np.mgrid[:48, :48][1] + 5), atol=1)
    np.testing.assert_allclose(shrunk[..., 1], 3 * (np.mgrid[:48, :48][0] + 10), atol=1)


@pytest.mark.parametrize("eyes", [23, 60])
def test_pasting_the_unchanged_crop_changes_little_inside_and_nothing_outside(eyes: int) -> None:
    frame = texture(220, 260)
    landmarks = posed(canonical_face(), eyes, (120, 80), turn(roll_deg=12))
    (transform,) = transforms_of(landmarks, size=128)
    opacity = mask_of(landmarks, 128)
    before = frame.copy()
    pasted = crop.paste(frame, crop.extract(frame, transform, 128), opacity, transform)
    np.testing.assert_array_equal(frame, before)
    assert np.abs(pasted.astype(int) - frame).mean() < 0.5
    assert np.abs(pasted.astype(int) - frame).max() < 12


def test_where_the_mask_is_empty_the_frame_keeps_its_bits() -> None:
    frame = texture(220, 260)
    landmarks = posed(canonical_face(), 50, (120, 80), turn(5, roll_deg=12))
    (transform,) = transforms_of(landmarks)
    opacity = mask_of(landmarks)
    pasted = crop.paste(frame, np.full((SIZE, SIZE, 3), 255, np.uint8), opacity, transform)
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
    pasted = crop.paste(frame, np.zeros((SIZE, SIZE, 3), np.uint8), mask_of(landmarks), transform)
    assert (pasted[70:80, :10] == 0).all()
    np.testing.assert_array_equal(pasted[:, 70:], frame[:, 70:])


def test_a_face_beyond_the_picture_changes_nothing() -> None:
    frame = texture(60, 60)
    (transform,) = transforms_of(posed(canonical_face(), 40, (900, 900)))
    pasted = crop.paste(frame, np.zeros((SIZE, SIZE, 3), np.uint8), np.ones((SIZE, SIZE), np.float32), transform)
    np.testing.assert_array_equal(pasted, frame)


def test_the_mask_tells_nothing_of_the_mouth() -> None:
    turned = turn(15, -10, 5)
    shut, wide = (mask_of(posed(canonical_face(gap), rotation=turned)) for gap in (0.0, 0.4))
    np.testing.assert_array_equal(shut, wide)
    assert np.abs(shut - mask_of(posed(canonical_face(), rotation=turn(-15, -10, 5)))).max() > 0.5


def test_the_mask_hides_even_a_wide_open_mouth() -> None:
    landmarks = posed(canonical_face(0.3), 40)
    (transform,) = transforms_of(landmarks)
    mask = mask_of(landmarks)
    points = np.rint(crop.apply_transform(transform, landmarks)).astype(int)
    lips = [*topology.OUTER_LOWER_LIP, *topology.OUTER_UPPER_LIP, topology.CHIN]
    assert (mask[points[lips, 1], points[lips, 0]] > 0).all()
    eyes = [*topology.LEFT_EYE, *topology.RIGHT_EYE]
    assert (mask[points[eyes, 1], points[eyes, 0]] == 0).all()


@pytest.mark.parametrize("pitch", [-35, 0, 35])
def test_the_mask_is_soft_and_keeps_to_the_lower_three_quarters(pitch: int) -> None:
    mask = mask_of(posed(canonical_face(), rotation=turn(0, pitch)), 128)
    assert mask.min() == 0
    assert mask.max() == 1
    assert (mask[: 128 // 4] == 0).all()
    below = mask[128 // 4 + 1 :]
    # 0.06 of 128 pixels from 0 to 1, along a smooth step whose steepest slope is 1.5 times the mean.
    assert np.abs(np.diff(below, axis=1)).max() < 1.5 * np.sqrt(2) / (0.06 * 128)
    edge = np.concatenate([below[:, 0], below[:, -1], below[-1]])
    assert (edge < 0.05).all()


def test_a_wider_feather_is_softer() -> None:
    narrow, wide = (mask_of(posed(canonical_face()), feather=feather) for feather in (0.02, 0.2))
    assert ((narrow > 0) == (wide > 0)).all()
    assert wide.sum() < narrow.sum()


def test_colours_meet_along_the_edge() -> None:
    mask = mask_of(posed(canonical_face()), 128)
    painted = texture(128, 128)
    offset = np.array([20, -10, 5], np.float32)
    target = painted.astype(np.float32) + offset
    matched = crop.match_colour(painted, target, mask)
    ring = (mask > 0) & (mask < 0.9)
    left = (target - matched)[ring].mean(axis=0)
    assert (np.abs(left) < 0.35 * np.abs(offset)).all()
    np.testing.assert_allclose(crop.match_colour(painted, painted, mask), painted, atol=1e-3)


def test_colours_far_from_the_edge_stay() -> None:
    mask = np.zeros((128, 128), np.float32)
    mask[20:-20, 20:-20] = 1
    mask[20:22, 20:-20] = 0.5
    matched = crop.match_colour(np.zeros((128, 128, 3), np.uint8), np.full((128, 128, 3), 60, np.uint8), mask)
    np.testing.assert_allclose(matched[80:100, 40:80], 0, atol=0.1)
    assert (matched[20:22, 40:80] > 30).all()


def shifted(transform: NDArray[np.float64], frame: NDArray[np.uint8], by_px: float, share: float) -> NDArray[np.uint8]:
    """The frame with its crop's pixels moved to the right by so many pixels of the frame, pasted everywhere."""
    step = by_px * np.hypot(transform[0, 0], transform[1, 0])
    columns, rows = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
    along = transform[:, 0] / np.linalg.norm(transform[:, 0])
    source = np.stack([columns - step * along[0], rows - step * along[1]], axis=-1).astype(np.float32)
    cut = crop.extract(frame, transform, SIZE)
    moved = cv2.remap(cut, source[..., 0], source[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    whole = np.ones((SIZE, SIZE), np.float32)
    return crop.paste(frame, moved, whole, transform, crop.Moved(source, moved, whole * np.float32(share)))


@pytest.mark.parametrize("roll", [0, 25])
def test_a_frames_own_details_are_moved_at_its_own_resolution(roll: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (220, 260, 3), np.uint8)
    landmarks = posed(canonical_face(), 60, (120, 80), turn(roll_deg=roll))
    (transform,) = transforms_of(landmarks)
    np.testing.assert_allclose(shifted(transform, frame, 0, 1).astype(int), frame, atol=1)
    # The noise is finer than the crop, and yet it is there, six pixels further.
    inside = np.s_[60:120, 90:150]
    moved, wanted = shifted(transform, frame, 6, 1), np.roll(frame, 6, axis=1)
    assert np.corrcoef(moved[inside].ravel(), wanted[inside].ravel())[0, 1] > 0.98
    without = shifted(transform, frame, 6, 0)
    assert np.corrcoef(without[inside].ravel(), wanted[inside].ravel())[0, 1] < 0.7
