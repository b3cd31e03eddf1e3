"""Batches moved by torch equal what `faces.warp` moves one by one."""

import numpy as np
import pytest
import torch

from dreamhead.faces.mesh_index import VERTICES, mesh, triangle_index, vertices
from dreamhead.faces.warp import displacement, warp
from dreamhead.models.warping import blurred, pixel_grid, sample, sources, stretch
from tests.toy_faces import canonical_face, posed, texture, turn

SIZE = 96


def face(gap: float, shift: float = 0.0) -> np.ndarray:
    return posed(canonical_face(gap), 34, (48 + shift, 30), turn(4 * shift)).astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_the_same_pixels_come_from_the_same_places(shift: float) -> None:
    start, end = face(0.05), face(0.3, shift)
    field = displacement(start, end, SIZE)
    corners = torch.from_numpy(np.stack([vertices(start), vertices(end)]))[..., :2]
    index = torch.from_numpy(triangle_index(vertices(end), SIZE)).flatten()[None].long()
    points = pixel_grid(SIZE, SIZE, torch.device("cpu")).flatten(0, 1)[None]
    found = (
        sources(corners[1:], corners[None, :1], torch.from_numpy(mesh()), index, points)[0, 0]
        .view(SIZE, SIZE, 2)
        .numpy()
    )
    inside = np.zeros((SIZE, SIZE), bool)
    inside[40:90, 30:66] = True
    # Along the edges of triangles the one or the other may be drawn.
    apart = np.linalg.norm(found - field.source, axis=-1)[inside]
    assert np.quantile(apart, 0.9) < 1e-3
    assert apart.max() < 3
    grown = stretch(corners[1:], corners[None, :1], torch.from_numpy(mesh()), index)[0, 0].view(SIZE, SIZE).numpy()
    assert np.quantile(np.abs(grown - field.stretch)[inside], 0.9) < 1e-3
    picture = texture(SIZE, SIZE, 3)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    moved = sample(pixels, torch.from_numpy(field.source)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(np.clip(moved, 0, 255) - warp(picture, field))[inside].mean() < 0.7


def test_outside_the_mesh_nothing_moves() -> None:
    start, end = face(0.05), face(0.3)
    corners = torch.from_numpy(np.stack([vertices(start), vertices(end)]))[..., :2]
    assert corners.shape == (2, VERTICES, 2)
    index = torch.full((1, 4), -1)
    points = torch.tensor([[[0.0, 0.0], [3.0, 1.0], [90.0, 2.0], [5.0, 95.0]]])
    found = sources(corners[1:], corners[None, :1], torch.from_numpy(mesh()), index, points)
    assert torch.equal(found[0, 0], points[0])
    assert not stretch(corners[1:], corners[None, :1], torch.from_numpy(mesh()), index).any()


def test_a_coarse_grid_lies_in_the_middle_of_its_squares() -> None:
    grid = pixel_grid(8, 8, torch.device("cpu"), 4)
    assert grid.tolist() == [[[1.5, 1.5], [5.5, 1.5]], [[1.5, 5.5], [5.5, 5.5]]]


def test_a_blur_keeps_what_is_flat_and_its_sum() -> None:
    flat = torch.full((1, 2, 12, 12), 0.3)
    torch.testing.assert_close(blurred(flat, 1.5), flat)
    dot = torch.zeros(1, 1, 31, 31)
    dot[0, 0, 15, 15] = 1
    spread = blurred(dot, 1.5)
    assert float(spread.sum()) == pytest.approx(1, rel=1e-5)
    assert float(spread[0, 0, 15, 15]) == pytest.approx(1 / (2 * np.pi * 1.5**2), rel=0.02)
