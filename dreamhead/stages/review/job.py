"""Review one job's output before it is published, and keep what was found beside the job's result."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead import __version__, pretrained, storage
from dreamhead.config import ReviewSettings
from dreamhead.errors import DreamheadError, QualityError
from dreamhead.evaluation.pictures import Shown, sheet
from dreamhead.records import Chunk, Job, Route, VideoInfo
from dreamhead.stages.artefacts import load_arrays, load_shot, save_json
from dreamhead.stages.prepare import PreparedJob
from dreamhead.stages.review.figures import figures, opening
from dreamhead.stages.review.look import Look, look_at
from dreamhead.stages.review.record import Review, passed_through, review_uri, sheet_uri
from dreamhead.stages.review.sample import SHORT, at_rate, choose_stretches, frames_wanted
from dreamhead.stages.review.verdict import breaches, score
from dreamhead.stages.source import open_source
from dreamhead.stages.strength import strength_of
from dreamhead.stages.work import Work

MOMENTS, COLUMNS = 6, 3
SIDE_PX, QUALITY = 232, 80
"""Of one picture of the contact sheet, and of its JPEG."""
UNSEEN = 9.0
"""Badness of a frame in which no face is found: more than any error of a lip opening, in eye distances."""
BROKEN = (DreamheadError, RuntimeError, ValueError, cv2.error)
"""What looking may raise: a dub is not lost because the look at it failed."""

logger = logging.getLogger(__name__)


def review(prepared: PreparedJob, chunks: Sequence[Chunk], work: Work, output: VideoInfo) -> None:
    """Look at a finished output, and publish review.json and sheet.jpg beside the job's result.

    A look that fails is told of in the review. Raises QualityError where the settings say that a figure beyond its
    limit fails the job, and StorageError.

    Args:
        chunks: all of them, in order.
        output: the output's file, wherever it lies.
    """
    settings = work.settings.review
    if settings.gate == "off":
        return
    began = time.perf_counter()
    found, picture = _review(prepared, chunks, work, output)
    found = replace(found, reasons=[*found.reasons, *_overlays(chunks)])
    if picture:
        storage.write_bytes(sheet_uri(review_uri(prepared.job, work)), picture)
    values = asdict(found) | {"seconds": round(time.perf_counter() - began, 3), "version": __version__}
    save_json(review_uri(prepared.job, work), values)
    beyond = breaches(found.figures, settings)
    if beyond and settings.gate == "fail":
        raise QualityError("; ".join(breach.terse for breach in beyond))


def _review(prepared: PreparedJob, chunks: Sequence[Chunk], work: Work, output: VideoInfo) -> tuple[Review, bytes]:
    """What was found, and the contact sheet; no bytes where there is none."""
    settings, routes = work.settings.review, _routes(chunks)
    try:
        looks = list(_looks(prepared.job, chunks, work, output))
    except BROKEN as error:
        text = f"{type(error).__name__}: {error}"
        logger.warning("job %s: not reviewed: %s", prepared.job.job_id, text)
        return replace(_unseen(routes, settings, f"it couldn't be looked at: {text}"), error=text), b""
    if not looks:
        what = "no frame is fully dubbed" if any(chunk.dubbed_frames for chunk in chunks) else "no frame is dubbed"
        return _unseen(routes, settings, f"{what}: there was nothing to look at"), b""
    found = figures(looks, settings) | _routing_figures(routes)
    shown, worst = _moments(looks)
    times_s = {frame: float(at) for look in looks for frame, at in enumerate(look.times_s, start=look.start)}
    seen = Review(
        figures=_scored(found, settings),
        reasons=_reasons(found, routes, settings),
        routes=routes,
        curves=[_curves(look) for look in looks],
        moments_s=[round(times_s[one.frame], 3) for one in shown],
        worst_s=round(times_s[worst], 3),
    )
    return seen, sheet(shown, [worst], SIDE_PX, COLUMNS, QUALITY)


def _unseen(routes: dict[str, int], settings: ReviewSettings, why: str) -> Review:
    """What can be said without a look: such a job is sorted as one at a limit, or beyond it."""
    found = _scored(_routing_figures(routes), settings)
    reasons = [*_reasons(found, routes, settings), why]
    return Review(figures=found | {"score": max(1.0, found["score"])}, reasons=reasons, routes=routes)


def _looks(job: Job, chunks: Sequence[Chunk], work: Work, output: VideoInfo) -> Iterator[Look]:
    settings, render, source = work.settings.review, work.settings.render, open_source(job, work)
    # Neighbouring stretches often lie in one shot, and a long shot's analysis is tens of megabytes.
    shot_of = lru_cache(maxsize=2)(load_shot)

    def strength(chunk: Chunk) -> NDArray[np.float32]:
        return strength_of(chunk, source, shot_of(chunk.analysis_uri), render.fade_s)

    rate, dubbed = float(output.average_rate), sum(chunk.dubbed_frames for chunk in chunks)
    wanted, longest = frames_wanted(output.frame_count, dubbed, rate, settings), round(settings.stretch_s * rate)
    stretches = list(choose_stretches(chunks, wanted, max(1, longest), strength, at_rate(SHORT, rate)))
    if not stretches:
        return
    # MediaPipe takes seconds to import, and machines that only join or render lack it.
    from dreamhead.faces.detection import FaceDetector

    every = at_rate(settings.pictures_every, rate)
    with FaceDetector(pretrained.face_landmarker(work.settings.weights.face_landmarker)) as detector:
        for stretch in stretches:
            # The chunk's own note of this uri is of old where the work directory has moved.
            (targets,) = load_arrays(work.landmarks_uri(stretch.chunk), "targets")
            shot = shot_of(stretch.chunk.analysis_uri)
            yield look_at(stretch, source, output, shot, targets, detector, every=every, feather=render.feather)


def _routes(chunks: Sequence[Chunk]) -> dict[str, int]:
    total: dict[str, int] = {}
    for chunk in chunks:
        for name, count in chunk.route_counts.items():
            total[name] = total.get(name, 0) + count
    return total


def _overlays(chunks: Sequence[Chunk]) -> list[str]:
    count, dubbed = (sum(getattr(chunk, name) for chunk in chunks) for name in ("overlay_frames", "dubbed_frames"))
    if not count:
        return []
    return [
        f"something is burnt in over the lower face, a caption or a logo, and was kept: in {count} of {dubbed} frames"
    ]


def _routing_figures(routes: dict[str, int]) -> dict[str, float]:
    asked = sum(routes.values()) - routes.get(Route.OUTSIDE_SEGMENTS.name, 0)
    return {"passed_through": round(1 - routes.get(Route.DUB.name, 0) / asked, 6)} if asked else {}


def _scored(found: dict[str, float], settings: ReviewSettings) -> dict[str, float]:
    return {"score": score(found, settings), **found}


def _reasons(found: dict[str, float], routes: dict[str, int], settings: ReviewSettings) -> list[str]:
    asked = {name: count for name, count in routes.items() if name != Route.OUTSIDE_SEGMENTS.name}
    why = {"passed_through": f" ({passed_through(asked)})"}
    return [breach.reason + why.get(breach.limit.figure, "") for breach in breaches(found, settings)]


def _moments(looks: Sequence[Look]) -> tuple[list[Shown], int]:
    """What the contact sheet shows: moments spread over the stretches, the worst among them; and that one's number."""
    shown = [one.shown for look in looks for one in look.pixels]
    badness = {frame: value for look in looks for frame, value in enumerate(_badness(look), start=look.start)}
    places = np.linspace(0, len(shown) - 1, min(MOMENTS, len(shown))).round().astype(int)
    worst = max(range(len(shown)), key=lambda place: badness[shown[place].frame])
    places[np.abs(places - worst).argmin()] = worst
    return [shown[place] for place in places], shown[worst].frame


def _badness(look: Look) -> list[float]:
    off = np.abs(opening(look.ours) - opening(look.wanted))
    return [float(value) for value in np.where(np.isfinite(off), off, UNSEEN)]


def _curves(look: Look) -> dict[str, Any]:
    faces = {"ours": look.ours, "wanted": look.wanted, "source": look.source}
    return {"times_s": [round(float(value), 3) for value in look.times_s]} | {
        name: [round(float(value), 4) if np.isfinite(value) else None for value in opening(points)]
        for name, points in faces.items()
    }
