"""Look at a take's pixels once: figures, others' networks, and the pictures for the report."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamhead.evaluation.conditions import Take
from dreamhead.evaluation.judges import PictureJudges
from dreamhead.evaluation.measure import Pair, PixelMeter, pairs
from dreamhead.evaluation.pictures import Shown
from dreamhead.evaluation.settings import EvaluationSettings
from dreamhead.evaluation.source import JudgedSource

Floats = NDArray[np.floating[Any]]


class Look(NamedTuple):
    """What the pixels said."""

    figures: dict[str, float]
    shown: list[Shown]
    """The moments' pictures, in order."""
    features: dict[str, NDArray[np.float32]]
    """Inception's (N, C) `ours` and `truth`; empty without its weights."""


def look(
    source: JudgedSource,
    take: Take,
    landmarks: NDArray[np.float32],
    judged: NDArray[np.bool_],
    moments: list[int],
    has_truth: bool,
    settings: EvaluationSettings,
    judges: PictureJudges,
) -> Look:
    """Walk the judged frames of a take and its source.

    Args:
        landmarks: (T, 478, 3) ours, in pixels; NaN where no face was found.
        judged: (T,).
        moments: frames to show.
        has_truth: whether our pixels should be the source's.
    """
    meter, panel = PixelMeter(has_truth), _Panel(judges, has_truth)
    shown: list[Shown] = []
    for number, pair in enumerate(pairs(source, take, landmarks, judged, settings.dub.render.feather)):
        meter.add(pair)
        if number % settings.network_every == 0:
            panel.add(pair, source.landmarks[pair.frame], landmarks[pair.frame])
        if pair.frame in moments:
            shown.append(Shown(pair.frame, pair.truth, pair.ours))
    return Look({**meter.figures(), **panel.figures()}, shown, panel.features())


class _Panel:
    """Gathers what others' networks say."""

    def __init__(self, judges: PictureJudges, has_truth: bool) -> None:
        self._judges = judges
        self._has_truth = has_truth
        self._values: dict[str, list[float]] = {}
        self._features: dict[str, list[NDArray[np.float32]]] = {}

    def add(self, pair: Pair, true_landmarks: Floats, our_landmarks: Floats) -> None:
        judges = self._judges
        if np.isfinite(our_landmarks).all():
            self._note("identity", judges.identity(pair.our_frame, our_landmarks, pair.true_frame, true_landmarks))
        if self._has_truth:
            self._note("lpips", judges.distance(pair.ours, pair.truth))
        for name, crop in (("ours", pair.ours), ("truth", pair.truth)):
            features = judges.features(crop)
            if features is not None:
                self._features.setdefault(name, []).append(features)

    def figures(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self._values.items()}

    def features(self) -> dict[str, NDArray[np.float32]]:
        return {name: np.stack(rows) for name, rows in self._features.items()}

    def _note(self, name: str, value: float | None) -> None:
        if value is not None:
            self._values.setdefault(name, []).append(value)
