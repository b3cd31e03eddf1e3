"""The drawn contours: one colour a feature, nothing where no landmark is."""

import numpy as np
import pytest

from dreamhead.faces import topology
from dreamhead.faces.landmark_image import CONTOURS, draw
from tests.toy_faces import canonical_face, posed


def test_every_feature_has_its_colour() -> None:
    landmarks = posed(canonical_face(0.3), 90, (128, 60))
    image = draw(landmarks, 256)
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    for indices, _, colour in CONTOURS:
        columns, rows = np.rint(landmarks[list(indices), :2]).astype(int).T
        shown = (rows >= 0) & (rows < 256) & (columns >= 0) & (columns < 256)
        patches = [image[row - 1 : row + 2, column - 1 : column + 2] for row, column in zip(rows, columns, strict=True)]
        near = [np.abs(patch.astype(int) - colour).sum(axis=2).min() for patch in np.array(patches, object)[shown]]
        assert np.median(near) < 90, colour


def test_the_four_lip_contours_differ() -> None:
    lips = (topology.OUTER_UPPER_LIP, topology.OUTER_LOWER_LIP, topology.INNER_UPPER_LIP, topology.INNER_LOWER_LIP)
    assert len({colour for indices, _, colour in CONTOURS if indices in lips}) == 4


@pytest.mark.parametrize("middle", [(-900.0, 30.0), (30.0, 5000.0)])
def test_a_face_beyond_the_picture_draws_nothing(middle: tuple[float, float]) -> None:
    assert not draw(posed(canonical_face(), 40, middle), 64).any()


def test_lines_are_anti_aliased_and_most_of_the_picture_is_black() -> None:
    image = draw(posed(canonical_face(), 25, (32, 20)), 64)
    assert len(np.unique(image)) > 20
    assert (image.max(axis=2) == 0).mean() > 0.5


def test_a_mouth_that_opens_moves_its_lower_contour_only() -> None:
    shut, wide = (draw(posed(canonical_face(gap), 90, (128, 60)), 256) for gap in (0.0, 0.3))
    np.testing.assert_array_equal(shut[:90], wide[:90])
    assert (shut != wide).any()


def test_fractions_of_a_pixel_show() -> None:
    here, there = (draw(posed(canonical_face(), 25, (32 + shift, 20)), 64) for shift in (0.0, 0.25))
    assert (here != there).any()
