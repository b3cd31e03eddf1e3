"""Figures of lips that move as they are told, or don't."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import ReviewSettings
from dreamhead.evaluation.pictures import Shown
from dreamhead.stages.review.figures import FIGURES, figures
from dreamhead.stages.review.look import Look, Pixels
from tests.toy_faces import canonical_face

SETTINGS = ReviewSettings()
PICTURE = np.zeros((8, 8, 3), np.uint8)
TALK = 0.2 + 0.15 * np.sin(np.arange(30) * 0.7) * np.cos(np.arange(30) * 0.19)
REST = np.full(30, 0.1)


def faces(openings: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([canonical_face(gap) if np.isfinite(gap) else np.full((478, 3), np.nan) for gap in openings])


def pixels(frame: int, **values: float) -> Pixels:
    plain = {"colour_step": 2.0, "edge": 4.0, "true_edge": 4.0, "detail": 10.0, "true_detail": 10.0}
    return Pixels(shown=Shown(frame, PICTURE, PICTURE), **{**plain, "untouched_db": 42.0, **values})


def look(
    ours: NDArray[np.float64],
    wanted: NDArray[np.float64],
    source: NDArray[np.float64],
    start: int = 0,
    rate: float = 25,
) -> Look:
    return Look(
        start=start,
        times_s=(start + np.arange(len(ours))) / rate,
        ours=faces(ours),
        wanted=faces(wanted),
        source=faces(source),
        pixels=[pixels(start)],
    )


def test_lips_that_do_as_they_are_told_are_perfect() -> None:
    found = figures([look(TALK, TALK, REST)], SETTINGS)
    assert found["lip_correlation"] == pytest.approx(1)
    assert found["lip_spread"] == pytest.approx(1)
    assert (found["lip_lag_s"], found["lip_error"], found["faces_found"]) == (0, 0, 1)
    assert found["jitter"] == pytest.approx(1)
    assert (found["sharpness"], found["seam"], found["colour_step"], found["untouched_db"]) == (1, 1, 2, 42)
    assert found["frames_looked_at"] == 30
    assert set(found) <= set(FIGURES)


def test_late_and_lazy_lips_are_told_by_how_much() -> None:
    late = np.concatenate([[TALK[0]] * 2, TALK[:-2]])
    found = figures([look(0.1 + 0.5 * late, TALK, REST)], SETTINGS)
    assert found["lip_lag_s"] == pytest.approx(0.08)
    assert found["lip_correlation"] == pytest.approx(1, abs=1e-3)
    assert found["lip_spread"] == pytest.approx(0.5, abs=0.05)
    assert found["lip_error"] > 0.02


@pytest.mark.parametrize(("rate", "frames"), [(120, 9), (60, 5), (25, 2), (24000 / 1001, 2), (10, 1)])
def test_a_lag_is_a_time_whatever_the_frame_rate(rate: float, frames: int) -> None:
    times_s = np.arange(round(1.5 * rate)) / rate
    talk = 0.2 + 0.1 * np.sin(times_s * 13) * np.cos(times_s * 4.7)
    late = np.concatenate([[talk[0]] * frames, talk[:-frames]])
    found = figures([look(late, talk, np.full(len(talk), 0.1), rate=rate)], SETTINGS)
    assert found["lip_lag_s"] == pytest.approx(frames / rate, abs=1e-5)
    assert figures([look(talk, talk, talk, rate=rate)], SETTINGS)["lip_lag_s"] == 0


def test_one_frame_alone_has_no_lag() -> None:
    found = figures([look(TALK[:1], TALK[:1], TALK[:1]), look(TALK[5:6], TALK[5:6], TALK[:1], 90)], SETTINGS)
    assert "lip_lag_s" not in found
    assert found["lip_error"] == 0


def test_lips_that_follow_nothing_have_no_lag() -> None:
    found = figures([look(0.4 - TALK, TALK, REST)], SETTINGS.model_copy(update={"most_lag_s": 0}))
    assert found["lip_correlation"] == pytest.approx(-1)
    assert "lip_lag_s" not in found


def test_a_shift_never_mixes_two_stretches() -> None:
    # Both late by two frames, and each elsewhere: a pair across the two would spoil the perfect correlation.
    wishes = (TALK[:15], 0.4 - TALK[15:])
    late = [np.concatenate([[wish[0]] * 2, wish[:-2]]) for wish in wishes]
    found = figures(
        [look(*pair, REST[:15], start) for *pair, start in zip(late, wishes, (0, 400), strict=True)], SETTINGS
    )
    assert found["lip_lag_s"] == pytest.approx(0.08)
    assert found["lip_correlation"] == pytest.approx(1, abs=1e-9)
    apart = figures([look(REST[:15], REST[:15], TALK[:15]), look(REST[:15] + 0.3, REST[:15], TALK[:15], 400)], SETTINGS)
    assert apart["jitter"] == pytest.approx(0), "the way from one to the other is no trembling"


def test_lost_faces_are_counted_and_nothing_else_suffers() -> None:
    lost = TALK.copy()
    lost[[3, 4, 17]] = np.nan
    found = figures([look(lost, TALK, REST)], SETTINGS)
    assert found["faces_found"] == pytest.approx(0.9)
    assert found["lip_correlation"] == pytest.approx(1)
    blind = figures([look(TALK * np.nan, TALK, REST)], SETTINGS)
    assert blind["faces_found"] == 0
    assert {"lip_correlation", "lip_lag_s", "lip_error", "jitter"}.isdisjoint(blind)


def test_silence_has_an_error_but_no_correlation() -> None:
    breath = REST + 0.01 * (TALK - 0.2)
    found = figures([look(breath[::-1] * 0.5, breath, TALK)], SETTINGS)
    assert {"lip_correlation", "lip_lag_s", "lip_spread"}.isdisjoint(found)
    assert found["lip_error"] == pytest.approx(0.05, abs=0.01)


def test_trembling_is_held_against_the_livelier_of_source_and_wish() -> None:
    tremble = REST + 0.02 * (-1.0) ** np.arange(30)
    steady = figures([look(tremble, TALK * 0.2, REST)], SETTINGS)["jitter"]
    lively = figures([look(tremble, TALK * 0.2, tremble)], SETTINGS)["jitter"]
    assert steady > 3
    assert lively == pytest.approx(1)
    assert "jitter" not in figures([look(REST, REST, REST)], SETTINGS), "a picture that stands still has no jitter"


def test_pixels_are_held_against_the_sources() -> None:
    one = look(TALK, TALK, REST)._replace(
        pixels=[
            pixels(0, detail=2, edge=9, colour_step=4, untouched_db=20),
            pixels(9, detail=3, edge=3, colour_step=np.nan, untouched_db=np.nan),
        ]
    )
    found = figures([one], SETTINGS)
    assert (found["sharpness"], found["seam"], found["colour_step"], found["untouched_db"]) == (0.25, 1.5, 4, 20)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("faces_found", 0.956, "96 %"),
        ("lip_lag_s", -0.0, "0 ms"),
        ("lip_lag_s", 0.0417, "42 ms"),
        ("untouched_db", 41.26, "41.3 dB"),
        ("seam", 1.234, "1.23"),
    ],
)
def test_a_figure_is_written_for_people(name: str, value: float, text: str) -> None:
    assert FIGURES[name].text(value) == text
