"""The journal keeps each step once, and its curves hold what its lines say."""

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamhead.training.journal import opened, read_log
from dreamhead.training.task import Judgement


def test_lines_curves_and_pictures(tmp_path: Path) -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    with opened(str(tmp_path), 0) as journal:
        journal.write({"step": 5, "loss": 2.5})
        journal.judge(5, Judgement(figures={"psnr": 30.0}, pictures={"faces": picture}))
        assert read_log(str(tmp_path)) == [{"step": 5, "loss": 2.5}, {"step": 5, "validation": {"psnr": 30.0}}]
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in curves.Scalars("training/loss")] == [(5, 2.5)]
    assert [(event.step, event.value) for event in curves.Scalars("validation/psnr")] == [(5, 30.0)]
    assert [(event.width, event.height) for event in curves.Images("faces")] == [(6, 4)]


def test_what_an_interrupted_run_noted_beyond_is_dropped(tmp_path: Path) -> None:
    with opened(str(tmp_path), 0) as journal:
        for step in (2, 4, 6):
            journal.write({"step": step, "loss": 1.0})
    with opened(str(tmp_path), 4) as journal:
        journal.write({"step": 6, "loss": 2.0})
    assert [(line["step"], line["loss"]) for line in read_log(str(tmp_path))] == [(2, 1.0), (4, 1.0), (6, 2.0)]


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read_log(str(tmp_path / "nothing")) == []


def test_curves_reach_object_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    published: dict[str, bytes] = {}
    monkeypatch.setattr("dreamhead.storage.exists", lambda uri: uri in published)
    monkeypatch.setattr("dreamhead.storage.write_bytes", lambda uri, data: published.update({uri: data}))
    monkeypatch.setattr("dreamhead.storage.publish", lambda path, uri: published.update({uri: path.read_bytes()}))
    with opened("s3://bucket/run", 0) as journal:
        journal.write({"step": 1, "loss": 1.0})
    assert published["s3://bucket/run/log.jsonl"] == b'{"step": 1, "loss": 1.0}\n'
    (events,) = [uri for uri in published if uri.startswith("s3://bucket/run/tensorboard/")]
    assert b"training/loss" in published[events]
