"""Poses are recovered to the pixel, lips are shut without touching the eyes."""

import numpy as np
import pytest

from dreamhead.faces import geometry, topology
from tests.toy_faces import canonical_face, posed, turn

RNG = np.random.default_rng(0)


def test_a_known_similarity_is_recovered() -> None:
    source = RNG.normal(size=(3, 20, 3))
    rotations = [turn(30, -10, 5), turn(-70, 40, 100), turn(0, 0, 180)]
    scales, offsets = np.array([0.02, 1.0, 7.0]), RNG.normal(size=(3, 3))
    target = np.stack(
        [s * points @ r.T + t for points, s, r, t in zip(source, scales, rotations, offsets, strict=True)]
    )
    pose = geometry.similarity(source, target)
    np.testing.assert_allclose(pose.scale, scales, rtol=1e-9)
    np.testing.assert_allclose(pose.rotation, rotations, atol=1e-9)
    np.testing.assert_allclose(pose.translation, offsets, atol=1e-9)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_mirror_image_is_turned_and_never_reflected(dimensions: int) -> None:
    points = RNG.normal(size=(1, 12, dimensions))
    mirrored = points * np.array([-1, *[1] * (dimensions - 1)])
    pose = geometry.similarity(points, mirrored)
    np.testing.assert_allclose(np.linalg.det(pose.rotation), 1, atol=1e-9)
    assert pose.scale[0] < 1


@pytest.mark.parametrize("rotation", [turn(), turn(35, 10, 20), turn(-60, -30, -90)], ids=["front", "side", "far"])
def test_the_canonical_pose_and_back_is_the_same_place(rotation: np.ndarray) -> None:
    landmarks = posed(canonical_face(0.2), 90, (700, 400), rotation)[None]
    pose = geometry.fit_pose(landmarks)
    canonical = pose.to_canonical(landmarks)
    np.testing.assert_allclose(pose.to_pixels(canonical), landmarks, atol=1e-3)
    np.testing.assert_allclose(canonical[0], canonical_face(0.2), atol=1e-3)


def test_the_mouth_does_not_move_the_pose() -> None:
    shut, wide = (geometry.fit_pose(posed(canonical_face(gap))[None]) for gap in (0.0, 0.4))
    for first, second in zip(shut, wide, strict=True):
        np.testing.assert_array_equal(first, second)


def test_turns_are_told_in_degrees_and_by_side() -> None:
    turns = [(30, 0), (-30, 0), (0, 20), (0, -20)]
    landmarks = np.stack([posed(canonical_face(), rotation=turn(yaw, pitch)) for yaw, pitch in turns])
    pose = geometry.fit_pose(landmarks)
    nose = landmarks[:, topology.NOSE_BRIDGE[5], :2] - landmarks[:, topology.NOSE_BRIDGE[0], :2]
    np.testing.assert_allclose(pose.yaw_deg(), [-30, 30, 0, 0], atol=0.01)
    np.testing.assert_allclose(pose.pitch_deg(), [0, 0, -20, 20], atol=0.01)
    # A positive yaw shows the nose on the right of the picture, a positive pitch shows it higher.
    assert nose[0, 0] < 0 < nose[1, 0]
    assert nose[2, 1] > nose[3, 1]


def test_roll_is_no_turn() -> None:
    pose = geometry.fit_pose(posed(canonical_face(), rotation=turn(roll_deg=70))[None])
    np.testing.assert_allclose([pose.yaw_deg()[0], pose.pitch_deg()[0]], 0, atol=0.01)


def test_a_missing_face_stays_missing_and_alone() -> None:
    landmarks = np.stack([posed(canonical_face()), np.full((478, 3), np.nan, np.float32), posed(canonical_face(0.1))])
    pose = geometry.fit_pose(landmarks)
    for part in (pose.scale, pose.yaw_deg(), pose.to_canonical(landmarks)[:, 7, 1]):
        np.testing.assert_array_equal(np.isnan(part), [False, True, False])


def test_align_moves_shapes_by_the_points_that_are_named() -> None:
    target = canonical_face()
    shapes = np.stack([posed(target, 3, (5, 2), turn(10)), posed(canonical_face(0.3), 3, (5, 2), turn(10))])
    aligned = geometry.align(shapes, target, topology.RIGID)
    np.testing.assert_allclose(aligned[0], target, atol=1e-5)
    np.testing.assert_allclose(aligned[1], canonical_face(0.3), atol=1e-5)


def test_lip_opening_is_the_gap() -> None:
    shapes = np.stack([canonical_face(gap) for gap in (0.0, 0.1, 0.25)])
    np.testing.assert_allclose(geometry.lip_opening(shapes), [0, 0.1, 0.25], atol=1e-3)


def test_closed_lips_meet_and_the_rest_of_the_face_stays() -> None:
    wide = canonical_face(0.3)
    shut = geometry.close_lips(wide)
    upper, lower = list(topology.INNER_UPPER_LIP), list(topology.INNER_LOWER_LIP)
    np.testing.assert_allclose(shut[upper], shut[lower], atol=1e-9)
    outside = np.setdiff1d(np.arange(478), topology.lower_face())
    np.testing.assert_array_equal(shut[outside], wide[outside])
    # The lip's outer edge goes along, the chin hardly does.
    outer, chin = topology.OUTER_LOWER_LIP[5], topology.CHIN
    assert wide[outer, 1] - shut[outer, 1] > 0.05
    assert abs(wide[chin, 1] - shut[chin, 1]) < 0.03


def test_shut_lips_are_left_alone() -> None:
    shut = canonical_face()
    np.testing.assert_allclose(geometry.close_lips(shut), shut, atol=1e-7)


def test_the_resting_face_is_shut_and_comes_from_the_most_shut_frames() -> None:
    shapes = np.stack([canonical_face(gap) for gap in np.linspace(0, 0.4, 20)])
    shut = geometry.most_shut(geometry.lip_opening(shapes))
    assert np.flatnonzero(shut).tolist() == [0, 1, 2, 3]
    rest = geometry.resting_face(shapes[shut])
    assert rest.dtype == np.float32
    assert geometry.lip_opening(rest) == pytest.approx(0, abs=1e-6)
    chin = rest[topology.CHIN, 1] - canonical_face()[topology.CHIN, 1]
    assert 0 <= chin < 0.1
