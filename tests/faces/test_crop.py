"""The crop: cut out and put back, smoothed inside runs only, masked by the pose alone, matched in colour."""

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
