"""Publish what is in a data set: report.parquet, dataset.json, and report.html for people."""

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from dreamhead import __version__, storage
from dreamhead.config import PreparationSettings
from dreamhead.stages.artefacts import save_json
from dreamhead.stages.preparation import ledger
from dreamhead.stages.preparation.ledger import Ledger, Row
from dreamhead.training.dataset import SPLITS

SHEETS_KEPT, SHEETS_REFUSED = 24, 12
"""Most clips shown that are kept with speech, and of each reason against one."""
MOST_SOURCES = 300
"""Sources listed in the page, what needs a look first; report.parquet has all."""
LAG_BIN_S = 0.02
FIGURES = {
    "face_px": "brow to chin, px",
    "yaw_deg": "turned aside, degrees",
    "pitch_deg": "turned up or down, degrees",
    "sharpness": "sharpness",
    "brightness": "brightness",
    "second_face": "second face, share",
    "level_db": "level, dB",
    "lag_fit": "fit of lips and sound",
}
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """What one split holds."""

    sources: int
    speakers: int
    clips: int
    hours: float
    spoken_hours: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a data set holds."""

    splits: dict[str, SplitSummary]
    failed: frozenset[str]
    """Names of the sources whose last try failed."""
    reasons: dict[str, dict[str, float]]
    """Clips and seconds by why they were not kept, or kept without speech."""


def publish(book: Ledger, failed: Sequence[Row], settings: PreparationSettings) -> Summary:
    """Write the three files on all that the data set holds, and delete shards that are no longer part of it.

    Args:
        failed: report rows of this run that no file of the data set tells of.
    """
    rows = [*book.rows(), *failed]
    book.sweep(rows)
    summary = summarise(rows)
    book.write_report(rows)
    save_json(storage.join(book.uri, "dataset.json"), _facts(summary, rows, settings))
    page = render(rows, summary, _sheets(book, rows), settings)
    storage.write_bytes(storage.join(book.uri, "report.html"), page.encode())
    return summary


def summarise(rows: Sequence[Row]) -> Summary:
    """Count what the report's rows tell of."""
    clips = [row for row in rows if row["kind"] == ledger.CLIP]
    reasons: dict[str, dict[str, float]] = defaultdict(lambda: {"clips": 0, "seconds": 0.0})
    for row in clips:
        for reason in row["reasons"]:
            reasons[reason]["clips"] += 1
            reasons[reason]["seconds"] += row["seconds"]
    return Summary(
        splits={split: _split(rows, split) for split in SPLITS},
        failed=frozenset(row["source"] for row in rows if row["status"] == ledger.FAILED),
        reasons={name: reasons[name] for name in sorted(reasons, key=lambda name: -reasons[name]["clips"])},
    )


def render(rows: Sequence[Row], summary: Summary, sheets: dict[str, bytes], settings: PreparationSettings) -> str:
    """The page, pictures within it; `sheets` holds a JPEG by clip."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dreamhead.stages.preparation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sources = sorted((row for row in rows if row["kind"] == ledger.SOURCE), key=_urgency)
    clips = [row for row in rows if row["kind"] == ledger.CLIP]
    return environment.get_template("report.html.jinja").render(
        version=__version__,
        summary=summary,
        statuses=Counter(row["status"] for row in clips),
        groups=[(title, [_picture(row, sheets) for row in group]) for title, group in _groups(rows) if group],
        lags=_lag_bins(sources, settings.offset.max_lag_s),
        figures=_figures(clips),
        sources=sources[:MOST_SOURCES],
        hidden=max(0, len(sources) - MOST_SOURCES),
        clips=_clips_by_source(clips),
        settings=settings.model_dump(mode="json"),
    )


def _split(rows: Sequence[Row], split: str) -> SplitSummary:
    kept = [row for row in rows if row["kind"] == ledger.CLIP and row["split"] == split]
    kept = [row for row in kept if row["status"] != ledger.REJECTED]
    return SplitSummary(
        sources=len({row["source"] for row in kept}),
        speakers=len({row["speaker"] for row in kept}),
        clips=len(kept),
        hours=sum(row["seconds"] for row in kept) / 3600,
        spoken_hours=sum(row["seconds"] for row in kept if row["status"] == ledger.SPOKEN) / 3600,
    )


def _facts(summary: Summary, rows: Sequence[Row], settings: PreparationSettings) -> dict[str, Any]:
    methods = Counter(row["lag_method"] for row in rows if row["kind"] == ledger.SOURCE and row.get("lag_method"))
    return {
        "version": __version__,
        "settings": json.loads(settings.model_dump_json()),
        "splits": {name: vars(part) for name, part in summary.splits.items()},
        "sources_failed": len(summary.failed),
        "reasons": summary.reasons,
        "lag_measured_by": dict(methods),
    }


def _groups(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Clips to show, by what became of them; spread evenly, so that many speakers are among them."""
    by_title: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] == ledger.CLIP:
            for reason in row["reasons"] or [""]:
                by_title[f"{row['status']}: {reason}" if reason else row["status"]].append(row)
    order = {ledger.SPOKEN: 0, ledger.PICTURES: 1, ledger.REJECTED: 2}
    titles = sorted(by_title, key=lambda title: (order[title.partition(":")[0]], -len(by_title[title])))
    return [
        (
            f"{title} ({len(by_title[title])})",
            _spread(by_title[title], SHEETS_KEPT if title == ledger.SPOKEN else SHEETS_REFUSED),
        )
        for title in titles
    ]


def _spread(rows: list[Row], most: int) -> list[Row]:
    if len(rows) <= most:
        return rows
    return [rows[index] for index in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _sheets(book: Ledger, rows: Sequence[Row]) -> dict[str, bytes]:
    """The pictures of the clips that are shown; only their sources' files are read."""
    wanted = {row["source"] for _, group in _groups(rows) for row in group}
    return {clip: sheet for source in sorted(wanted) for clip, sheet in book.sheets(source).items()}


def _picture(row: Row, sheets: dict[str, bytes]) -> dict[str, str]:
    names = ("face_px", "yaw_deg", "sharpness", "brightness", "second_face", "level_db", "lag_fit", "lag_s")
    figures = [f"{name.removesuffix('_deg')} {row[name]:.3g}" for name in names if row.get(name) is not None]
    sheet = sheets.get(row["clip_id"], b"")
    return {
        "title": f"{row['clip_id']}: {row['start_s']:.1f} s, {row['seconds']:.1f} s long",
        "figures": ", ".join(figures),
        "data": base64.b64encode(sheet).decode() if sheet else "",
    }


def _lag_bins(sources: Sequence[Row], reach_s: float) -> list[dict[str, float]]:
    """Sources by lag, those that were believed apart, with what an SVG needs."""
    edges = (np.arange(2 * round(reach_s / LAG_BIN_S) + 2) - 0.5) * LAG_BIN_S - reach_s
    known = [row for row in sources if row.get("lag_s") is not None]
    sure, unsure = (
        np.histogram([row["lag_s"] for row in known if row["lag_sure"] is is_sure], edges)[0].tolist()
        for is_sure in (True, False)
    )
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    most = max(1, *(a + b for a, b in zip(sure, unsure, strict=True)))
    return [
        {"lag_s": lag_s + 0.0, "sure": a, "unsure": b, "most": most}
        for lag_s, a, b in zip(middles, sure, unsure, strict=True)
    ]


def _figures(clips: Sequence[Row]) -> list[dict[str, Any]]:
    """Quantiles of each figure over what was kept and what was not."""
    table = []
    for name, title in FIGURES.items():
        kept = [row[name] for row in clips if row.get(name) is not None and row["status"] != ledger.REJECTED]
        refused = [row[name] for row in clips if row.get(name) is not None and row["status"] == ledger.REJECTED]
        table.append({"title": title, "kept": _quantiles(kept), "refused": _quantiles(refused)})
    return table


def _quantiles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.quantile(values, QUANTILES)] if values else []


def _clips_by_source(clips: Iterable[Row]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in clips:
        found[row["source"]][row["status"]] += 1
    return found


def _urgency(row: Row) -> tuple[int, float, str]:
    """What failed first, then what has no sure lag, then by the lag's size."""
    if row["status"] == ledger.FAILED:
        return 0, 0.0, row["source"]
    if row.get("lag_sure") is not True:
        return 1, -(row.get("lag_score") or 0.0), row["source"]
    return 2, -abs(row["lag_s"]), row["source"]
