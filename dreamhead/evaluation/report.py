"""Write what an evaluation found: JSON and parquet for programs, a page for people, tables for documentation."""

import base64
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup, escape
from numpy.typing import NDArray

from dreamhead import __version__, storage
from dreamhead.evaluation.curves import curves_svg
from dreamhead.evaluation.figures import FID, FIGURES, PICTURE, SYNC, Figure
from dreamhead.evaluation.judges import HOW_TO_GIVE
from dreamhead.evaluation.plot import plot
from dreamhead.evaluation.records import Verdict
from dreamhead.evaluation.settings import CONDITIONS, ConditionName, EvaluationSettings
from dreamhead.evaluation.summary import ClipSummary, Spread, Summary, summarise

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
TEMPLATES = Path(__file__).parent / "templates"

CONDITION_TEXTS: dict[ConditionName, tuple[str, str]] = {
    "real": ("real video", "the source itself, through the same measuring: what it says of this is its own error"),
    "reencoded": ("re-encoded", "the source encoded as a dub is: the most that a dub can reach"),
    "self": ("own speech", "dubbed with its own speech"),
    "shuffled": ("shuffled speech", "dubbed with its own speech shifted by half its length"),
    "silent": ("silence", "dubbed with digital silence"),
    "cross": ("other speech", "dubbed with the next clip's speech"),
    "painted": ("painted", "true landmarks, painted by the renderer from references some time away"),
    "merged": ("three warps", "true landmarks, the three nearest references moved along them and merged"),
    "warp": ("warp", "true landmarks, the nearest reference alone, merely moved along them"),
    "copy": ("copy", "the nearest reference merely pasted"),
}

RESULTS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("speaker", pa.string()),
        ("condition", pa.string()),
        ("error", pa.string()),
        ("frames", pa.int64()),
        ("frames_judged", pa.int64()),
        ("video_uri", pa.string()),
        ("picture_uri", pa.string()),
        ("weights_digest", pa.string()),
        *((name, pa.float64()) for name in FIGURES),
        ("missing", pa.map_(pa.string(), pa.string())),
        ("seconds", pa.map_(pa.string(), pa.float64())),
    ]
)
"""One row a condition of a clip; a figure that couldn't be had is null, and `missing` says why."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was judged, and what was found."""

    settings: EvaluationSettings
    checkpoint: str
    """As people know it."""
    weights_digest: str
    verdicts: Sequence[Verdict]
    unfinished: int = 0
    """Conditions without a verdict, since the run was ended before."""
    not_given: dict[str, str]
    """Figures whose weights weren't given, and which settings give them."""

    def summary(self) -> Summary:
        """All verdicts together."""
        return summarise(self.verdicts, self.settings.targets, self.not_given)


def publish(evaluation: Evaluation, output_uri: str) -> Summary:
    """Write results.json, results.parquet and report.html; raises StorageError."""
    summary = evaluation.summary()
    storage.write_bytes(storage.join(output_uri, "results.json"), _json(evaluation, summary))
    storage.write_bytes(storage.join(output_uri, "results.parquet"), _parquet(evaluation))
    clips = [_shown(clip, output_uri) for clip in summary.clips]
    by_name = {shown["clip"].clip_id: shown["conditions"] for shown in clips}
    worst = [
        (case, by_name[case.clip_id][case.condition])
        for case in summary.worst
        if case.condition in by_name[case.clip_id]
    ]
    page = _render("report.html.j2", evaluation, summary, clips=clips, worst=worst)
    storage.write_bytes(storage.join(output_uri, "report.html"), page.encode())
    return summary


def write_markdown(evaluation: Evaluation, path: Path, with_pictures: bool) -> None:
    """Write the tables as Markdown, and the clips' pictures into the folder of the file's own name beside it.

    A file that holds the lines BEGIN and END keeps what stands before and after them.
    """
    summary = evaluation.summary()
    pictures: dict[str, list[tuple[ConditionName, str]]] = {}
    for clip in summary.clips if with_pictures else []:
        for condition in ("self", "painted"):
            verdict = clip.verdicts.get(condition)
            if verdict is not None and not verdict.error:
                name = f"{path.stem}/{clip.clip_id}-{condition}.jpg"
                storage.fetch(verdict.picture_uri, _folder(path.parent / name))
                pictures.setdefault(clip.clip_id, []).append((condition, name))
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = _drawn_curves(summary, path)
    text = _render("report.md.j2", evaluation, summary, clips=summary.clips, pictures=pictures, drawn=drawn)
    path.write_text(_put_into(path, text), encoding="utf-8")


def _put_into(path: Path, tables: str) -> str:
    """The file with the tables between its two marks; a file of their own, with a title, where it has none."""
    before, begin, rest = (path.read_text(encoding="utf-8") if path.is_file() else "").partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n\n{tables}\n{end}{after}" if end else f"# Evaluation\n\n{tables}"


def _drawn_curves(summary: Summary, path: Path) -> str:
    """Lip openings of all clips dubbed with their own speech, as a picture; its name, or "" where there are none."""
    panels = {
        clip.clip_id: {"real": _known(clip.verdicts["self"].curves["truth"]), "dubbed": _known(ours)}
        for clip in summary.clips
        if "self" in clip.verdicts and (ours := clip.verdicts["self"].curves.get("ours"))
    }
    if not panels:
        return ""
    name = f"{path.stem}/curves.png"
    picture = plot(panels, "frame", "lip opening, eye distances")
    _folder(path.parent / name).write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    return name


def _known(curve: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in curve], np.float64)


def spread_text(figure: Figure, spread: Spread | None) -> str:
    """`0.74 ± 0.05 (0.61 to 0.80)`; one clip has no spread."""
    if spread is None:
        return "–"
    if spread.count == 1:
        return figure.text(spread.mean)
    least, most = figure.text(spread.least), figure.text(spread.most)
    return f"{figure.text(spread.mean)} ± {figure.text(spread.sd)} ({least} to {most})"


def _render(template: str, evaluation: Evaluation, summary: Summary, **more: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(spread_text=spread_text)
    environment.filters["coded"] = _coded
    return environment.get_template(template).render(
        version=__version__,
        settings=evaluation.settings,
        unfinished=evaluation.unfinished,
        checkpoint=evaluation.checkpoint,
        weights_digest=evaluation.weights_digest,
        summary=summary,
        conditions=[condition for condition in CONDITIONS if condition in summary.spreads],
        condition_texts=CONDITION_TEXTS,
        figures=FIGURES,
        fid_figure=FID,
        tables=(("Lips and speech", _measured(summary, SYNC)), ("Pictures", _measured(summary, PICTURE))),
        how_to_give=[text for name, text in HOW_TO_GIVE.items() if name in summary.not_given],
        **more,
    )


def _coded(text: str) -> Markup:
    """HTML of a text whose names stand between backticks, as in Markdown."""
    parts = [
        Markup("<code>{}</code>").format(part) if odd % 2 else escape(part) for odd, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _measured(summary: Summary, names: Sequence[str]) -> list[str]:
    """The figures that some condition has; those whose weights weren't given are told below the tables."""
    return [name for name in names if any(name in found for found in summary.spreads.values())]


@dataclass(frozen=True)
class ShownCondition:
    """One condition of one clip, as the page shows it."""

    verdict: Verdict
    picture: str
    """Data uri of the strip."""
    curves: Markup
    video: str
    """Link, relative to the page where it can be."""


def _shown(clip: ClipSummary, output_uri: str) -> dict[str, Any]:
    shown = [_shown_condition(verdict, output_uri) for verdict in clip.verdicts.values() if not verdict.error]
    return {"clip": clip, "conditions": {one.verdict.condition: one for one in shown}}


def _shown_condition(verdict: Verdict, output_uri: str) -> ShownCondition:
    picture = base64.b64encode(storage.read_bytes(verdict.picture_uri)).decode()
    times_s = [value or 0.0 for value in verdict.curves["times_s"]]
    drawn = curves_svg(times_s, verdict.curves["truth"], verdict.curves["ours"], verdict.worst)
    return ShownCondition(
        verdict=verdict,
        picture=f"data:image/jpeg;base64,{picture}",
        curves=Markup(drawn),
        video=verdict.video_uri.removeprefix(output_uri.rstrip("/") + "/"),
    )


def _json(evaluation: Evaluation, summary: Summary) -> bytes:
    values = {
        "dreamhead": __version__,
        "checkpoint": evaluation.checkpoint,
        "weights_digest": evaluation.weights_digest,
        "unfinished": evaluation.unfinished,
        "settings": evaluation.settings.model_dump(mode="json"),
        "targets": [
            {
                "target": check.target.label,
                "limit": check.target.limit,
                "met": check.met,
                "clips_met": check.clips_met,
                **(dataclasses.asdict(check.spread) if check.spread else {}),
            }
            for check in summary.checks
        ],
        "conditions": {
            condition: {name: dataclasses.asdict(spread) for name, spread in found.items()}
            for condition, found in summary.spreads.items()
        },
        "fid": summary.fid,
        "not_given": summary.not_given,
        "clips": [
            {
                "clip_id": clip.clip_id,
                "speaker": clip.speaker,
                "targets": {check.target.label: {"value": check.value, "met": check.met} for check in clip.checks},
                "conditions": {name: dataclasses.asdict(verdict) for name, verdict in clip.verdicts.items()},
            }
            for clip in summary.clips
        ],
    }
    return (json.dumps(values, indent=1) + "\n").encode()


def _parquet(evaluation: Evaluation) -> bytes:
    rows = [
        {
            **dataclasses.asdict(verdict),
            **{name: verdict.figures.get(name) for name in FIGURES},
            "weights_digest": evaluation.weights_digest,
            "missing": list(verdict.missing.items()),
            "seconds": list(verdict.seconds.items()),
        }
        for verdict in evaluation.verdicts
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA), buffer)
    return buffer.getvalue()


def _folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
