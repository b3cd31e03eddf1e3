"""What a review found, as it is kept beside the job's result, and read again by whoever shows it."""

from dataclasses import dataclass, field
from typing import Any

from dreamhead import storage
from dreamhead.records import Job, Route
from dreamhead.stages.artefacts import load_json
from dreamhead.stages.work import Work


@dataclass(frozen=True, kw_only=True)
class Review:
    """What was found on one job's output: the content of review.json."""

    figures: dict[str, float]
    """By the names of `figures.FIGURES`."""
    reasons: list[str] = field(default_factory=list)
    """Why a person should look; empty when nothing is beyond a limit."""
    routes: dict[str, int] = field(default_factory=dict)
    """Frames of the output by `Route` name."""
    curves: list[dict[str, Any]] = field(default_factory=list)
    """A stretch each: `times_s`, and the lip openings `ours`, `wanted`, `source` in eye distances, None if unknown."""
    moments_s: list[float] = field(default_factory=list)
    """Seconds of the pictures of sheet.jpg, row by row; empty when there is none."""
    worst_s: float | None = None
    """The one of them whose lips are furthest off."""
    error: str = ""
    """Why the output couldn't be looked at."""
    seconds: float = 0.0
    """What the review took."""


def review_columns(job: Job, work: Work) -> dict[str, Any]:
    """The columns of the results that tell of a job's review; empty ones without it."""
    uri = review_uri(job, work)
    if work.settings.review.gate == "off" or not storage.exists(uri):
        return {}
    found = load_review(uri)
    return {"quality": found.figures, "needs_look": "; ".join(found.reasons), "review_uri": uri}


def load_review(uri: str) -> Review:
    """Read a review.json; raises StorageError."""
    values = load_json(uri)
    return Review(**{name: values[name] for name in Review.__dataclass_fields__ if name in values})


def sheet_uri(uri: str) -> str:
    """Where the contact sheet of a review lies."""
    return storage.join(uri.rpartition("/")[0], "sheet.jpg")


def review_uri(job: Job, work: Work) -> str:
    """Where the review of a job's output lies."""
    return storage.join(work.result_uri(job).rpartition("/")[0], "review.json")


def passed_through(routes: dict[str, int]) -> str:
    """Why frames passed through, in words; empty when none did."""
    counts = {name: count for name, count in routes.items() if name != Route.DUB.name and count}
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name.lower().replace('_', ' ')} in {count}" for name, count in ranked)
