"""The tables of points hold together: mirror pairs, mesh, and which points speech moves."""

import itertools

import numpy as np

from dreamhead.faces import topology


def test_the_mirror_twice_is_the_face_itself() -> None:
    flip = topology.face_model().flip.astype(int)
    np.testing.assert_array_equal(flip[flip], np.arange(478))


def test_the_mirror_swaps_left_and_right() -> None:
    model = topology.face_model()
    assert set(model.flip[list(topology.LEFT_EYE)].tolist()) == set(topology.RIGHT_EYE)
    assert set(model.flip[list(topology.LEFT_EYEBROW)].tolist()) == set(topology.RIGHT_EYEBROW)
    assert model.flip[list(topology.OUTER_LOWER_LIP)].tolist() == list(topology.OUTER_LOWER_LIP[::-1])
    assert model.flip[list(topology.JAW)].tolist() == list(topology.JAW[::-1])
    for middle in (topology.CHIN, topology.UPPER_LIP_MIDDLE, topology.LOWER_LIP_MIDDLE, *topology.NOSE_BRIDGE):
        assert model.flip[middle] == middle


def test_the_mean_face_is_its_own_mirror_image_nearly() -> None:
    model = topology.face_model()
    mirrored = model.canonical[model.flip] * [-1, 1, 1]
    assert np.abs(mirrored - model.canonical).max() < 0.05


def test_the_mean_face_stands_upright_with_eyes_one_apart() -> None:
    face = topology.face_model().canonical
    irises = face[[468, 473]]
    np.testing.assert_allclose(irises.mean(axis=0)[:2], 0, atol=0.02)
    assert abs(np.linalg.norm(irises[0] - irises[1]) - 1) < 0.02
    assert face[topology.CHIN, 1] > face[topology.LOWER_LIP_MIDDLE, 1] > face[topology.NOSE_BRIDGE[5], 1] > 0
    assert face[list(topology.LEFT_EYE), 0].mean() > 0 > face[list(topology.RIGHT_EYE), 0].mean()
    assert face[topology.NOSE_BRIDGE[5], 2] == face[:, 2].min()


def test_the_mesh_covers_all_points_and_the_mouth() -> None:
    mesh = topology.face_model().triangles
    assert set(mesh.ravel().tolist()) == set(range(468))
    assert (np.sort(mesh, axis=1)[:, :-1] != np.sort(mesh, axis=1)[:, 1:]).all()
    inside = topology.mouth_triangles()
    assert inside.shape == (18, 3)
    assert set(inside.ravel().tolist()) == {*topology.INNER_UPPER_LIP, *topology.INNER_LOWER_LIP}
    # An edge between two inner-lip points of the tessellation is met from the mouth's side exactly once.
    edges = [tuple(sorted(pair)) for a, b, c in inside.tolist() for pair in ((a, b), (b, c), (c, a))]
    rim = [tuple(sorted(pair)) for row in RIM for pair in itertools.pairwise(row)]
    assert all(edges.count(pair) == 1 for pair in rim)


RIM = (topology.INNER_UPPER_LIP, topology.INNER_LOWER_LIP)


def test_the_lower_face_has_the_mouth_and_jaw_and_no_eye() -> None:
    lower = set(topology.lower_face().tolist())
    mouth = {*topology.OUTER_LOWER_LIP, *topology.OUTER_UPPER_LIP, *topology.INNER_LOWER_LIP, *topology.INNER_UPPER_LIP}
    assert mouth | {topology.CHIN} <= lower
    upper = {*topology.LEFT_EYE, *topology.RIGHT_EYE, *topology.LEFT_EYEBROW, *topology.RIGHT_EYEBROW, *range(468, 478)}
    assert not lower & upper
    weight = dict(zip(topology.lower_face().tolist(), topology.lower_face_weight().tolist(), strict=True))
    assert all(weight[point] == 0 for point in lower & set(topology.RIGID)), "speech would move the pose"
    assert topology.lower_face().tolist() == sorted(lower)


def test_the_lower_face_is_its_own_mirror_image() -> None:
    flip = topology.face_model().flip
    assert set(flip[topology.lower_face()].tolist()) == set(topology.lower_face().tolist())


def test_motion_fades_towards_nose_and_ears() -> None:
    weight = dict(zip(topology.lower_face().tolist(), topology.lower_face_weight().tolist(), strict=True))
    assert min(weight.values()) >= 0
    assert max(weight.values()) == 1
    assert weight[topology.LOWER_LIP_MIDDLE] == weight[topology.CHIN] == 1
    assert all(weight.get(point, 0.0) < 0.3 for point in topology.NOSE_BASE)
    assert len(weight) == len(topology.lower_face())
