"""The loop learns, tells what it does, and goes on after an interruption as if there had been none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dreamhead.training.loop import LoopSettings, StepBatches, train

SETTINGS = LoopSettings(steps=12, learning_rate=0.05, warmup_steps=2, save_every=4, log_every=3, ema_decay=0.9, seed=3)


class LineTask:
    """Fits y = A x, with dropout and noise so that every stream of random numbers counts."""

    def __init__(self, fails_at: int = -1) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 2))
        self.calls = 0
        self._fails_at = fails_at

    def draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        x = generator.normal(size=(16, 4)).astype(np.float32)
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(x[:, :2] * 3)}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if self.calls == self._fails_at:
            raise KeyboardInterrupt
        self.calls += 1
        noise = 0.1 * torch.randn(batch["x"].shape, generator=generator)
        error = (self.model(batch["x"] + noise) - batch["y"]).square().mean()
        return error, {"error": float(error.detach())}


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(task: LineTask) -> dict[str, Tensor]:
    return {name: part.clone() for name, part in task.model.state_dict().items()}


@pytest.mark.parametrize("fails_at", [4, 6, 11])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, fails_at: int) -> None:
    straight, broken, resumed = LineTask(), LineTask(fails_at), LineTask()
    ema = train(straight, SETTINGS, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(broken, SETTINGS, tmp_path / "broken")
    resumed_ema = train(resumed, SETTINGS, tmp_path / "broken")
    assert resumed.calls == 12 - fails_at // 4 * 4
    for name, part in weights(straight).items():
        assert torch.equal(part, weights(resumed)[name]), name
    for part, its in zip(ema.shadow_params, resumed_ema.shadow_params, strict=True):
        assert torch.equal(part, its)
    assert lines(tmp_path / "straight")[-1]["loss"] == lines(tmp_path / "broken")[-1]["loss"]


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    train(LineTask(), SETTINGS, tmp_path)
    before, again = lines(tmp_path), LineTask()
    train(again, SETTINGS, tmp_path)
    assert again.calls == 0
    assert lines(tmp_path) == before
    assert torch.equal(weights(again)["0.weight"], torch.load(tmp_path / "state.pt")["model"]["0.weight"])


def test_the_log_has_a_line_every_few_steps(tmp_path: Path) -> None:
    train(LineTask(), SETTINGS, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [3, 6, 9, 12]
    assert all({"step", "seconds", "loss", "error"} == set(line) for line in lines(tmp_path))
    assert lines(tmp_path)[-1]["loss"] < lines(tmp_path)[0]["loss"]


def test_validation_sees_the_average_and_training_its_own_weights(tmp_path: Path) -> None:
    task = LineTask()
    seen: list[Tensor] = []

    def validate(step: int) -> dict[str, float]:
        assert not task.model.training
        seen.append(weights(task)["0.weight"])
        return {"figure": float(step)}

    ema = train(task, SETTINGS, tmp_path, validate)
    assert [line["figure"] for line in lines(tmp_path) if "figure" in line] == [4, 8, 12]
    assert torch.equal(seen[-1], ema.shadow_params[0])
    assert not torch.equal(seen[-1], weights(task)["0.weight"])
    plain = LineTask()
    train(plain, SETTINGS, tmp_path / "plain")
    assert torch.equal(weights(plain)["0.weight"], weights(task)["0.weight"])


def test_a_step_draws_the_same_batch_whenever_it_comes() -> None:
    batches = StepBatches(LineTask(), 3)
    assert torch.equal(batches[5]["x"], batches[5]["x"])
    assert not torch.equal(batches[5]["x"], batches[6]["x"])
    assert not torch.equal(batches[5]["x"], StepBatches(LineTask(), 4)[5]["x"])


def test_no_half_written_state_is_left(tmp_path: Path) -> None:
    train(LineTask(), SETTINGS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "state.pt"]
