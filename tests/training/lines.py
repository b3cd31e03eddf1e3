"""A task that fits lines, and shards of clips that hold next to nothing: for tests of what is around a network."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamhead.training.dataset import CLIP_SCHEMA, Clip, ClipInfo, list_clips, write_clips
from dreamhead.training.loop import Clips, Watcher, train
from dreamhead.training.parallel import Crew
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import LoopSettings
from dreamhead.training.task import Example, Judgement

SETTINGS = LoopSettings(
    steps=12,
    batch_size=6,
    learning_rate=0.05,
    warmup_steps=2,
    save_every=4,
    validate_every=4,
    log_every=3,
    ema_decay=0.9,
    seed=3,
    data_workers=0,
)


def bare_row(clip_id: str, frames: int, **values: object) -> dict[str, object]:
    """A row of CLIP_SCHEMA whose arrays are zeros and whose pictures are empty."""
    blank: dict[pa.DataType, object] = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0, pa.bool_(): False}
    row = {field.name: blank.get(field.type, b"" if field.type == pa.binary() else []) for field in CLIP_SCHEMA}
    shapes = {"landmarks": (frames, 478, 3), "transforms": (frames, 2, 3), "neutral": (478, 3)}
    row |= {name: np.zeros(shape, np.float32).tobytes() for name, shape in shapes.items()}
    return {**row, "clip_id": clip_id, "frames": frames, "crops": [b""] * frames, **values}


def write_bare_data(folder: Path, clips: int = 5) -> str:
    """A data set whose clips c0, c1, ... have 1, 2, ... frames; two of them are for validation too."""
    rows = [bare_row(f"c{number}", number + 1, articulation=0.1 * number) for number in range(clips)]
    write_clips(str(folder / "train" / "a.parquet"), rows[:2])
    write_clips(str(folder / "train" / "b.parquet"), rows[2:])
    write_clips(str(folder / "validation" / "a.parquet"), rows[:2])
    return str(folder)


def clips_of(data_uri: str) -> Clips:
    """Both splits of a data set."""
    return Clips(train=list_clips(data_uri, "train"), validation=list_clips(data_uri, "validation"))


class LineTask:
    """Fits y = 3 x, with dropout and noise so that every stream of random numbers counts."""

    score = "closeness"
    progress = 0.0

    def __init__(self, breaks_at: int = -1, nan_at: int = -1, dropout: float = 0.2, noise: float = 0.1) -> None:
        torch.manual_seed(0)
        units = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.model: nn.Module = Curve(units, dropout)
        self.drawn: list[tuple[str, float]] = []
        self.judged: list[Tensor] = []
        self.calls = 0
        self.prepared: list[str] = []
        self.progresses: list[float] = []
        self.beside = 0
        self._breaks_at, self._nan_at, self._noise = breaks_at, nan_at, noise

    def usable(self, clip: ClipInfo) -> bool:
        return clip.frames > 0

    def prepare(self, clips: Sequence[ClipInfo]) -> None:
        self.prepared += [clip.clip_id for clip in clips]

    def state(self) -> dict[str, Any]:
        return {"beside": self.beside}

    def load_state(self, state: dict[str, Any]) -> None:
        self.beside = state["beside"]

    def begin(self, clips: Iterable[Clip]) -> dict[str, float]:
        self.model.offset.fill_(float(sum(clip.articulation for clip in clips)))
        return {"clips": 1.0}

    def example(self, clip: Clip, generator: np.random.Generator) -> Example:
        x: NDArray[np.generic] = generator.normal(size=4).astype(np.float32) + np.float32(clip.articulation)
        self.drawn.append((clip.clip_id, float(x[0])))
        return {"x": x, "y": x[:2] * np.float32(3)}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if self.calls == self._breaks_at:
            raise KeyboardInterrupt
        self.calls += 1
        self.beside += 1
        self.progresses.append(self.progress)
        noise = self._noise * torch.randn(batch["x"].shape, generator=generator)
        error = (self.model.bend(batch["x"] + noise) - batch["y"]).square().mean()
        error = error * (float("nan") if self.calls - 1 == self._nan_at else 1.0)
        return error, {"error": float(error.detach())}

    def finish(self, clips: Iterable[Clip]) -> None:
        self.model.offset.add_(1000)

    def validate(self, clips: Sequence[Clip]) -> Judgement:
        assert not self.model.training
        self.judged.append(self.model.last.weight.detach().clone())
        closeness = -float(self.model.last.weight.square().sum())
        return Judgement(figures={"closeness": closeness}, pictures={"grey": np.full((4, 4, 3), 128, np.uint8)})


class Curve(nn.Module):
    """A small network that is called by a method of its own, not by its forward pass."""

    def __init__(self, units: nn.ModuleList, dropout: float) -> None:
        super().__init__()
        self.first, self.units, self.dropout = nn.Linear(4, 8), units, nn.Dropout(dropout)
        self.last = nn.Linear(8, 2)
        self.register_buffer("offset", torch.zeros(1))

    def bend(self, x: Tensor) -> Tensor:
        hidden = self.first(x + 0 * self.offset)
        for unit in self.units:
            hidden = hidden + torch.tanh(unit(hidden))
        result: Tensor = self.last(self.dropout(hidden))
        return result


def fit(
    task: LineTask,
    data_uri: str,
    folder: Path,
    settings: LoopSettings = SETTINGS,
    crew: Crew | None = None,
    watcher: Watcher | None = None,
    fit_first: bool = True,
) -> nn.Module | None:
    """Train in this process."""
    clips = clips_of(data_uri)
    return train(task, settings, clips, RunFolder(str(folder)), crew or Crew(), watcher or Watcher(), fit=fit_first)


def train_on(task: LineTask, clips: Clips, folder: Path) -> nn.Module | None:
    """Train in this process on some clips."""
    return train(task, SETTINGS, clips, RunFolder(str(folder)), Crew(), Watcher(), fit=True)


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
