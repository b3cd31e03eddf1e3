"""The loose crop has more room below, is grey outside the frame, and doesn't jump."""

import numpy as np
import pytest

from dreamhead.faces.loose_crop import BORDER, loose_crop, steady


def test_the_crop_is_a_square_with_more_room_below() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[40:60] = 255
    crop = loose_crop(frame, np.array([50.0, 50.0, 20.0]), 224)
    # From 30 to 86 down: the white rows 40 to 60 stand at 10/56 to 30/56 of it.
    white = np.flatnonzero(crop[:, 112, 0] > 127)
    assert (white[0] / 224, white[-1] / 224) == (pytest.approx(10 / 56, abs=0.02), pytest.approx(30 / 56, abs=0.02))
    assert crop[-1, 112, 0] == 0
    assert loose_crop(frame, np.array([90.0, 50.0, 20.0]), 224)[112, -1, 0] == BORDER


def test_medians_hold_the_ends_and_drop_a_jump() -> None:
    values = np.ones((20, 1))
    values[7] = 100
    np.testing.assert_array_equal(steady(values), np.ones((20, 1)))
