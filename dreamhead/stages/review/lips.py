"""The lips of a finished dub over time: how far they open, new and the speaker's own, under the speech's level."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import geometry
from dreamhead.records import Chunk, Job
from dreamhead.stages.artefacts import load_arrays, load_shot, save_json
from dreamhead.stages.review.look import wanted_faces
from dreamhead.stages.review.record import load_review, review_columns
from dreamhead.stages.source import Source, open_source
from dreamhead.stages.speech import load_speech
from dreamhead.stages.strength import strength_of
from dreamhead.stages.work import Work

Floats = NDArray[np.floating[Any]]
Curve = list[float | None]


@dataclass(frozen=True, kw_only=True)
class LipCurves:
    """A value a frame of the output. Lip openings are in eye distances, None where there is no face to measure."""

    times_s: list[float]
    """When the frame is shown, in seconds from the output's start."""
    duration_s: float
    """When the last frame ends."""
    source_times_s: list[float]
    """When the source shows the frame that this one is made of, in seconds from the source's start."""
    new: Curve
    """Lip opening that the speech asked for, as much as the frame is dubbed; the source's own elsewhere."""
    found: Curve
    """Lip opening measured on the output's pixels, in the frames that the review looked at."""
    source: Curve
    """Lip opening of the source's frame."""
    level_db: list[float]
    """How loud the speech is, in dB of full scale."""


def save_lips(uri: str, job: Job, work: Work) -> None:
    """Publish a finished job's curves as JSON at `uri`; raises StorageError where an artefact of the job is gone."""
    save_json(uri, asdict(lip_curves(job, work)))


def lip_curves(job: Job, work: Work) -> LipCurves:
    """The curves of a finished job, from what is in the work directory; raises StorageError."""
    source = open_source(job, work)
    timeline = source.timeline
    new, own = _openings(work.finished_chunks(job), source, work)
    return LipCurves(
        times_s=_numbers(timeline.times_s, 4),
        duration_s=round(timeline.duration_s, 4),
        source_times_s=_numbers(source.video.times_s[timeline.source], 4),
        new=_curve(new),
        found=_curve(_found(job, work, timeline.times_s)),
        source=_curve(own),
        level_db=_numbers(_levels_db(job, work, timeline.speech_times_s), 1),
    )


def _openings(chunks: Sequence[Chunk], source: Source, work: Work) -> tuple[Floats, Floats]:
    """(T,) the new lip opening and (T,) the source's."""
    new, own = np.full((2, source.timeline.frame_count), np.nan)
    # Chunks of a shot follow each other, and a long shot's analysis is tens of megabytes.
    shot_of = lru_cache(maxsize=1)(load_shot)
    for chunk in chunks:
        part, shot = slice(chunk.start, chunk.stop), shot_of(chunk.analysis_uri)
        landmarks = shot.landmarks[source.timeline.source[part] - shot.start]
        faces = geometry.fit_pose(landmarks).to_canonical(landmarks)
        own[part] = new[part] = geometry.lip_opening(faces)
        if chunk.landmarks_uri:
            (targets,) = load_arrays(chunk.landmarks_uri, "targets")
            strength = strength_of(chunk, source, shot, work.settings.render.fade_s)
            new[part] += strength * (geometry.lip_opening(wanted_faces(faces, targets)) - own[part])
    return new, own


def _found(job: Job, work: Work, times_s: Floats) -> Floats:
    """(T,) what the review measured; NaN elsewhere, and everywhere without a review."""
    found = np.full(len(times_s), np.nan)
    columns = review_columns(job, work)
    for stretch in load_review(columns["review_uri"]).curves if columns else ():
        # The review rounds its times to milliseconds.
        first = int(np.abs(times_s - stretch["times_s"][0]).argmin())
        found[first : first + len(stretch["ours"])] = np.array(stretch["ours"], np.float64)
    return found


def _levels_db(job: Job, work: Work, times_s: Floats) -> Floats:
    speech = load_speech(work, job, 0.0, float(times_s[-1]))
    nearest = np.rint((times_s - speech.start_s) * speech.rate).astype(np.int64)
    level_db: Floats = speech.level_db[np.minimum(nearest, len(speech.level_db) - 1)]
    return level_db


def _numbers(values: Floats, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def _curve(values: Floats) -> Curve:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
