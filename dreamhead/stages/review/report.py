"""Write report.html: a batch's jobs on one page for people, what needs a look first."""

import base64
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from dreamhead import __version__, storage
from dreamhead.config import ReviewSettings
from dreamhead.errors import StorageError
from dreamhead.stages.review.curves import clock, curves_svg
from dreamhead.stages.review.figures import FIGURES
from dreamhead.stages.review.record import Review, load_review, passed_through, sheet_uri
from dreamhead.stages.review.verdict import breaches

State = Literal["running", "interrupted", "finished"]
Row = dict[str, Any]

SPOT_CHECKS = 6
"""Jobs that are shown with pictures though nothing is wrong with them, those nearest to a limit."""
FAILURES_SHOWN, GROUPS_SHOWN = 20, 40
"""Failed jobs listed of each reason, and reasons."""
READERS = 8
"""Reviews that are read side by side: in object storage each takes its time."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What all rows add up to."""

    jobs: int
    """In the manifest."""
    succeeded: int
    failed: int
    waiting: int
    """Jobs that haven't ended."""
    looked_at: int
    """Succeeded jobs that need a look."""
    resumed: int
    """Succeeded jobs of which an earlier run had rendered everything, or a part."""
    frames: int
    dubbed: int
    video_s: float
    """Seconds of finished video."""
    work_s: float
    """Seconds that the stages took for it, all processes together, earlier runs too."""
    rendered: float
    """Frames that this run rendered."""


@dataclass(frozen=True, kw_only=True)
class Failures:
    """Failed jobs with one reason."""

    reason: str
    rows: list[Row]
    """The first of them."""
    count: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """One job with its pictures."""

    row: Row
    href: str
    """Link to the output, where it lies below the report; else empty."""
    figures: list[tuple[str, str, bool]]
    """Label, text and whether it is beyond a limit."""
    passed_through: str
    review: Review | None
    unread: str
    """Why the review couldn't be read."""
    sheet: str
    """The contact sheet, base64; empty where there is none."""
    curves: Markup | None
    moments: str


def write_report(
    rows: Iterable[Row],
    uri: str,
    settings: ReviewSettings,
    *,
    state: State = "finished",
    jobs: int | None = None,
    elapsed_s: float | None = None,
) -> None:
    """Publish the page at `uri`, beside results.parquet; raises StorageError when that can't be done.

    Args:
        rows: results rows so far (RESULTS_SCHEMA; maps as dicts or as lists of pairs).
        state: how the run stands.
        jobs: rows of the manifest, where some haven't ended.
        elapsed_s: seconds since the run began.
    """
    known = [_plain(row) for row in rows]
    page = render(known, uri, settings, state=state, jobs=len(known) if jobs is None else jobs, elapsed_s=elapsed_s)
    storage.write_bytes(uri, page.encode())


def render(
    rows: Sequence[Row], uri: str, settings: ReviewSettings, *, state: State, jobs: int, elapsed_s: float | None
) -> str:
    """The page, pictures within it."""
    folder = uri.rpartition("/")[0]
    succeeded = sorted((row for row in rows if row["status"] == "succeeded"), key=_urgency)
    failed = [row for row in rows if row["status"] != "succeeded"]
    urgent = [row for row in succeeded if row["needs_look"]]
    fine = [row for row in succeeded if not row["needs_look"]]
    gated = [row for row in failed if row["review_uri"]]
    shown = [*sorted(gated, key=_urgency), *urgent][: settings.report_sheets]
    spot = [row for row in fine if row["review_uri"]][: min(SPOT_CHECKS, settings.report_sheets - len(shown))]
    others = [row for row in succeeded if row["row"] not in {row["row"] for row in (*shown, *spot)}]
    cards = _cards([*shown, *spot], folder, settings)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            version=__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            state=state,
            elapsed_s=elapsed_s,
            totals=totals(rows, jobs),
            failures=_failures(failed)[:GROUPS_SHOWN],
            failures_hidden=max(0, len(_failures(failed)) - GROUPS_SHOWN),
            cards=cards[: len(shown)],
            unshown=len(gated) + len(urgent) - len(shown),
            spot=cards[len(shown) :],
            others=others[: settings.report_rows],
            hidden=max(0, len(others) - settings.report_rows),
            figures=FIGURES,
        )
    )


def totals(rows: Sequence[Row], jobs: int) -> Totals:
    """Add up what the rows tell of."""
    good = [row for row in rows if row["status"] == "succeeded"]
    return Totals(
        jobs=max(jobs, len(rows)),
        succeeded=len(good),
        failed=len(rows) - len(good),
        waiting=max(0, jobs - len(rows)),
        looked_at=sum(bool(row["needs_look"]) for row in good),
        resumed=sum(row["chunks_rendered"] < row["chunks"] for row in good),
        frames=sum(row["frames"] for row in good),
        dubbed=sum(row["dubbed_frames"] for row in good),
        video_s=sum(row["duration_s"] or 0.0 for row in good),
        work_s=sum(sum(row["seconds"].values()) for row in good),
        rendered=sum(row["frames"] * row["chunks_rendered"] / row["chunks"] for row in good if row["chunks"]),
    )


def _plain(row: Row) -> Row:
    """The row with its maps as dicts, and without holes: rows of earlier versions lack columns."""
    maps = {name: dict(row.get(name) or {}) for name in ("quality", "passed_through", "seconds")}
    texts = {name: row.get(name) or "" for name in ("needs_look", "review_uri", "warnings", "error_type", "error")}
    counts = {name: row.get(name) or 0 for name in ("chunks", "chunks_rendered", "frames", "dubbed_frames", "attempts")}
    return {"duration_s": None, "real_time_factor": None, "language": "", **row, **maps, **texts, **counts}


def _urgency(row: Row) -> tuple[bool, float, int]:
    """What needs a look first, by its score."""
    return not row["needs_look"], -row["quality"].get("score", 0.0), row["row"]


def _failures(rows: Iterable[Row]) -> list[Failures]:
    """By reason, the most frequent first; names and numbers don't make a reason another one."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[f"{row['error_type']}: {reason(row['error'])}"].append(row)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [Failures(reason=name, rows=found[:FAILURES_SHOWN], count=len(found)) for name, found in ranked]


def reason(error: str) -> str:
    """An error's message without what differs from job to job: uris and numbers."""
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"(?<!\w)(\w+://|/)[^\s:;,]+", "…", error))


def _cards(rows: Sequence[Row], folder: str, settings: ReviewSettings) -> list[Card]:
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(lambda row: _card(row, folder, settings), rows))


def _card(row: Row, folder: str, settings: ReviewSettings) -> Card:
    review, sheet, unread = None, b"", ""
    try:
        if row["review_uri"]:
            review = load_review(row["review_uri"])
            sheet = storage.read_bytes(sheet_uri(row["review_uri"])) if review.moments_s else b""
    except StorageError as error:
        unread = str(error)
    found = row["quality"]
    beyond = {breach.limit.figure for breach in breaches(found, settings)}
    return Card(
        row=row,
        href=_href(row["output_uri"], folder) if row["status"] == "succeeded" else "",
        figures=[
            (figure.label, figure.text(found[name]), name in beyond)
            for name, figure in FIGURES.items()
            if name in found
        ],
        passed_through=passed_through(row["passed_through"]),
        review=review,
        unread=unread,
        sheet=base64.b64encode(sheet).decode(),
        curves=curves_svg(review.curves) if review is not None and review.curves else None,
        moments=", ".join(clock(at) for at in review.moments_s) if review is not None else "",
    )


def _href(uri: str, folder: str) -> str:
    """A relative link to what lies below the report's directory; elsewhere a browser couldn't follow one."""
    inside = uri.startswith(folder + "/") if folder else False
    return "./" + quote(uri[len(folder) + 1 :]) if inside else ""


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dreamhead.stages.review", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = clock
    environment.filters["duration"] = duration
    return environment


def duration(seconds: float) -> str:
    """A length of time in words of two units at most."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
