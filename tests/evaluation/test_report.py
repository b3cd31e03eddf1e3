"""Verdicts of three clips that are made up: means and spreads, targets, the worst first, what isn't given."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from dreamhead.evaluation.judges import missing
from dreamhead.evaluation.records import Verdict
from dreamhead.evaluation.report import BEGIN, END, Evaluation, publish, write_markdown
from dreamhead.evaluation.settings import EvaluationSettings, JudgeSettings
from dreamhead.evaluation.summary import summarise
from dreamhead.stages.artefacts import save_arrays

GOOD = {
    "correlation": 0.88,
    "correlation_best": 0.91,
    "concordance": 0.8,
    "speech_lag_ms": -40.0,
    "articulation": 1.05,
    "jitter": 1.0,
    "seam": 1.0,
    "mouth_psnr_db": 27.0,
}
FAIR = GOOD | {"correlation_best": 0.61, "jitter": 0.7}
SETTINGS = EvaluationSettings()


def verdicts_of(folder: Path, clip_id: str, own: dict[str, float], painted_db: float) -> list[Verdict]:
    """Own speech, silence, painted and warped, with a picture each."""
    picture = folder / f"{clip_id}.jpg"
    picture.write_bytes(cv2.imencode(".jpg", np.full((20, 30, 3), 128, np.uint8))[1].tobytes())
    figures = {
        "self": own,
        "silent": {"shut": 1.0},
        "painted": {"mouth_psnr_db": painted_db, "perceptual": 0.6, "sharpness": 0.9, "identity": 0.5},
        "merged": {"mouth_psnr_db": 28.5, "perceptual": 0.75},
        "warp": {"mouth_psnr_db": 28.0, "perceptual": 0.8},
    }
    curves: dict[str, list[float | None]] = {
        "times_s": [0.0, 0.04, 0.08, 0.12],
        "ours": [0.0, 0.1, None, 0.1],
        "truth": [0.0, 0.2, 0.1, 0.0],
    }
    return [
        Verdict(
            clip_id=clip_id,
            speaker=clip_id,
            condition=condition,  # type: ignore[arg-type]
            figures=values,
            missing={"identity": "weights not given: judges.recognition"},
            curves=curves,
            speech_lag_s=0.12 if clip_id == "good" else 0.0,
            frames=4,
            frames_judged=4,
            moments=[0, 2],
            worst=[2],
            video_uri=str(folder / "videos" / clip_id / f"{condition}.mp4"),
            picture_uri=str(picture),
            arrays_uri=str(folder / f"{clip_id}-{condition}.npz"),
            seconds={"make": 1.5},
        )
        for condition, values in figures.items()
    ]


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    verdicts = [
        *verdicts_of(tmp_path, "good", GOOD, 31.0),
        *verdicts_of(tmp_path, "fair", FAIR, 28.5),
        Verdict(clip_id="bad", speaker="bad", condition="self", error="MediaError: bad.mp4: <cut> short"),
        Verdict(clip_id="bad", speaker="bad", condition="warp", error="MediaError: bad.mp4: <cut> short"),
    ]
    return Evaluation(
        settings=SETTINGS,
        checkpoint="bundled",
        weights_digest="0123456789abcdef",
        verdicts=verdicts,
        not_given=missing(JudgeSettings()),
    )


def test_means_spreads_and_targets(evaluation: Evaluation) -> None:
    summary = evaluation.summary()
    found = summary.spreads["self"]["correlation_best"]
    assert (found.mean, found.least, found.most, found.count) == (pytest.approx(0.76), 0.61, 0.91, 2)
    assert found.sd == pytest.approx(0.15)
    by_label = {check.target.label: check for check in summary.checks}
    correlation = by_label["own speech: correlation at the best lag"]
    assert (correlation.met, correlation.clips_met) == (False, 1)
    lag = by_label["own speech: ms between lips and speech"]
    assert lag.spread is not None
    assert (lag.met, lag.spread.mean) == (True, 40.0)
    assert by_label["silence: mouth shut"].met is True
    over_one, over_three = (
        by_label[f"true landmarks: mouth above {what}, dB"] for what in ("one warp", "three merged warps")
    )
    assert over_one.spread is not None
    assert over_three.spread is not None
    assert (over_one.met, over_one.spread.mean, over_one.clips_met) == (False, 1.75, 1)
    assert (over_three.met, over_three.spread.mean, over_three.clips_met) == (True, 1.25, 1)
    nearer = by_label["true landmarks: perceptual distance relative to the better warp's"]
    assert nearer.spread is not None
    assert (nearer.met, nearer.spread.mean, nearer.target.limit) == (True, pytest.approx(0.8), "below 1")
    assert by_label["true landmarks: identity against two real moments"].met is True
    assert by_label["true landmarks: sharpness"].target.limit == "0.8 to 1.1"
    assert by_label["own speech: concordance"].met is True
    assert by_label["own speech: articulation"].target.limit == "0.9 to 1.1"
    assert by_label["shuffled speech: correlation left"].met is None
    assert by_label["own speech: jitter against the real mouth"].clips_met == 1


def test_the_worst_clip_comes_first(evaluation: Evaluation) -> None:
    summary = evaluation.summary()
    assert [clip.clip_id for clip in summary.clips] == ["bad", "fair", "good"]
    assert summary.clips[0].errors == [("MediaError: bad.mp4: <cut> short", ["self", "warp"])]


def test_where_targets_are_missed_most_comes_first(evaluation: Evaluation, tmp_path: Path) -> None:
    worst = evaluation.summary().worst
    assert [(case.clip_id, case.condition) for case in worst] == [("fair", "self"), ("fair", "painted")]
    assert [check.target.label for check in worst[0].checks] == [
        "own speech: correlation at the best lag",
        "own speech: jitter against the real mouth",
    ]
    assert [check.text for check in worst[1].checks] == ["0.0", "0.5"]
    publish(evaluation, str(tmp_path))
    page = (tmp_path / "report.html").read_text()
    places = [page.index(f"<h2{title}</h2>") for title in (">Targets", ">Where it is worst", ">Lips and speech")]
    assert places == sorted(places)
    assert "✗ true landmarks: mouth above three merged warps, dB: 0.0 (at least 1)" in page


def test_the_worst_of_a_target_is_the_furthest_from_it() -> None:
    def verdicts(name: str, **figures: float) -> list[Verdict]:
        return [Verdict(clip_id=name, speaker=name, condition="self", figures=figures)]

    found = [
        *verdicts("narrow", articulation=0.7, speech_lag_ms=-80.0, seam=1.2, concordance=0.6),
        *verdicts("wide", articulation=1.2, speech_lag_ms=70.0, seam=1.5, concordance=0.7),
    ]
    worst = {case.clip_id: case.checks for case in summarise(found, SETTINGS.targets, {"fid": ""}).worst}
    assert {name: [check.value for check in checks] for name, checks in worst.items()} == {
        "narrow": [80.0, 0.6, 0.7],
        "wide": [1.5],
    }


def test_the_page_tells_it(evaluation: Evaluation, tmp_path: Path) -> None:
    publish(evaluation, str(tmp_path))
    page = (tmp_path / "report.html").read_text()
    places = [page.index(f'<section class="clip" id="{name}">') for name in ("bad", "fair", "good")]
    assert places == sorted(places)
    assert "MediaError: bad.mp4: &lt;cut&gt; short" in page
    assert "0.760<small>± 0.150</small><small>0.610 to 0.910</small>" in page
    assert "In the recording the sound comes 120 ms late" in page
    assert "<code>judges.inception</code>" in page
    assert page.count("not met</span>") == 2
    assert "✗ own speech: jitter against the real mouth: 0.70" in page
    assert "weights not given: judges.inception" in page
    assert "inception-" not in page
    assert page.count('<polyline class="ours"') == 2 * page.count('<polyline class="truth"') == 20
    assert page.count("data:image/jpeg;base64,") == 12
    assert 'href="videos/good/self.mp4"' in page
    assert "aren't judged yet" not in page


def test_the_files_for_programs(evaluation: Evaluation, tmp_path: Path) -> None:
    publish(replace(evaluation, unfinished=3), str(tmp_path))
    values = json.loads((tmp_path / "results.json").read_text())
    assert values["conditions"]["self"]["jitter"]["mean"] == pytest.approx(0.85)
    assert [clip["clip_id"] for clip in values["clips"]] == ["bad", "fair", "good"]
    assert values["clips"][2]["conditions"]["self"]["figures"] == GOOD
    assert values["unfinished"] == 3
    assert EvaluationSettings.model_validate(values["settings"]) == SETTINGS
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(rows) == 12
    assert rows[0]["correlation_best"] == 0.91
    assert rows[0]["identity"] is None
    assert dict(rows[0]["missing"])["identity"] == "weights not given: judges.recognition"
    assert rows[10]["error"].startswith("MediaError")
    assert "3 conditions aren't judged yet" in (tmp_path / "report.html").read_text()


def test_the_tables_for_documentation(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "docs" / "evaluation.md"
    write_markdown(evaluation, path, with_pictures=True)
    text = path.read_text()
    assert (
        "| own speech: correlation at the best lag | at least 0.85 | 0.760 ± 0.150 (0.610 to 0.910) | **not met** |"
        in text
    )
    assert "![fair, painted](evaluation/fair-painted.jpg)" in text
    assert (path.parent / "evaluation" / "good-self.jpg").is_file()
    assert text.startswith("# Evaluation\n\n3 clips")
    assert text.index("## Targets") < text.index("## Clips, the worst first") < text.index("## Lips and speech")
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        lines = table.strip().splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert set(lines[1]) == {"|", "-"}
    write_markdown(evaluation, tmp_path / "plain.md", with_pictures=False)
    assert "fair, painted" not in (tmp_path / "plain.md").read_text()
    assert [path.name for path in (tmp_path / "plain").iterdir()] == ["curves.png"]


def test_a_page_of_documentation_keeps_what_stands_around_its_tables(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"# Ours\n\nBefore.\n\n{BEGIN}\nold tables\n{END}\n\nAfter.\n")
    for _ in range(2):
        write_markdown(evaluation, path, with_pictures=False)
        text = path.read_text()
        assert text.startswith(f"# Ours\n\nBefore.\n\n{BEGIN}\n\n3 clips, up to")
        assert text.endswith(f"\n{END}\n\nAfter.\n")
        assert "old tables" not in text
        assert text.count("## Targets") == text.count(BEGIN) == 1
    # A mark without its partner is no place to write to.
    path.write_text(f"# Ours\n\n{BEGIN}\n")
    write_markdown(evaluation, path, with_pictures=False)
    assert path.read_text().startswith("# Evaluation\n\n3 clips")


def test_fid_is_of_all_clips_together(evaluation: Evaluation, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for verdict in evaluation.verdicts[:10]:
        truth = generator.normal(size=(300, 3)).astype(np.float32)
        save_arrays(verdict.arrays_uri, ours=truth + np.float32([2, 0, 0]), truth=truth)
    summary = summarise(evaluation.verdicts, SETTINGS.targets, {})
    assert summary.fid["self"] == pytest.approx(4, rel=1e-3)
    assert set(summary.fid) == {"self", "silent", "painted", "merged", "warp"}


def test_an_evaluation_of_nothing_is_still_a_page(evaluation: Evaluation, tmp_path: Path) -> None:
    publish(replace(evaluation, verdicts=[], unfinished=9), str(tmp_path))
    assert "9 conditions aren't judged yet" in (tmp_path / "report.html").read_text()
