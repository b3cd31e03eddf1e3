"""One training loop for every stage: plain torch, EMA, resumable; needs neither Ray nor a cluster."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

logger = logging.getLogger(__name__)


class Task(Protocol):
    """What a stage gives the loop: a network, batches and their loss."""

    @property
    def model(self) -> nn.Module:
        """The network whose parameters are trained."""
        ...

    def draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """One batch, on the CPU; called in other processes."""
        ...

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch, and its parts for the log; `generator` gives the noise, on the CPU."""
        ...


class StepBatches(Dataset[dict[str, Tensor]]):
    """The batch of each step, keyed by the step: an interrupted run draws the same ones as another."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._seed = seed

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self._task.draw(np.random.default_rng((self._seed, step)))


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how hard to train."""

    steps: int
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    save_every: int = 200
    log_every: int = 50
    bfloat16: bool = False
    """Run the networks in bfloat16, with float32 weights."""
    device: str = "cpu"
    data_workers: int = 0
    """Processes that draw batches ahead; 0 draws them in between."""


def train(
    task: Task,
    settings: LoopSettings,
    folder: Path,
    validate: Callable[[int], dict[str, float]] | None = None,
) -> EMAModel:
    """Train until `settings.steps`; the same call goes on where the last one stopped.

    Args:
        folder: holds `state.pt` (weights, optimizer, EMA, step) and `log.jsonl`, a line every `log_every` steps.
        validate: called with the step after each save, on EMA weights; its figures go into the log.

    Returns:
        The EMA, whose `copy_to` gives the weights to keep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, settings.steps)
    ema = EMAModel(parameters, decay=settings.ema_decay)
    parts: dict[str, Any] = {"model": task.model, "optimizer": optimizer, "schedule": schedule, "ema": ema}
    first = _restore(folder / "state.pt", parts)
    began, seen = time.monotonic(), []
    for step, batch in enumerate(_batches(task, settings, first), start=first):
        seen.append(_step(task, parts, settings, batch, step))
        done = step + 1
        if done % settings.log_every == 0 or done == settings.steps:
            _log(folder, done, seen, time.monotonic() - began)
            seen = []
        if done % settings.save_every == 0 or done == settings.steps:
            _save(folder / "state.pt", parts, done)
            if validate is not None:
                _write(folder, {"step": done, **_validated(task, ema, parameters, validate, done)})
    return ema


def _batches(task: Task, settings: LoopSettings, first: int) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(
        StepBatches(task, settings.seed),
        batch_size=None,
        sampler=range(first, settings.steps),
        num_workers=settings.data_workers,
        # OpenCV's threads don't survive a fork, and a worker has one core at most.
        worker_init_fn=lambda _: cv2.setNumThreads(0),
    )


def _step(
    task: Task, parts: dict[str, Any], settings: LoopSettings, batch: dict[str, Tensor], step: int
) -> dict[str, float]:
    task.model.train()
    # Dropout draws from torch's own stream; tied to the step like the batch.
    torch.manual_seed(settings.seed * 1_000_003 + step)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    on_device = {name: part.to(settings.device) for name, part in batch.items()}
    with torch.autocast(settings.device, torch.bfloat16, enabled=settings.bfloat16):
        loss, figures = task.loss(on_device, generator)
    parts["optimizer"].zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(task.model.parameters(), settings.max_grad_norm)
    parts["optimizer"].step()
    parts["schedule"].step()
    parts["ema"].step(task.model.parameters())
    return {"loss": float(loss.detach()), **figures}


def _validated(
    task: Task, ema: EMAModel, parameters: list[nn.Parameter], validate: Callable[[int], dict[str, float]], step: int
) -> dict[str, float]:
    ema.store(parameters)
    ema.copy_to(parameters)
    task.model.eval()
    figures = validate(step)
    ema.restore(parameters)
    return figures


def _restore(path: Path, parts: dict[str, Any]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def _save(path: Path, parts: dict[str, Any], step: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({**{name: part.state_dict() for name, part in parts.items()}, "step": step}, partial)
    partial.replace(path)


def _log(folder: Path, step: int, seen: list[dict[str, float]], seconds: float) -> None:
    means = {name: round(float(np.mean([figures[name] for figures in seen])), 5) for name in seen[0]}
    _write(folder, {"step": step, "seconds": round(seconds, 1), **means})


def _write(folder: Path, line: dict[str, float]) -> None:
    logger.info("%s", line)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
