"""The page: what it says, what it hides, that it is safe, and that ten thousand jobs fit."""

import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from dreamhead.config import ReviewSettings
from dreamhead.records import RESULTS_SCHEMA, Job
from dreamhead.stages import results
from dreamhead.stages.artefacts import save_json
from dreamhead.stages.review.report import duration, reason, write_report

Row = dict[str, Any]
HOSTILE = "<script>alert('x')</script>"
CURVES = [{"times_s": [1.0, 1.04], "ours": [0.1, 0.2], "wanted": [0.1, 0.3], "source": [0.0, 0.1]}]


class Reader(HTMLParser):
    """Text, tags and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text.append(" ".join(data.split()))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    @property
    def said(self) -> str:
        return " ".join(part for part in self.text if part)


class Farm:
    """Makes results rows, and reviews of the kind that jobs leave behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = str(folder / "report.html")

    def job(self, row: int, job_id: str = "", output_uri: str = "") -> Job:
        name = job_id or f"job-{row}"
        output = output_uri or str(self.folder / "out" / f"film {row}.mp4")
        return Job(job_id=name, row=row, video_uri="/v.mp4", audio_uri="/a.wav", output_uri=output)

    def good(self, row: int, score: float = 0.5, needs_look: str = "", sheet: bytes = b"", **values: Any) -> Row:
        review_uri = str(self.folder / "work" / str(row) / "review.json") if sheet else ""
        if sheet:
            moments_s = [1.0, 1.04]
            facts = {"figures": {}, "reasons": [needs_look] if needs_look else [], "curves": CURVES}
            save_json(review_uri, facts | {"moments_s": moments_s, "worst_s": 1.0, "routes": {}})
            (Path(review_uri).parent / "sheet.jpg").write_bytes(sheet)
        empty = results.succeeded(self.job(row), [], results.Tally(), duration_s=10.0, warnings=(), digests={})
        return {
            **empty,
            "frames": 250,
            "dubbed_frames": 240,
            "seconds": {"render": 20.0},
            "chunks": 2,
            "chunks_rendered": 2,
            "quality": {"score": score, "lip_lag_s": 0.12},
            "needs_look": needs_look,
            "review_uri": review_uri,
            **values,
        }

    def failed(self, row: int, error: str, job_id: str = "") -> Row:
        return results.failed(self.job(row, job_id), error)

    def write(self, rows: Sequence[Row], **values: Any) -> Reader:
        settings = values.pop("settings", ReviewSettings())
        write_report(rows, self.uri, settings, **values)
        return Reader(Path(self.uri).read_text())


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def test_totals_tell_how_the_run_stands(farm: Farm) -> None:
    rows = [
        farm.good(0),
        farm.good(1, chunks_rendered=1),
        farm.good(2, chunks_rendered=0, needs_look="the lips are late", score=2.0),
        farm.failed(3, "MediaError: cut short"),
    ]
    said = farm.write(rows, state="running", jobs=10, elapsed_s=25.0).said
    for words in (
        "succeeded 3 of 10 jobs",
        "failed 1 6 not done yet",
        "need a look 1 of those that succeeded",
        "video 30.0 s 750 frames, 720 dubbed",
        "work a second of video 2.00 s",
        "speed 15.0 frames a second, in 25.0 s",
        "resumed 2 wholly or partly",
        "The run goes on",
    ):
        assert words in said
    assert "was interrupted: the same command goes on" in farm.write(rows, state="interrupted").said
    finished = farm.write(rows).said
    assert "goes on" not in finished
    assert "of 4 jobs" in finished


def test_failures_are_grouped_by_reason_whatever_the_names(farm: Farm) -> None:
    rows = [farm.failed(row, f"MediaError: /films/{row}.mp4: frame {row * 7} can't be decoded") for row in range(30)]
    rows += [farm.failed(30, "InputError: face: 'huge' is not allowed", "bad row")]
    said = farm.write(rows).said
    assert "30 jobs: MediaError: …: frame N can't be decoded" in said
    assert "row 5, job-5 : /films/5.mp4: frame 35 can't be decoded" in said
    assert "And 10 more: see results.parquet." in said
    assert "1 job: InputError: face: 'huge' is not allowed row 30, bad row" in said


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("s3://b/a1.mp4: can't read 2 bytes", "…: can't read N bytes"),
        ("/a/b.mp4: lasts 3.25 s", "…: lasts N s"),
        ("and/or is no path", "and/or is no path"),
    ],
)
def test_a_reason_is_what_errors_have_in_common(error: str, text: str) -> None:
    assert reason(error) == text


def test_what_needs_a_look_comes_first_and_worst_first(farm: Farm) -> None:
    rows = [
        farm.good(0, 0.9, sheet=b"fine"),
        farm.good(1, 1.5, "seam", b"bad"),
        farm.good(2, 4.0, "late by 3 frames", b"worst", warnings="the speech was cut"),
        farm.good(3, 0.2, sheet=b"best"),
    ]
    reader = farm.write(rows)
    assert [address for address in reader.addresses if not address.startswith("data:")] == [
        f"./out/film%20{row}.mp4" for row in (2, 1, 0, 3)
    ]
    assert [address for address in reader.addresses if address.startswith("data:")] == [
        "data:image/jpeg;base64," + text for text in ("d29yc3Q=", "YmFk", "ZmluZQ==", "YmVzdA==")
    ]
    said = reader.said
    order = ["Needs a look, the worst first", "job-2", "late by 3 frames", "the speech was cut", "job-1", "seam"]
    order += ["Nothing to complain of", "job-0", "job-3", "What the figures mean"]
    places = [said.index(words) for words in order]
    assert places == sorted(places)
    assert reader.tags.count("polyline") == 4 * 3
    # The lag of 120 ms is beyond its limit.
    assert 'class="beyond"><dt>lag' in Path(farm.uri).read_text()


def test_more_than_can_be_shown_is_pointed_to(farm: Farm) -> None:
    rows = [farm.good(row, 2.0 + row, "seam", b"x") for row in range(5)] + [farm.good(row) for row in range(5, 20)]
    assert farm.write(rows).tags.count("article") == 5, "what was never looked at is no spot check"
    reader = farm.write(rows, settings=ReviewSettings(report_sheets=2, report_rows=10))
    assert reader.tags.count("img") == 2
    said = reader.said
    assert "3 more need a look: the table below begins with them" in said
    assert reader.tags.count("tr") == 1 + 10
    assert said.index("job-2 2") < said.index("job-1 1") < said.index("job-5 5")
    assert "And 8 more jobs: see results.parquet." in said
    assert farm.write(rows, settings=ReviewSettings(report_sheets=0)).tags.count("img") == 0


def test_a_dub_that_the_gate_kept_back_is_shown(farm: Farm) -> None:
    held = farm.good(7, 3.0, "seam", b"held") | {"status": "failed", "error_type": "QualityError", "error": "seam is 2"}
    reader = farm.write([held])
    assert reader.tags.count("img") == 1
    assert "job-7 failed, not published" in reader.said
    assert "1 job: QualityError: seam is N" in reader.said
    assert not any(address.startswith("./") for address in reader.addresses)


def test_no_text_of_a_manifest_becomes_markup(farm: Farm) -> None:
    texts = {"job_id": HOSTILE, "needs_look": HOSTILE, "warnings": HOSTILE, "language": HOSTILE}
    rows = [
        farm.failed(0, f"MediaError: {HOSTILE}", HOSTILE),
        farm.good(1, 2.0, HOSTILE, b"x") | texts | {"output_uri": f'javascript:alert(1)"{HOSTILE}'},
        *[farm.good(row, 0.1) | {"job_id": HOSTILE, "warnings": HOSTILE} for row in range(2, 12)],
        farm.good(12, sheet=b"x") | {"output_uri": f'{farm.folder}/"><img onerror=alert(1) src=x>.mp4'},
    ]
    reader = farm.write(rows)
    assert "script" not in reader.tags
    assert HOSTILE in reader.said
    assert {address.partition(",")[0] for address in reader.addresses} <= {
        "data:image/jpeg;base64",
        *(f"./out/film%20{row}.mp4" for row in range(2, 12)),
        "./%22%3E%3Cimg%20onerror%3Dalert%281%29%20src%3Dx%3E.mp4",
    }


def test_the_page_needs_nothing_else(farm: Farm) -> None:
    reader = farm.write([farm.good(0, 2.0, "seam", b"x")])
    page = Path(farm.uri).read_text()
    assert {"script", "link", "iframe"}.isdisjoint(reader.tags)
    assert "http" not in page.replace('lang="en"', "")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "@media print" in page
    assert "break-inside: avoid" in page


def test_a_review_that_is_gone_is_said_to_be(farm: Farm) -> None:
    row = farm.good(0, 2.0, "seam; late", b"x")
    Path(row["review_uri"]).unlink()
    said = farm.write([row]).said
    assert "Its review can't be shown: " in said
    assert "seam; late" in said


def test_rows_as_they_come_back_from_the_parquet_file(farm: Farm) -> None:
    rows = [farm.good(0, 2.0, "seam", b"x"), farm.failed(1, "MediaError: cut short")]
    stored = [
        {name: list(value.items()) if isinstance(value, dict) else value for name, value in r.items()} for r in rows
    ]
    table = pa.Table.from_pylist(stored, schema=RESULTS_SCHEMA).to_pylist()
    assert farm.write(table).said == farm.write(rows).said


def test_rows_of_an_earlier_version_have_no_review(farm: Farm) -> None:
    row = farm.good(0)
    for name in ("quality", "needs_look", "review_uri", "duration_s"):
        del row[name]
    assert "succeeded 1 of 1 job" in farm.write([row]).said


def test_an_empty_run_has_a_page(farm: Farm) -> None:
    said = farm.write([], jobs=3, state="interrupted").said
    assert "succeeded 0 of 3 jobs" in said
    assert "What the figures mean" not in said


def test_ten_thousand_jobs_fit(farm: Farm) -> None:
    noise = np.random.default_rng(0).integers(90, 166, (348, 261, 3), np.uint8)
    picture = cv2.resize(noise, (704, 944), interpolation=cv2.INTER_CUBIC)
    sheet = bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
    assert len(sheet) > 100_000
    rows = [farm.good(row, 1.0 + row, "the lips are late by 3 frames; at most 1", sheet) for row in range(100)]
    rows += [farm.good(row) for row in range(100, 9_000)]
    rows += [farm.failed(row, f"MediaError: /films/{row}.mp4: cut short") for row in range(9_000, 10_000)]
    began = time.process_time()
    reader = farm.write(rows)
    assert time.process_time() - began < 10
    assert Path(farm.uri).stat().st_size < 15e6
    assert reader.tags.count("img") == 60
    assert "succeeded 9,000 of 10,000 jobs" in reader.said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (59.4, "59.4 s"), (61, "1 min"), (3599.0, "1 h 00 min"), (90_000, "25 h 00 min")],
)
def test_lengths_of_time_are_written_shortly(seconds: float, text: str) -> None:
    assert duration(seconds) == text
