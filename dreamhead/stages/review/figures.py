"""The figures of a review: what each means, and how they come from what was seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dreamhead.config import ReviewSettings
from dreamhead.evaluation import metrics
from dreamhead.faces import geometry
from dreamhead.faces.reference import LIPS

if TYPE_CHECKING:
    # Whoever only writes figures needs none of what looks at faces.
    from dreamhead.stages.review.look import Look

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Figure:
    """How one figure is named and written for people."""

    label: str
    digits: int
    meaning: str
    unit: str = ""
    """As it is written."""
    scale: float = 1.0
    """Of what is written over the value."""

    def text(self, value: float) -> str:
        """The value with its unit."""
        # Adding zero turns the zero below zero into plain zero.
        rounded = round(self.scale * value, self.digits) + 0.0
        return f"{rounded:.{self.digits}f} {self.unit}".rstrip()


FIGURES: dict[str, Figure] = {
    "score": Figure(
        "score", 2, "Of all figures, how far the worst is on its way from perfect (0) to its limit (1), and beyond."
    ),
    "lip_correlation": Figure(
        "lips follow",
        2,
        "Correlation (Pearson) of the lip opening found in the output with the wanted one, at the lag.",
    ),
    "lip_lag_s": Figure(
        "lag",
        0,
        "Time by which the lips are late where that is best, in whole frames; below 0: early. Seconds in the results.",
        "ms",
        scale=1000,
    ),
    "lip_spread": Figure("lip motion", 2, "Standard deviation of the lip opening, relative to the wanted one's."),
    "lip_error": Figure("lip error", 3, "Mean distance of the lip opening from the wanted one, in eye distances."),
    "faces_found": Figure(
        "faces found", 0, "Share of the frames looked at in which the detector still finds the face.", "%", scale=100
    ),
    "sharpness": Figure(
        "sharpness", 2, "Energy of the Laplacian of the mouth, relative to the source's mouth; below 1 is softer."
    ),
    "seam": Figure("seam", 2, "Change of colour across the mask's edge, relative to the source's; 1 is no seam."),
    "colour_step": Figure(
        "colour step", 1, "Levels of 255 by which that change differs from the source's; moving skin makes some, too."
    ),
    "jitter": Figure(
        "jitter",
        2,
        "Mean second difference over time of the lips' points, relative to the source's or the wanted one, whichever "
        "is more.",
    ),
    "untouched_db": Figure(
        "untouched", 1, "PSNR against the source of the pixels around the face that weren't painted.", "dB"
    ),
    "passed_through": Figure(
        "passed through", 0, "Share of the frames to be dubbed that show the source instead.", "%", scale=100
    ),
    "frames_looked_at": Figure("frames looked at", 0, "Frames of the output that were decoded and measured."),
}
"""In the order in which people see them."""


def figures(looks: Sequence["Look"], settings: ReviewSettings) -> dict[str, float]:
    """Figures by name, without those that can't be had: of lips that stand still, or of a source that does."""
    step_s = _step_s(looks)
    gap = round(settings.most_lag_s / step_s)
    ours, wanted = (_joined([opening(getattr(look, name)) for look in looks], gap) for name in ("ours", "wanted"))
    seen = np.concatenate([np.isfinite(opening(look.ours)) for look in looks])
    found = {
        "lip_error": _mean(np.abs(ours - wanted)),
        "faces_found": float(seen.mean()),
        "jitter": _jitter(looks),
        "frames_looked_at": float(len(seen)),
        **_pixel_figures(looks),
    }
    if metrics.spread(wanted) >= settings.min_motion:
        best = metrics.lag_correlation(ours, wanted, gap)
        found["lip_correlation"] = best.best
        # Of lips that follow nothing a lag says nothing.
        found["lip_lag_s"] = best.lag * step_s if best.best >= settings.min_correlation else np.nan
        found["lip_spread"] = _ratio(metrics.spread(ours), metrics.spread(wanted))
    return {name: round(value, 6) for name, value in found.items() if np.isfinite(value)}


def opening(faces: Floats) -> NDArray[np.float64]:
    """(T,) lip opening of (T, 478, 3) canonical faces, in eye distances."""
    return np.asarray(geometry.lip_opening(faces), np.float64)


def _pixel_figures(looks: Sequence["Look"]) -> dict[str, float]:
    pixels = [one for look in looks for one in look.pixels]
    detail, true_detail = _mean([one.detail for one in pixels]), _mean([one.true_detail for one in pixels])
    return {
        "sharpness": _ratio(detail, true_detail),
        "seam": _ratio(_mean([one.edge for one in pixels]), _mean([one.true_edge for one in pixels])),
        "colour_step": _mean([one.colour_step for one in pixels]),
        "untouched_db": _mean([one.untouched_db for one in pixels]),
    }


def _step_s(looks: Sequence["Look"]) -> float:
    """Seconds from one frame to the next, in the mean; infinite where no two of them are neighbours."""
    steps = np.concatenate([np.diff(look.times_s) for look in looks])
    return float(steps.mean()) if len(steps) else float("inf")


def _joined(curves: Sequence[Floats], gap: int) -> Floats:
    """(T,) the stretches' curves with so many unknown frames between them that no shift mixes two of them."""
    unknown = np.full(gap, np.nan)
    return np.concatenate([part for curve in curves for part in (curve, unknown)])


def _jitter(looks: Sequence["Look"]) -> float:
    """A source that hardly speaks is no measure of lips that should: the livelier of the two is.

    All three are of the same frames, so that the frame rate, which their second differences depend on, cancels out.
    """
    ours, source, wanted = (
        metrics.jitter(_joined_points([getattr(look, name)[:, LIPS] for look in looks]))
        for name in ("ours", "source", "wanted")
    )
    return _ratio(ours, max(source, wanted))


def _joined_points(stretches: Sequence[Floats]) -> Floats:
    unknown = np.full((1, *stretches[0].shape[1:]), np.nan)
    return np.concatenate([part for stretch in stretches for part in (stretch, unknown)])


def _mean(values: Floats | Sequence[float]) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ratio(ours: float, other: float) -> float:
    return ours / other if other > 0 else float("nan")
