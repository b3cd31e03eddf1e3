"""Counts, confidence and chance against values that are known."""

import math

import pytest

from dreamhead.evaluation.blind.ballot import Preferred, Vote
from dreamhead.evaluation.blind.tally import Tally, by_clip, by_judge, sign_test, wilson


def test_the_score_interval_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert wilson(hits, count) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert wilson(1, 29) == (pytest.approx(0.0061, abs=1e-4), pytest.approx(0.1718, abs=1e-4))
    assert wilson(20, 20)[1] == 1
    assert wilson(0, 0) == (0, 1)


def test_the_sign_test_is_exact_and_two_sided() -> None:
    assert sign_test(0, 0) == sign_test(3, 3) == 1
    assert sign_test(5, 0) == sign_test(0, 5) == pytest.approx(2 / 32)
    assert sign_test(8, 2) == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert 0 < sign_test(1200, 900) < 1e-9


def vote(judge: str, clip: str, preferred: Preferred) -> Vote:
    return Vote(judge, clip, preferred, "a", 3.0)


def test_ties_count_apart() -> None:
    tally = Tally.of(["a", "a", "a", "b", "equal", "equal"])
    assert (tally.a, tally.b, tally.equal) == (3, 1, 2)
    assert tally.share == 0.75
    assert tally.interval == wilson(3, 4)
    assert tally.p_value == sign_test(3, 1)
    assert math.isnan(Tally.of(["equal"]).share)
    assert Tally.of([]).interval == (0, 1)


def test_a_clip_has_one_voice_however_many_judge_it() -> None:
    votes = [
        *(vote(judge, "one", "a") for judge in ("x", "y", "z")),
        vote("x", "two", "b"),
        vote("x", "three", "a"),
        vote("y", "three", "b"),
        vote("x", "four", "equal"),
        vote("y", "four", "b"),
    ]
    assert by_clip(votes) == Tally(a=1, b=2, equal=1)
    assert by_judge(votes) == {"x": Tally(2, 1, 1), "y": Tally(1, 2, 0), "z": Tally(1, 0, 0)}
