"""Draw the lip openings of a few stretches side by side, on one scale, as SVG."""

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from dreamhead.evaluation.curves import Curve, runs

WIDTH, HEIGHT = 360.0, 100.0
LEFT, BOTTOM, TOP, GAP = 26.0, 15.0, 6.0, 8.0
NAMES = ("source", "wanted", "ours")
"""In the order of drawing: the last is on top."""
LABEL_WIDTH = 46.0
"""Least room from one time that is written to the next."""


def curves_svg(stretches: Sequence[dict[str, Any]]) -> Markup:
    """An inline SVG of the `curves` of a review; the time under each stretch is that of its first frame."""
    known = [value for part in stretches for name in NAMES for value in part[name] if value is not None]
    top = max(known, default=0.0) * 1.05 or 1.0
    frames = sum(len(part["times_s"]) for part in stretches)
    scale = (WIDTH - LEFT - GAP * (len(stretches) - 1)) / max(1, frames)
    parts, left, written = [*_scale(top)], LEFT, -LABEL_WIDTH
    for part in stretches:
        width = scale * len(part["times_s"])
        parts.append(f'<rect class="stretch" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{_floor() - TOP}"/>')
        if left - written >= LABEL_WIDTH:
            parts.append(f'<text x="{left:.1f}" y="{HEIGHT - 4}">{clock(part["times_s"][0])}</text>')
            written = left
        parts += [line for name in NAMES for line in _lines(name, part[name], left, scale, top)]
        left += width + GAP
    return Markup(f'<svg class="curves" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img">{"".join(parts)}</svg>')


def clock(seconds: float) -> str:
    """Time of a video, as players write it."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{rest:04.1f}"


def _scale(top: float) -> Iterator[str]:
    for value in (0.0, top / 1.05):
        yield f'<text x="{LEFT - 4}" y="{_height(value, top) + 4:.1f}" text-anchor="end">{value:.2f}</text>'


def _lines(name: str, curve: Curve, left: float, scale: float, top: float) -> Iterator[str]:
    for run in runs(curve):
        points = " ".join(f"{left + scale * (frame + 0.5):.1f},{_height(value, top):.1f}" for frame, value in run)
        yield f'<polyline class="{name}" points="{points}"/>'


def _floor() -> float:
    return HEIGHT - BOTTOM


def _height(value: float, top: float) -> float:
    return _floor() - (_floor() - TOP) * value / top
