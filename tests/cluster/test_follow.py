"""What workers write is told once, though a restart writes it again."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from dreamhead.cluster import follow
from dreamhead.cluster.follow import RestartNotes, followed, last_line
from dreamhead.cluster.training_progress import TrainingProgress
from dreamhead.training.journal import opened


def line(step: int) -> dict[str, float]:
    return {"step": step, "loss": 0.5, "samples_per_s": 20.0, "data_wait": 0.25}


def test_lines_and_restarts_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("dreamhead.cluster.training_progress.LINE_EVERY_S", 0.0)
    said, notes = io.StringIO(), RestartNotes(str(tmp_path))
    progress = TrainingProgress(Console(file=said, width=200), "autoencoder", 30)
    with opened(str(tmp_path), -1) as journal:
        journal.write(line(5))
    with followed(str(tmp_path), notes, progress):
        with opened(str(tmp_path), 5) as journal:
            journal.write(line(10))
            journal.write(line(20))
        deadline_s = time.monotonic() + 10
        while "step 20" not in said.getvalue() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        notes.after_exception(None, {1: RuntimeError("Traceback\n\nValueError: gone"), 0: RuntimeError("closed")})
        with opened(str(tmp_path), 10) as journal:
            journal.write(line(20))
            journal.write(line(30))
    told = said.getvalue().splitlines()
    pace = "loss 0.5, 20 samples/s, 25% of the time waiting for data"
    assert told == [
        f"autoencoder: step 10/30: {pace}",
        f"autoencoder: step 20/30: {pace}",
        "workers are started again, from the last checkpoint: worker 0: closed; worker 1: ValueError: gone",
        f"autoencoder: step 30/30: {pace}",
    ]
    assert notes.read() == ["worker 0: closed; worker 1: ValueError: gone"]


def test_the_last_line_of_an_error() -> None:
    assert last_line(ValueError("first\nsecond\n")) == "second"
    assert last_line(ValueError()) == "ValueError"
    assert last_line(ValueError("word " * 100)) == "word " * 39 + "..."
