"""Limits, reasons and the score."""

from typing import Any

import pytest

from dreamhead.config import ReviewSettings, parse
from dreamhead.errors import ConfigError
from dreamhead.stages.review.verdict import MOST, breaches, limits, score

GOOD = {
    "faces_found": 1.0,
    "lip_correlation": 0.97,
    "lip_lag_s": 0.0,
    "lip_spread": 0.9,
    "lip_error": 0.02,
    "sharpness": 0.6,
    "seam": 1.0,
    "colour_step": 5.0,
    "jitter": 1.1,
    "untouched_db": 43.0,
    "passed_through": 0.0,
}


def test_every_figure_with_a_limit_is_held_against_it() -> None:
    assert {limit.figure for limit in limits(ReviewSettings())} == set(GOOD)
    assert all(hasattr(ReviewSettings(), limit.setting) for limit in limits(ReviewSettings()))


def test_a_good_dub_gives_no_reason() -> None:
    assert breaches(GOOD, ReviewSettings()) == []
    assert 0 < score(GOOD, ReviewSettings()) < 1
    assert score({}, ReviewSettings()) == 0


@pytest.mark.parametrize(
    ("figure", "value", "reason"),
    [
        ("faces_found", 0.5, "the face is found again in only 50 % of the frames; expected 95 %"),
        ("lip_correlation", 0.41, "the lips hardly follow the wanted motion: correlation 0.41; expected 0.70"),
        ("lip_lag_s", 0.08, "the lips are late by 80 ms; at most 60 ms"),
        ("lip_lag_s", -0.12, "the lips are early: a lag of -120 ms; at least -60 ms"),
        ("lip_spread", 0.2, "the lips move too little: 0.20 of what was wanted; at least 0.50"),
        ("lip_spread", 2.5, "the lips move too much: 2.50 of what was wanted; at most 1.60"),
        ("lip_error", 0.2, "the lip opening is off by 0.200 eye distances; at most 0.100"),
        ("sharpness", 0.1, "the mouth is softer than the source's: 0.10; at least 0.25"),
        ("seam", 1.5, "the mask's edge shows: 1.50 of the source's change of colour there; at most 1.30"),
        ("colour_step", 20, "the colour changes at the mask's edge by 20.0 levels; at most 14.0"),
        ("jitter", 3, "the lips tremble: 3.00 of the natural jitter; at most 2.00"),
        ("untouched_db", 20, "pixels that weren't painted differ from the source's: 20.0 dB; at least 28.0 dB"),
        ("passed_through", 0.4, "40 % of the frames to be dubbed passed through; at most 20 %"),
    ],
)
def test_what_is_beyond_its_limit_is_a_plain_sentence(figure: str, value: float, reason: str) -> None:
    (found,) = breaches({**GOOD, figure: value}, ReviewSettings())
    assert found.reason == reason
    assert found.terse.startswith(f"{figure} is {value:g}; at ")
    assert score({**GOOD, figure: value}, ReviewSettings()) > 1


@pytest.mark.parametrize(
    ("rate", "allowed"), [(120, 7), (60, 3), (50, 3), (30, 1), (25, 1), (24000 / 1001, 1), (20, 1), (10, 0)]
)
def test_the_lips_may_be_off_by_a_time_at_any_frame_rate(rate: float, allowed: int) -> None:
    for frames in (allowed, -allowed):
        assert breaches({**GOOD, "lip_lag_s": frames / rate}, ReviewSettings()) == []
    for frames in (allowed + 1, -allowed - 1):
        (found,) = breaches({**GOOD, "lip_lag_s": frames / rate}, ReviewSettings())
        assert found.limit.setting == "max_lag_s"


def test_the_score_is_one_at_the_limit_and_grows_beyond() -> None:
    settings = ReviewSettings(max_lip_error=0.1)
    scores = [score({"lip_error": value}, settings) for value in (0.0, 0.05, 0.1, 0.2, 50.0)]
    assert scores == [0, 0.5, 1, 2, MOST]


def test_a_limit_of_perfection_is_allowed() -> None:
    strict = ReviewSettings(min_faces_found=1, max_lag_s=0, max_passed_through=0)
    assert breaches(GOOD, strict) == []
    almost = {**GOOD, "faces_found": 0.99, "lip_lag_s": 0.04, "passed_through": 0.01}
    assert {breach.limit.figure for breach in breaches(almost, strict)} == {
        "faces_found",
        "lip_lag_s",
        "passed_through",
    }
    assert score(almost, strict) == MOST


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gate": "maybe"}, "gate: Input should be 'report', 'fail' or 'off'"),
        ({"max_frames": 5}, "max_frames 5 is below min_frames 25"),
        ({"max_spread": 0.9}, "max_spread: Input should be greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(values, ReviewSettings, "settings.yaml")
