"""What a stage of training gives the loop: the clips that it can use, examples of them, their loss, a judgement."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamhead.training.dataset import Clip, ClipInfo

Example = dict[str, NDArray[np.generic]]
"""Named arrays of one example; a batch stacks them along a new first axis."""
Figures = Mapping[str, Tensor | float]
"""Named numbers, or tensors of one: these are read once a step is queued, so that no GPU waits for it."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How a network does on clips that it isn't trained on."""

    figures: dict[str, float]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    """(H, W, 3) RGB each."""


class Task(Protocol):
    """One network's training. Its arrays and its loss are its own; how often, where and how fast is the loop's."""

    model: nn.Module
    """The network whose parameters are trained; the loop may put a wrapper for several devices here."""

    progress: float
    """Share of the training that is done, 0 to 1; the loop sets it before each step."""

    @property
    def score(self) -> str:
        """Name of the figure of `validate` that says which checkpoint is best; more is better."""
        ...

    def usable(self, clip: ClipInfo) -> bool:
        """Whether a clip can be trained on."""
        ...

    def begin(self, clips: Iterable[Clip]) -> dict[str, float]:
        """Fit to the data what isn't learnt by steps, once, before a fresh run's first step; figures for the log."""
        ...

    def example(self, clip: Clip, generator: np.random.Generator) -> Example:
        """One example of a clip, changed at random; called in other processes."""
        ...

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Figures]:
        """Mean loss of a batch on the model's device, and its parts for the log; `generator` (CPU) gives the noise."""
        ...

    def prepare(self, clips: Sequence[ClipInfo]) -> None:
        """Take what the loop will draw from to where it is needed, once for each process, before the first step."""
        ...

    def state(self) -> dict[str, Any]:
        """What else than the network a checkpoint must hold: tensors and plain values."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        ...

    def finish(self, clips: Iterable[Clip]) -> None:
        """Fit to the data what isn't learnt by steps, once the averaged weights are in the model."""
        ...

    def validate(self, clips: Sequence[Clip]) -> Judgement:
        """Judge the model as it is, in evaluation mode; the same each time for the same weights."""
        ...
