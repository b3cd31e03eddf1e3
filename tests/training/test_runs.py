"""A run's folder goes on only with what it was begun with, keeps the newest and the best, and never half a file."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dreamhead.errors import TrainingError
from dreamhead.training.runs import RunFolder


def record(steps: int = 10, **loop: object) -> dict[str, Any]:
    settings = {"model": {"sizes": [1, 2]}, "loop": {"steps": steps, "learning_rate": 0.1, "keep": 2, **loop}}
    return {"stage": "autoencoder", "settings": settings, "clips": "abc", "data": "/data", "autoencoder": None}


def test_the_same_settings_go_on_and_steps_may_grow(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    folder.begin(record())
    folder.begin(record(steps=20, keep=5) | {"data": "/moved"})
    assert folder.record()["settings"]["loop"]["steps"] == 20
    with pytest.raises(TrainingError, match=r"loop.steps may only grow: the run has 20, the settings 10"):
        folder.begin(record())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (record(learning_rate=0.2), "settings.loop.learning_rate: the run has 0.1, now it is 0.2"),
        (record() | {"clips": "abd"}, "clips: the run has 'abc', now it is 'abd'"),
        (record(warmup=3), "settings.loop.warmup: the run has None, now it is 3"),
    ],
)
def test_changed_settings_are_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = RunFolder(str(tmp_path))
    folder.begin(record())
    with pytest.raises(TrainingError) as caught:
        folder.begin(change)
    assert str(caught.value) == f"{tmp_path}: a run of this name is there, with other settings: {message}"
    assert folder.record() == record()


def test_an_autoencoder_may_move_but_not_change(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    source = {"kind": "run", "uri": "/here", "digest": "1"}
    folder.begin(record() | {"autoencoder": source})
    folder.begin(record() | {"autoencoder": source | {"uri": "/there"}})
    with pytest.raises(TrainingError, match=r"autoencoder\.digest: the run has '1', now it is '2'"):
        folder.begin(record() | {"autoencoder": source | {"digest": "2"}})


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    for step, score in ((2, 0.5), (4, 0.9), (6, float("nan")), (8, 0.7), (10, 0.9)):
        folder.save(step, {"step": step, "weights": {"a": torch.full((2,), float(step))}})
        folder.judge(step, score, {"score": score})
        folder.forget(keep=2)
    assert folder.steps() == [4, 8, 10]
    best = folder.best()
    assert best is not None
    assert (best.step, best.score) == (4, 0.9)
    assert torch.equal(folder.load(8)["weights"]["a"], torch.tensor([8.0, 8.0]))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    folder.save(4, {"weights": torch.zeros(1000)})
    path = tmp_path / "checkpoints" / "00000004.pt"
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(TrainingError, match=f"{path}: damaged; delete it to go on from the one before"):
        folder.load(4)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    folder.save(4, {})
    (tmp_path / "checkpoints" / "00000009.pt.old").write_bytes(b"")
    (tmp_path / "checkpoints" / "notes.pt").write_bytes(b"")
    assert folder.steps() == [4]


def test_the_note_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    network = tmp_path / "network"
    network.mkdir()
    (network / "config.json").write_text("{}")
    folder.finish(network, {"step": 3})
    assert folder.finished() == {"step": 3}
    assert (tmp_path / "run" / "network" / "config.json").read_text() == "{}"

    def fail(path: Path, uri: str) -> None:
        raise OSError("no space")

    monkeypatch.setattr("dreamhead.storage.publish", fail)
    with pytest.raises(OSError, match="no space"):
        folder.finish(network, {"step": 4})
    assert folder.finished() is None
