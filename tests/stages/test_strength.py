"""How much of a frame is dubbed, near frames that aren't."""

import numpy as np
import pytest

from dreamhead.records import Route, Segment
from dreamhead.stages.strength import count_routes, inside_segments, ramp

TIMES_S = np.arange(10) * 0.04


def test_fades_on_both_sides_of_what_is_passed_through() -> None:
    wanted = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 1], dtype=bool)
    expected = [1, 1, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 1, 1, 1]
    assert ramp(wanted, TIMES_S, 0.12).tolist() == pytest.approx(expected)


def test_a_shot_without_gaps_begins_and_ends_at_once() -> None:
    assert ramp(np.ones(10, dtype=bool), TIMES_S, 0.12).tolist() == [1.0] * 10


def test_nothing_wanted_is_nothing_dubbed() -> None:
    assert not ramp(np.zeros(10, dtype=bool), TIMES_S, 0.12).any()


def test_no_fade_is_a_step() -> None:
    wanted = np.array([0, 1, 1, 0, 0, 0, 0, 0, 0, 1], dtype=bool)
    assert ramp(wanted, TIMES_S, 0.0).tolist() == wanted.astype(float).tolist()


def test_segments_hold_their_start_and_not_their_end() -> None:
    inside = inside_segments((Segment(0.04, 0.12), Segment(0.32, 9.0)), TIMES_S)
    assert np.flatnonzero(inside).tolist() == [1, 2, 8, 9]
    assert inside_segments((), TIMES_S).all()


def test_only_frames_that_could_be_dubbed_count_as_outside() -> None:
    routes = np.array([Route.DUB, Route.DUB, Route.NO_FACE, Route.DUB], dtype=np.uint8)
    inside = np.array([True, False, False, False])
    assert count_routes(routes, inside) == {"DUB": 1, "NO_FACE": 1, "OUTSIDE_SEGMENTS": 2}
