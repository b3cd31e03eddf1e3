"""Curves of a few stretches on one scale."""

import re
from xml.etree import ElementTree

import pytest

from dreamhead.stages.review.curves import HEIGHT, LEFT, WIDTH, clock, curves_svg


def stretch(start_s: float, ours: list[float | None]) -> dict[str, list[float | None]]:
    times_s: list[float | None] = [start_s + index / 25 for index in range(len(ours))]
    return {"times_s": times_s, "ours": ours, "wanted": [0.2] * len(ours), "source": [0.0] * len(ours)}


def points(svg: str, name: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(rf'<polyline class="{name}" points="([^"]*)"', svg)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in lines]


def test_stretches_stand_side_by_side_on_one_scale() -> None:
    svg = curves_svg([stretch(2.0, [0.1, 0.4, 0.1]), stretch(90.0, [0.2, None, 0.2])])
    ElementTree.fromstring(svg)
    first, *broken = points(svg, "ours")
    assert [len(line) for line in (first, *broken)] == [3, 1, 1]
    xs = [x for line in (first, *broken) for x, _ in line]
    assert xs == sorted(xs)
    assert min(xs) >= LEFT
    assert max(xs) <= WIDTH
    (wanted, other) = points(svg, "wanted")
    assert wanted[0][1] == other[0][1], "both stretches have one scale"
    assert first[1][1] < wanted[1][1] < points(svg, "source")[0][0][1] < HEIGHT
    assert ">0:02.0<" in svg
    assert ">1:30.0<" in svg


def test_what_is_all_unknown_is_an_empty_drawing() -> None:
    svg = curves_svg([{"times_s": [0.0], "ours": [None], "wanted": [None], "source": [None]}])
    ElementTree.fromstring(svg)
    assert "polyline" not in svg


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (9.96, "0:10.0"), (59.97, "1:00.0"), (125.5, "2:05.5"), (3725.25, "1:02:05.2")]
)
def test_times_are_written_as_players_do(seconds: float, text: str) -> None:
    assert clock(seconds) == text
