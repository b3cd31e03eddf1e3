"""Look at a take's pixels once: figures, others' networks, and the pictures for the report."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamhead.evaluation.conditions import Take
from dreamhead.evaluation.judges import PictureJudges
from dreamhead.evaluation.measure import Pair, PixelMeter, mouth_window, pairs
from dreamhead.evaluation.metrics import weighted_psnr
from dreamhead.evaluation.pictures import Shown, shrunk
from dreamhead.evaluation.recognition import moments_apart
from dreamhead.evaluation.settings import EvaluationSettings
from dreamhead.evaluation.source import JudgedSource

Floats = NDArray[np.floating[Any]]


class Look(NamedTuple):
    """What the pixels said."""

    figures: dict[str, float]
    shown: dict[int, Shown]
    """By judged frame: its pictures, as small as the report shows them."""
    picture_error: NDArray[np.float64]
    """(T,) minus the mouth's PSNR in dB; NaN where it isn't known."""
    features: dict[str, NDArray[np.float32]]
    """Inception's (N, C) `ours` and `truth`; empty without its weights."""


def look(
    source: JudgedSource,
    take: Take,
    landmarks: NDArray[np.float32],
    judged: NDArray[np.bool_],
    has_truth: bool,
    settings: EvaluationSettings,
    judges: PictureJudges,
) -> Look:
    """Walk the judged frames of a take and its source.

    Args:
        landmarks: (T, 478, 3) ours, in pixels; NaN where no face was found.
        judged: (T,).
        has_truth: whether our pixels should be the source's.
    """
    meter, panel = PixelMeter(has_truth), _Panel(judges, has_truth, source)
    shown: dict[int, Shown] = {}
    error = np.full(len(judged), np.nan)
    for number, pair in enumerate(pairs(source, take, landmarks, judged, settings.dub.render.feather)):
        meter.add(pair)
        if number % settings.network_every == 0:
            panel.add(pair, landmarks[pair.frame])
        shown[pair.frame] = Shown(pair.frame, *(shrunk(crop, settings.picture_px) for crop in (pair.truth, pair.ours)))
        if has_truth:
            error[pair.frame] = -weighted_psnr(pair.ours, pair.truth, pair.true_mouth)
    return Look({**meter.figures(), **panel.figures(settings.apart_s)}, shown, error, panel.features())


class _Panel:
    """Gathers what others' networks say."""

    def __init__(self, judges: PictureJudges, has_truth: bool, source: JudgedSource) -> None:
        self._judges = judges
        self._has_truth = has_truth
        self._source = source
        self._values: dict[str, list[float]] = {}
        self._features: dict[str, list[NDArray[np.float32]]] = {}

    def add(self, pair: Pair, our_landmarks: Floats) -> None:
        judges = self._judges
        true_face = self._true_face(pair)
        if true_face is not None and np.isfinite(our_landmarks).all():
            our_face = judges.embedding(pair.our_frame, our_landmarks)
            assert our_face is not None, "who recognises one frame recognises the other"
            self._note("identity_distance", float(np.linalg.norm(our_face - true_face)))
        if self._has_truth:
            window = mouth_window(pair.true_mouth)
            self._note("perceptual", judges.perceptual(pair.ours[window], pair.truth[window], pair.true_mouth[window]))
            self._note("lpips", judges.distance(pair.ours, pair.truth))
        for name, crop in (("ours", pair.ours), ("truth", pair.truth)):
            features = judges.features(crop)
            if features is not None:
                self._features.setdefault(name, []).append(features)

    def figures(self, apart_s: float) -> dict[str, float]:
        """Means over the frames; identity relative to two moments of the source that are `apart_s` apart or more."""
        found = {name: float(np.mean(values)) for name, values in self._values.items()}
        if "identity_distance" in found:
            frames = sorted(self._source.faces)
            faces = np.stack([self._source.faces[frame] for frame in frames])
            apart = moments_apart(faces, self._source.info.times_s[frames], apart_s)
            found["identity"] = found["identity_distance"] / apart if apart > 0 else float("nan")
        return found

    def _true_face(self, pair: Pair) -> NDArray[np.float64] | None:
        """The embedding of the source's face, made once for all conditions."""
        known = self._source.faces
        if pair.frame not in known:
            found = self._judges.embedding(pair.true_frame, self._source.landmarks[pair.frame])
            if found is None:
                return None
            known[pair.frame] = found
        return known[pair.frame]

    def features(self) -> dict[str, NDArray[np.float32]]:
        return {name: np.stack(rows) for name, rows in self._features.items()}

    def _note(self, name: str, value: float | None) -> None:
        if value is not None:
            self._values.setdefault(name, []).append(value)
