"""Which moments are shown, and how."""

import cv2
import numpy as np

from dreamhead.evaluation.pictures import GAP, Shown, choose_moments, sheet, strip


def test_moments_are_spread_and_the_worst_are_among_them() -> None:
    judged = np.ones(100, bool)
    judged[:20] = False
    badness = np.zeros(100)
    badness[[10, 50, 52, 70]] = [9, 5, 4, 3]
    badness[51] = np.nan
    moments, worst = choose_moments(judged, badness, even=3, worst=2)
    # 10 isn't judged, and 52 shows what 50 shows.
    assert worst == [50, 70]
    assert moments == [20, 50, 60, 70, 99] or moments == sorted({20, 50, 59, 70, 99})


def test_a_short_stretch_shows_what_it_has() -> None:
    moments, worst = choose_moments(np.array([True, True]), np.array([0.0, 1.0]), even=5, worst=3)
    assert (moments, worst) == ([0, 1], [1])


def test_a_strip_has_the_source_above_and_a_rim_around_the_worst() -> None:
    dark, bright = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    data = strip([Shown(3, dark, bright), Shown(9, dark, bright)], worst=[9], side=48)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (2 * 48 + GAP, 2 * 48 + GAP, 3)
    assert picture[24, 24].max() < 60
    assert picture[48 + GAP + 24, 24].min() > 180
    rim = picture[48 + GAP + 1, 48 + GAP + 24].astype(int)
    assert rim[0] > 170 > 110 > rim[1]


def test_a_sheet_has_strips_below_each_other_and_white_where_none_is_left() -> None:
    dark, bright = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    data = sheet([Shown(frame, dark, bright) for frame in range(4)], worst=[3], side=48, columns=3, quality=90)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    strip_px = 2 * 48 + GAP
    assert picture.shape == (2 * strip_px + 2 * GAP, 3 * 48 + 2 * GAP, 3)
    second = picture[strip_px + 2 * GAP :]
    assert second[24, 24].max() < 60
    assert second[48 + GAP + 24, 24].min() > 180
    assert second[:, 48 + 2 * GAP :].min() > 240
    rim = second[48 + GAP + 1, 24].astype(int)
    assert rim[0] > 170 > 110 > rim[1]
