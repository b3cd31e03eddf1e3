"""Draw the lip opening over time, ours next to the speaker's own, as SVG."""

from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 720.0, 130.0
LEFT, BOTTOM, TOP = 30.0, 18.0, 6.0

Curve = Sequence[float | None]


def curves_svg(times_s: Sequence[float], truth: Curve, ours: Curve, worst: Sequence[int] = ()) -> str:
    """An inline SVG of (T,) curves; gaps where nothing is known, and a mark at each of the `worst` frames."""
    top = max([value for value in (*truth, *ours) if value is not None], default=0.0) * 1.05 or 1.0
    length = max(times_s[-1], 1e-3)

    def place(frame: int, value: float) -> str:
        x = LEFT + (WIDTH - LEFT) * times_s[frame] / length
        return f"{x:.1f},{_height(value, top):.1f}"

    parts = [*_axes(length, top)]
    for frame in worst:
        x = place(frame, 0).partition(",")[0]
        parts.append(f'<line class="worst" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for name, curve in (("truth", truth), ("ours", ours)):
        for run in runs(curve):
            points = " ".join(place(frame, value) for frame, value in run)
            parts.append(f'<polyline class="{name}" points="{points}"/>')
    return f'<svg class="curves" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img">{"".join(parts)}</svg>'


def _axes(length: float, top: float) -> Iterator[str]:
    floor = HEIGHT - BOTTOM
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{floor}" y2="{floor}"/>'
    for value in (0.0, top / 1.05):
        yield f'<text x="{LEFT - 3}" y="{_height(value, top) + 3:.1f}" text-anchor="end">{value:.2f}</text>'
    step = next(step for step in (0.5, 1, 2, 5, 10, 30, 60, 1e9) if length / step <= 10)
    for number in range(int(length / step) + 1):
        x = LEFT + (WIDTH - LEFT) * number * step / length
        anchor = "middle" if x < WIDTH - 15 else "end"
        yield f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="{anchor}">{number * step:g} s</text>'


def _height(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top


def runs(curve: Curve) -> Iterator[list[tuple[int, float]]]:
    """The stretches of a curve without gaps, as frames and values."""
    run: list[tuple[int, float]] = []
    for frame, value in enumerate(curve):
        if value is not None:
            run.append((frame, value))
        elif run:
            yield run
            run = []
    if run:
        yield run
