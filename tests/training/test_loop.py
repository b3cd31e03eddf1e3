"""The loop learns, judges and keeps, and goes on after an interruption as if there had been none."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamhead.errors import InputError, TrainingError
from dreamhead.training.dataset import write_clips
from dreamhead.training.loop import Watcher
from dreamhead.training.runs import RunFolder
from tests.training.lines import SETTINGS, LineTask, bare_row, fit, log_lines, write_bare_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five clips to train on, two to validate."""
    return write_bare_data(tmp_path_factory.mktemp("lines"))


def weights(task: LineTask) -> dict[str, Tensor]:
    return {name: part.clone() for name, part in task.model.state_dict().items()}


@pytest.mark.parametrize("breaks_at", [3, 4, 6, 11])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(data: str, tmp_path: Path, breaks_at: int) -> None:
    straight = fit(LineTask(), data, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        fit(LineTask(breaks_at), data, tmp_path / "broken")
    again = LineTask()
    resumed = fit(again, data, tmp_path / "broken")
    assert again.calls == 12 - breaks_at // 4 * 4
    assert straight is not None
    assert resumed is not None
    for name, part in straight.state_dict().items():
        assert torch.equal(part, resumed.state_dict()[name]), name
    lines, others = (log_lines(tmp_path / name) for name in ("straight", "broken"))
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    assert lines[-1] == others[-1]
    assert lines[-2]["loss"] == others[-2]["loss"]


def test_the_loss_falls_and_every_line_says_how_it_went(data: str, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 60, "validate_every": 30, "log_every": 20, "save_every": 60})
    fit(LineTask(), data, tmp_path, settings)
    lines = [line for line in log_lines(tmp_path) if "loss" in line]
    assert [line["step"] for line in lines] == [20, 40, 60]
    pace = {"step", "samples_per_s", "data_wait", "seconds", "learning_rate", "gradient_norm"}
    assert all(set(line) == pace | {"loss", "error"} for line in lines)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert all(0 <= line["data_wait"] <= 1 < line["samples_per_s"] for line in lines)
    assert lines[0]["learning_rate"] > lines[1]["learning_rate"] > lines[2]["learning_rate"] > 0


def test_the_rate_rises_then_falls_to_nothing(data: str, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"warmup_steps": 4, "log_every": 1})
    fit(LineTask(), data, tmp_path, settings)
    rates = [line["learning_rate"] for line in log_lines(tmp_path) if "loss" in line]
    assert rates[:5] == pytest.approx([0, 0.0125, 0.025, 0.0375, 0.05])
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_the_task_is_prepared_told_how_far_it_is_and_keeps_what_is_its_own(data: str, tmp_path: Path) -> None:
    task = LineTask()
    fit(task, data, tmp_path)
    assert task.prepared == ["c0", "c1", "c2", "c3", "c4"]
    assert task.progresses == pytest.approx(np.arange(12) / 12)
    resumed = LineTask()
    fit(resumed, data, tmp_path, SETTINGS.model_copy(update={"steps": 13}))
    assert resumed.beside == 13


def test_a_limit_of_time_ends_the_run_with_a_checkpoint_and_the_rate_at_nothing(data: str, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(
        update={"steps": 10**6, "minutes": 0.02, "save_every": 10**6, "validate_every": 10**6}
    )
    task = LineTask()
    network = fit(task, data, tmp_path, settings)
    assert network is not None
    last = RunFolder(str(tmp_path)).steps()[-1]
    assert 1 < last < 10**6
    assert task.progresses == sorted(task.progresses)
    assert task.progresses[-1] <= 1
    lines = [line for line in log_lines(tmp_path) if "loss" in line]
    assert lines[-1]["step"] == last
    assert lines[-1]["learning_rate"] < 0.1 * settings.learning_rate
    assert max(line["learning_rate"] for line in lines) > 0.9 * settings.learning_rate


def test_parts_of_a_step_add_up_to_it(data: str, tmp_path: Path) -> None:
    cut = SETTINGS.model_copy(update={"accumulate": 4})
    one = fit(LineTask(dropout=0, noise=0), data, tmp_path / "one")
    four = fit(LineTask(dropout=0, noise=0), data, tmp_path / "four", cut)
    assert one is not None
    assert four is not None
    for name, part in one.state_dict().items():
        torch.testing.assert_close(part, four.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_the_best_average_is_kept_and_made_ready(data: str, tmp_path: Path) -> None:
    task = LineTask()
    network = fit(task, data, tmp_path)
    folder = RunFolder(str(tmp_path))
    best = folder.best()
    assert best is not None
    judged = {line["step"]: line["validation"]["closeness"] for line in log_lines(tmp_path) if "validation" in line}
    assert sorted(judged) == [4, 8, 12]
    assert best.step == max(judged, key=lambda step: judged[step])
    assert network is not None
    assert -float(network.last.weight.detach().square().sum()) == pytest.approx(best.score)
    state = folder.load(best.step)
    assert torch.equal(network.last.weight, state["average"]["last.weight"])
    assert not torch.equal(network.last.weight, state["network"]["last.weight"])
    # `finish` added a thousand to what `begin` found: the clips' articulations.
    assert float(network.offset) == pytest.approx(1001.0)


def test_validation_sees_the_average_and_training_goes_on_unmoved(data: str, tmp_path: Path) -> None:
    judged, unjudged = LineTask(), LineTask()
    fit(judged, data, tmp_path / "judged")
    fit(unjudged, data, tmp_path / "unjudged", SETTINGS.model_copy(update={"validate_every": 0}))
    assert len(judged.judged) == 3
    for step, seen in zip((4, 8, 12), judged.judged, strict=True):
        if step in RunFolder(str(tmp_path / "judged")).steps():
            assert torch.equal(seen, RunFolder(str(tmp_path / "judged")).load(step)["average"]["last.weight"])
    states = [RunFolder(str(tmp_path / name)).load(12)["network"] for name in ("judged", "unjudged")]
    assert all(torch.equal(part, states[1][name]) for name, part in states[0].items())


def test_without_validation_the_last_is_kept_and_no_such_split_is_needed(tmp_path: Path) -> None:
    write_clips(str(tmp_path / "data/train/a.parquet"), [bare_row("only", 3)])
    write_clips(str(tmp_path / "data/validation/a.parquet"), [bare_row("unread", 3)])
    network = fit(
        LineTask(), str(tmp_path / "data"), tmp_path / "run", SETTINGS.model_copy(update={"validate_every": 0})
    )
    folder = RunFolder(str(tmp_path / "run"))
    assert folder.best() is None
    assert network is not None
    assert torch.equal(network.last.weight, folder.load(12)["average"]["last.weight"])


def test_the_average_follows_the_weights(data: str, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 3, "save_every": 1, "keep": 9, "ema_decay": 0.9})
    fit(LineTask(), data, tmp_path, settings)
    states = [RunFolder(str(tmp_path)).load(step) for step in (1, 2, 3)]
    # diffusers' average takes the first weights whole and then warms up: decays 0, 2 / 11, 3 / 12.
    expected = states[0]["network"]["last.weight"]
    for state, decay in zip(states[1:], (2 / 11, 3 / 12), strict=True):
        expected = decay * expected + (1 - decay) * state["network"]["last.weight"]
        torch.testing.assert_close(state["average"]["last.weight"], expected)


def test_more_steps_go_on_from_the_last(data: str, tmp_path: Path) -> None:
    fit(LineTask(), data, tmp_path)
    again = LineTask()
    fit(again, data, tmp_path, SETTINGS.model_copy(update={"steps": 15}))
    assert again.calls == 3
    assert RunFolder(str(tmp_path)).steps()[-1] == 15


def test_a_finished_run_takes_no_step(data: str, tmp_path: Path) -> None:
    first = fit(LineTask(), data, tmp_path)
    before, again = log_lines(tmp_path), LineTask()
    second = fit(again, data, tmp_path)
    assert again.calls == 0
    assert log_lines(tmp_path) == before
    assert first is not None
    assert second is not None
    assert torch.equal(first.last.weight, second.last.weight)


def test_fitting_is_for_fresh_networks_only(data: str, tmp_path: Path) -> None:
    network = fit(LineTask(), data, tmp_path, fit_first=False)
    assert network is not None
    assert float(network.offset) == 1000.0
    assert log_lines(tmp_path)[0]["step"] == 3


@pytest.mark.parametrize("nan_at", [0, 7])
def test_a_loss_that_is_no_number_names_step_and_clips(data: str, tmp_path: Path, nan_at: int) -> None:
    task = LineTask(nan_at=nan_at)
    with pytest.raises(TrainingError) as caught:
        fit(task, data, tmp_path)
    guilty = sorted({clip for clip, _ in task.drawn[-6:]})
    assert str(caught.value) == (
        f"step {nan_at + 1}: the loss isn't a number; its examples come from {', '.join(guilty)}"
    )
    assert RunFolder(str(tmp_path)).steps() == ([4] if nan_at else [])


def test_examples_that_do_not_fit_the_memory_name_what_to_set(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = LineTask.loss

    def limited(task: LineTask, batch: dict[str, Tensor], generator: torch.Generator) -> Any:
        if len(batch["x"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(task, batch, generator)

    monkeypatch.setattr(LineTask, "loss", limited)
    with pytest.raises(TrainingError) as caught:
        fit(LineTask(), data, tmp_path / "whole")
    assert str(caught.value) == (
        "step 1: 6 examples at once don't fit the GPU's memory, free memory unknown; set loop.accumulate above 1, "
        "or lower loop.batch_size, now 6"
    )
    fit(LineTask(), data, tmp_path / "parts", SETTINGS.model_copy(update={"accumulate": 2}))


def test_a_bad_clip_ends_the_run_with_its_name(tmp_path: Path) -> None:
    write_clips(str(tmp_path / "data/train/a.parquet"), [bare_row("bad", 3, neutral=b"")])
    write_clips(str(tmp_path / "data/validation/a.parquet"), [bare_row("good", 3)])
    with pytest.raises(InputError, match=r"a.parquet: row 0: neutral: 0 bytes"):
        fit(LineTask(), str(tmp_path / "data"), tmp_path / "run", fit_first=False)


class Remote(Watcher):
    """Asks to save after one step and to stop after another, and writes down what it is told."""

    def __init__(self, save_at: int, stop_at: int) -> None:
        self.told: list[tuple[str, int]] = []
        self._save_at, self._stop_at = save_at, stop_at

    def wants_save(self, step: int) -> bool:
        return step == self._save_at

    def wants_stop(self, step: int) -> bool:
        return step == self._stop_at

    def stepped(self, step: int) -> None:
        self.told.append(("step", step))

    def noted(self, line: dict[str, Any]) -> None:
        self.told.append(("validation" if "validation" in line else "line", line["step"]))

    def saved(self, step: int) -> None:
        self.told.append(("saved", step))


def test_the_watcher_is_heard_and_told(data: str, tmp_path: Path) -> None:
    remote, again = Remote(save_at=2, stop_at=6), LineTask()
    with pytest.raises(KeyboardInterrupt):
        fit(LineTask(), data, tmp_path, watcher=remote)
    assert RunFolder(str(tmp_path)).steps() == [4, 6]
    expected = [("line", 0), ("step", 1), ("step", 2), ("saved", 2), ("step", 3), ("line", 3), ("step", 4)]
    expected += [("validation", 4), ("saved", 4), ("step", 5), ("step", 6), ("line", 6), ("saved", 6)]
    assert remote.told == expected
    fit(again, data, tmp_path)
    assert again.calls == 6


def test_bfloat16_is_what_the_network_computes_in(data: str, tmp_path: Path) -> None:
    kinds: set[torch.dtype] = set()

    class Watched(LineTask):
        def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            self.model.last.register_forward_hook(lambda module, given, output: kinds.add(output.dtype))
            return super().loss(batch, generator)

    task = Watched()
    network = fit(task, data, tmp_path, SETTINGS.model_copy(update={"precision": "bfloat16", "steps": 2}))
    assert torch.bfloat16 in kinds
    assert network is not None
    assert {part.dtype for part in network.state_dict().values()} == {torch.float32}


def test_neither_ray_nor_pyav_nor_mediapipe_is_needed() -> None:
    program = (
        "import sys\n"
        "for name in ('ray', 'av', 'mediapipe', 'faster_whisper'): sys.modules[name] = None\n"
        "import dreamhead.training.stage, dreamhead.training.assembly\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_figure_that_nobody_knows_is_left_out(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = LineTask.validate

    def without_one(task: LineTask, clips: Any) -> Any:
        found = judged(task, clips)
        return replace(found, figures={**found.figures, "unknown": float("nan")})

    monkeypatch.setattr(LineTask, "validate", without_one)
    assert fit(LineTask(), data, tmp_path) is not None
    best = RunFolder(str(tmp_path)).best()
    assert best is not None
    assert best.figures
    assert "unknown" not in best.figures
    lines = [line["validation"] for line in log_lines(tmp_path) if "validation" in line]
    assert lines
    assert all("unknown" not in line for line in lines)
