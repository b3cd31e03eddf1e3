"""References are few and unlike each other, and the one shown is near to the wanted mouth and seldom changed."""

import itertools
from dataclasses import replace

import numpy as np

from dreamhead.faces import geometry, topology
from dreamhead.faces.reference import (
    SWITCH_COST,
    KeptFrame,
    ReferenceKeeper,
    _cheapest_path,
    choose_references,
    mouth_shape,
    patch,
    reference_arrays,
)
from tests.toy_faces import canonical_face, toy_shot

EMPTY = np.zeros((8, 8, 3), np.uint8)


def test_mouth_shapes_ignore_place_and_measure_points() -> None:
    face = canonical_face(0.1)[None]
    shape = mouth_shape(face)
    assert shape.dtype == np.float32
    np.testing.assert_allclose(mouth_shape(face + np.array([0.3, -0.2, 1.0])), shape, atol=1e-6)
    moved = face + np.where(np.arange(478)[:, None] < 240, 0.1, -0.1) * [1, 0, 0]
    distance = np.linalg.norm(mouth_shape(moved) - shape)
    assert 0.09 < distance < 0.11


def kept_frame(number: int, box: tuple[int, int, int, int] = (0, 0, 20, 20)) -> KeptFrame:
    left, top, right, bottom = box
    shape = (bottom - top, right - left, 3)
    pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    transform = np.array([[0.5, 0.1, number], [-0.1, 0.5, 3]])
    return KeptFrame(number, EMPTY, np.zeros((478, 3), np.float32), transform, box, pixels)


def test_the_keeper_is_bounded_and_keeps_what_differs() -> None:
    openings = np.random.default_rng(0).uniform(0, 0.4, 300)
    shapes = mouth_shape(np.stack([canonical_face(gap) for gap in openings]))
    keeper = ReferenceKeeper(12, 1 << 30)
    for number, shape in enumerate(shapes):
        if keeper.wants(shape):
            keeper.keep(shape, kept_frame(number))
        assert len(keeper.frames) <= 12
    kept = np.sort(openings[[frame.number for frame in keeper.frames]])
    assert len(kept) >= 5
    assert kept[0] < 0.08
    assert kept[-1] > 0.32
    assert np.diff(kept).min() > 0.01
    numbers = [frame.number for frame in keeper.frames]
    assert numbers == sorted(numbers)


def test_the_keeper_takes_one_of_equals_and_always_the_first() -> None:
    keeper = ReferenceKeeper(3, 1 << 30)
    shape = mouth_shape(canonical_face()[None])[0]
    assert keeper.wants(shape)
    keeper.keep(shape, kept_frame(7))
    assert not keeper.wants(shape)
    assert [frame.number for frame in keeper.frames] == [7]


def test_of_large_faces_fewer_are_kept() -> None:
    # Each frame's pixels take 1,200 bytes.
    keeper = ReferenceKeeper(40, 5000)
    for number, gap in enumerate(np.linspace(0, 0.4, 30)):
        shape = mouth_shape(canonical_face(gap)[None])[0]
        if keeper.wants(shape):
            keeper.keep(shape, kept_frame(number))
        assert sum(frame.pixels.nbytes for frame in keeper.frames) <= 5000
    assert len(keeper.frames) >= 2
    alone = ReferenceKeeper(40, 10)
    alone.keep(shape, kept_frame(0))
    assert len(alone.frames) == 1


def test_each_reference_has_its_own_pixels_back() -> None:
    boxes = [(3, 5, 23, 25), (0, 0, 7, 9), (100, 40, 101, 60)]
    frames = [kept_frame(number, box) for number, box in enumerate(boxes)]
    _, shot = toy_shot((0.0, 0.1, 0.2))
    shot = replace(shot, **reference_arrays(frames, 8))
    for number, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
        found = patch(shot, number)
        np.testing.assert_array_equal(found.pixels, frame.pixels)
        # The corner of the box is where the whole frame's transform puts it.
        np.testing.assert_allclose(found.transform[:, 2], frame.transform @ [*box[:2], 1], rtol=1e-6)


def test_no_references_are_empty_arrays() -> None:
    arrays = reference_arrays([], 8)
    assert arrays["reference_crops"].shape == (0, 8, 8, 3)
    assert arrays["reference_landmarks"].shape == (0, 478, 3)
    assert arrays["reference_pixels"].shape == (0, 3)
    assert arrays["reference_boxes"].shape == (0, 4)


def test_the_nearest_mouth_is_shown() -> None:
    _, shot = toy_shot((0.0, 0.15, 0.3))
    lower = topology.lower_face()
    openings = [0.0] * 10 + [0.3] * 10 + [0.15] * 10
    chosen = choose_references(shot, np.stack([canonical_face(gap)[lower] for gap in openings]).astype(np.float32))
    assert chosen[:, 0].tolist() == [0] * 10 + [2] * 10 + [1] * 10


def test_a_trifle_is_no_reason_to_switch() -> None:
    _, shot = toy_shot((0.10, 0.11, 0.3))
    wanted = [0.10, 0.11] * 10
    targets = np.stack([canonical_face(gap)[topology.lower_face()] for gap in wanted]).astype(np.float32)
    assert len(set(choose_references(shot, targets)[:, 0].tolist())) == 1


def test_the_path_is_the_cheapest_of_all() -> None:
    costs = np.random.default_rng(0).uniform(0, 0.05, (5, 3))
    for switch in (0.0, SWITCH_COST, 1.0):
        paths = itertools.product(range(3), repeat=5)
        price = {p: costs[range(5), p].sum() + switch * np.count_nonzero(np.diff(p)) for p in paths}
        found = tuple(_cheapest_path(costs, switch).tolist())
        assert price[found] <= min(price.values()) + 1e-12


def test_the_reference_of_a_frame_is_where_its_own_pose_puts_it() -> None:
    _, shot = toy_shot()
    canonical = geometry.fit_pose(shot.reference_landmarks).to_canonical(shot.reference_landmarks)
    np.testing.assert_allclose(geometry.lip_opening(canonical), [0.0, 0.1, 0.2, 0.3], atol=5e-3)


def test_references_keep_away_from_their_frame() -> None:
    _, shot = toy_shot((0.0, 0.15, 0.3))
    lower = topology.lower_face()
    frames = np.array([0, 0, 1])
    targets = np.stack([canonical_face(0.0)[lower]] * 3).astype(np.float32)
    free = choose_references(shot, targets, 1, frames)
    assert free.tolist() == [[0], [0], [0]]
    # The three references are frames 0, 1 and 2: from frame 1 none is two frames away, and the furthest is one.
    assert choose_references(shot, targets, 1, frames, apart=2)[:, 0].tolist() == [2, 2, 0]


def test_further_references_are_the_next_best() -> None:
    _, shot = toy_shot((0.0, 0.1, 0.3))
    targets = np.stack([canonical_face(gap)[topology.lower_face()] for gap in (0.0, 0.3)]).astype(np.float32)
    assert choose_references(shot, targets[:1], 2).tolist() == [[0, 1]]
    assert choose_references(shot, targets[1:], 9).tolist() == [[2, 1, 0]]
