"""The row that tells how one job ended, with the columns of RESULTS_SCHEMA."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dreamhead.errors import DreamheadError
from dreamhead.records import RESULTS_SCHEMA, Chunk, Job, Route

Row = dict[str, Any]

TEXTS = ("error_type", "error", "warnings", "needs_look", "review_uri", "weights_digest", "settings_digest")
ROUTES_PASSED = frozenset(route.name for route in Route if route is not Route.DUB)


@dataclass(frozen=True)
class Tally:
    """What one run did for a job."""

    chunks: int = 0
    """Chunks that came out of the stages: rendered, found as an earlier run left them, or failed."""
    rendered: int = 0
    attempts: int = 0
    """Tries that the rendered and the failed ones took."""

    def plus(self, chunk: Chunk) -> "Tally":
        """With one more chunk."""
        is_rendered = chunk.attempt > 0 and not chunk.error
        return Tally(self.chunks + 1, self.rendered + is_rendered, self.attempts + chunk.attempt)


NOTHING = Tally()


def succeeded(
    job: Job,
    chunks: Sequence[Chunk],
    tally: Tally,
    *,
    duration_s: float,
    warnings: Sequence[str],
    digests: dict[str, str],
) -> Row:
    """The row of a job whose output was published from all its chunks.

    `duration_s` is the output's, `digests` are those of weights and settings.
    """
    seconds = _sums(chunk.seconds for chunk in chunks)
    routes = _sums(chunk.route_counts for chunk in chunks)
    row = _row(job, status="succeeded", warnings="; ".join(warnings), **digests)
    row["duration_s"] = duration_s
    row["frames"] = sum(chunk.stop - chunk.start for chunk in chunks)
    row["dubbed_frames"] = sum(chunk.dubbed_frames for chunk in chunks)
    row["passed_through"] = {name: int(count) for name, count in routes.items() if name in ROUTES_PASSED}
    row["seconds"] = seconds
    row["real_time_factor"] = sum(seconds.values()) / duration_s
    return row | _counts(tally) | {"chunks": len(chunks)}


def failed(job: Job, error: DreamheadError | str, tally: Tally = NOTHING) -> Row:
    """The row of a job that ended with an error: one of ours, or the `ErrorType: message` that a chunk carries."""
    if isinstance(error, str):
        kind, _, message = error.partition(": ")
    else:
        kind, message = type(error).__name__, str(error)
    return _row(job, status="failed", error_type=kind, error=message) | _counts(tally)


def repeated(job: Job, row: Row, tally: Tally = NOTHING) -> Row:
    """The row of a published output as this run's manifest names it, with what this run did for it."""
    return row | _identity(job) | {"attempts": tally.attempts, "chunks_rendered": tally.rendered}


def _row(job: Job, **values: Any) -> Row:
    empty = {name: None for name in RESULTS_SCHEMA.names}
    texts = dict.fromkeys(TEXTS, "")
    return {**empty, **texts, "passed_through": {}, "seconds": {}, "quality": {}, **_identity(job), **values}


def _identity(job: Job) -> Row:
    values = dataclasses.asdict(job)
    return {name: values[name] for name in RESULTS_SCHEMA.names if name in values}


def _counts(tally: Tally) -> dict[str, int]:
    return {"attempts": tally.attempts, "chunks": tally.chunks, "chunks_rendered": tally.rendered}


def _sums(counts: Any) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in counts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total
