"""The report counts what there is and shows it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dreamhead import storage
from dreamhead.config import PreparationSettings
from dreamhead.stages.preparation import ledger
from dreamhead.stages.preparation.ledger import Ledger, Row, failed_row, source_row
from dreamhead.stages.preparation.report import _lag_bins, _spread, publish, summarise
from dreamhead.stages.preparation.source import Source

ANNA = Source(uri="/videos/a.mp4", speaker="anna", split="train")
BERT = Source(uri="/videos/b<i>.mp4", speaker="bert", split="validation")


def clip(source: Source, number: int, status: str, *reasons: str, **values: Any) -> Row:
    return {
        "kind": ledger.CLIP,
        "source": source.name,
        "clip_id": f"{source.name}-{number}",
        "speaker": source.speaker,
        "split": source.split,
        "status": status,
        "reasons": list(reasons),
        "start_s": 4.0 * number,
        "seconds": 36.0,
        "face_px": 100.0 + number,
        "sheet": b"jpeg",
    } | values


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    book = Ledger(str(tmp_path))
    lag = {"lag_s": 0.117, "lag_score": 0.66, "lag_margin": 0.5, "lag_sure": True, "lag_method": "landmarks"}
    rows = [
        clip(ANNA, 0, ledger.SPOKEN, lag_s=0.12),
        clip(ANNA, 1, ledger.PICTURES, "silent"),
        clip(ANNA, 2, ledger.REJECTED, "too dark", "blurred"),
    ]
    book.finish(ANNA, [source_row(ANNA, ledger.PREPARED, **lag), *rows])
    book.finish(BERT, [source_row(BERT, ledger.PREPARED), clip(BERT, 0, ledger.PICTURES, "no sound")])
    return book


def test_hours_speakers_and_reasons_are_counted(book: Ledger) -> None:
    summary = summarise([*book.rows(), failed_row(ANNA, "broken")])
    train, validation = summary.splits["train"], summary.splits["validation"]
    assert (train.sources, train.speakers, train.clips) == (1, 1, 2)
    assert train.hours == pytest.approx(0.02)
    assert train.spoken_hours == pytest.approx(0.01)
    assert (validation.clips, validation.spoken_hours) == (1, 0)
    assert summary.failed == {ANNA.name}
    assert summary.reasons["silent"] == {"clips": 1, "seconds": 36.0}
    assert set(summary.reasons) == {"silent", "no sound", "too dark", "blurred"}


def test_three_files_are_published_and_an_old_shard_goes(book: Ledger) -> None:
    storage.write_bytes(storage.join(book.uri, f"train/{ANNA.name}.parquet"), b"no longer listed")
    publish(book, [failed_row(Source(uri="x.mp4", speaker="", split=""), "row 3: bad")], PreparationSettings())
    assert not storage.exists(storage.join(book.uri, f"train/{ANNA.name}.parquet"))
    rows = pq.read_table(Path(book.uri) / "report.parquet").to_pylist()
    assert [row["kind"] for row in rows] == ["source", "clip", "clip", "clip", "source", "clip", "source"]
    facts = json.loads((Path(book.uri) / "dataset.json").read_text())
    assert facts["lag_measured_by"] == {"landmarks": 1}
    assert facts["splits"]["train"]["clips"] == 2
    assert facts["sources_failed"] == 1
    assert PreparationSettings.model_validate(facts["settings"]) == PreparationSettings()


def test_the_page_shows_figures_pictures_and_escapes_names(book: Ledger) -> None:
    publish(book, [], PreparationSettings())
    page = (Path(book.uri) / "report.html").read_text()
    assert "b<i>" not in page
    reader = Reader()
    reader.feed(page)
    # The rejected clip stands below each of its two reasons.
    assert reader.pictures == ["data:image/jpeg;base64,anBlZw=="] * 5
    text = " ".join(reader.text)
    for words in ("spoken (1)", "pictures: silent (1)", "rejected: blurred (1)", "+0.12 s: 1 sure, 0 not", "+0.117"):
        assert words in text


def test_an_empty_data_set_has_a_page_too(tmp_path: Path) -> None:
    summary = publish(Ledger(str(tmp_path)), [], PreparationSettings())
    assert summary.splits["train"].clips == 0
    assert "Every clip was kept" in (tmp_path / "report.html").read_text()


def test_lags_fall_into_bins_around_them() -> None:
    rows = [{"lag_s": lag_s, "lag_sure": sure} for lag_s, sure in ((0.009, True), (0.011, False), (-0.4, False))]
    bins = {round(bin["lag_s"], 2): (bin["sure"], bin["unsure"]) for bin in _lag_bins(rows, 0.4)}
    assert len(bins) == 41
    assert {place: counts for place, counts in bins.items() if counts != (0, 0)} == {
        -0.4: (0, 1),
        0.0: (1, 0),
        0.02: (0, 1),
    }


def test_few_of_many_are_spread_evenly() -> None:
    assert _spread([{"n": n} for n in range(11)], 3) == [{"n": 0}, {"n": 5}, {"n": 10}]


class Reader(HTMLParser):
    """Text and pictures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.pictures: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
