"""Pictures follow their landmarks, and nothing else moves."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.faces import topology
from dreamhead.faces.crop import apply_transform, crop_transforms
from dreamhead.faces.geometry import fit_pose
from dreamhead.faces.warp import STRETCH_LIMIT, displacement, warp
from tests.toy_faces import canonical_face, posed, texture

SIZE = 128


def in_crop(opening: float, size: int = SIZE) -> NDArray[np.float32]:
    """(478, 3) landmarks in pixels of the crop of a face seen from the front."""
    landmarks = posed(canonical_face(opening))
    return apply_transform(crop_transforms(fit_pose(landmarks[None]), size)[0], landmarks)


def grid(size: int = SIZE) -> NDArray[np.float32]:
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    return np.stack([columns, rows], axis=-1)


def test_nothing_moves_when_the_landmarks_agree() -> None:
    picture, landmarks = texture(SIZE, SIZE), in_crop(0.2)
    field = displacement(landmarks, landmarks, SIZE)
    np.testing.assert_array_equal(field.source, grid())
    np.testing.assert_array_equal(field.stretch, 0)
    np.testing.assert_array_equal(warp(picture, field), picture)


@pytest.mark.parametrize("point", [topology.CHIN, topology.OUTER_LOWER_LIP[5], topology.OUTER_LOWER_LIP[3]])
@pytest.mark.parametrize(("start", "end"), [(0.05, 0.3), (0.3, 0.05)])
def test_a_dot_moves_with_its_landmark(point: int, start: float, end: float) -> None:
    source, target = in_crop(start), in_crop(end)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    x, y = source[point, :2]
    dot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    moved = warp(np.repeat(dot[..., None], 3, axis=2).astype(np.uint8), displacement(source, target, SIZE))
    # The brightest place, finer than a pixel: a centroid would be drawn to where the picture is stretched.
    smooth = cv2.GaussianBlur(moved[..., 0].astype(np.float32), (0, 0), 0.7)
    bright = smooth > 0.9 * smooth.max()
    found = np.array([np.average(axis[bright], weights=smooth[bright]) for axis in (columns, rows)])
    assert np.linalg.norm(target[point, :2] - source[point, :2]) > 3
    assert np.linalg.norm(found - target[point, :2]) < 1


def test_the_field_leads_from_target_to_source_points() -> None:
    source, target = in_crop(0.0), in_crop(0.15)
    field = displacement(source, target, SIZE)
    lower = [point for point in topology.lower_face().tolist() if point not in topology.JAW]
    for point in lower:
        column, row = np.rint(target[point, :2]).astype(int)
        there = field.source[row, column] - (column, row) + target[point, :2]
        assert np.linalg.norm(there - source[point, :2]) < 1.5, point


def test_the_sides_and_the_upper_face_stay() -> None:
    field = displacement(in_crop(0.0), in_crop(0.3), SIZE)
    moved = np.linalg.norm(field.source - grid(), axis=2)
    assert moved[: SIZE // 4].max() == 0
    np.testing.assert_allclose(moved[:, [0, -1]], 0, atol=0.1)
    assert moved.max() > 5


def test_the_move_fades_to_nothing_beyond_the_chin() -> None:
    # A crop with room around the face, as the warp itself knows no crop.
    source, target = (in_crop(gap) * [0.5, 0.5, 1] + [SIZE / 4, SIZE / 8, 0] for gap in (0.0, 0.3))
    field = displacement(source.astype(np.float32), target.astype(np.float32), SIZE)
    below = (field.source - grid())[int(target[topology.CHIN, 1]) + 1 :, SIZE // 2, 1]
    assert below[0] < -5
    # A pixel that the last triangle only touches lies a little beyond it.
    assert (np.diff(below) > -0.6).all()
    assert below[-1] == 0


def test_stretch_is_the_logarithm_of_growth() -> None:
    # A face twice as large everywhere about its middle: each triangle is four times as large.
    small = in_crop(0.2)
    small[:, :2] = (small[:, :2] - SIZE / 2) * 0.3 + SIZE / 2
    large = small.copy()
    large[:, :2] = (small[:, :2] - SIZE / 2) * 2 + SIZE / 2
    nose = np.rint(large[topology.NOSE_BRIDGE[3], :2]).astype(int)
    assert displacement(small, large, SIZE).stretch[nose[1], nose[0]] == pytest.approx(2, abs=1e-3)
    nose = np.rint(small[topology.NOSE_BRIDGE[3], :2]).astype(int)
    assert displacement(large, small, SIZE).stretch[nose[1], nose[0]] == pytest.approx(-2, abs=1e-3)


def test_an_opening_mouth_is_stretched_to_the_limit() -> None:
    target = in_crop(0.3)
    field = displacement(in_crop(0.0), target, SIZE)
    middle = target[[topology.UPPER_LIP_MIDDLE, topology.LOWER_LIP_MIDDLE], :2].mean(axis=0)
    assert field.stretch[int(middle[1]), int(middle[0])] == STRETCH_LIMIT
    assert np.abs(field.stretch).max() == STRETCH_LIMIT


def test_a_triangle_that_shows_its_back_is_distrusted() -> None:
    source = in_crop(0.3)
    target = source.copy()
    upper, lower = list(topology.INNER_UPPER_LIP), list(topology.INNER_LOWER_LIP)
    target[upper], target[lower] = source[lower], source[upper]
    # The inside of the mouth alone: what lies behind it is folded too, and further away.
    target[upper + lower, 2] -= 50
    field = displacement(source, target, SIZE)
    middle = source[[topology.UPPER_LIP_MIDDLE, topology.LOWER_LIP_MIDDLE], :2].mean(axis=0)
    assert field.stretch[int(middle[1]), int(middle[0])] == STRETCH_LIMIT
