"""One training loop for every stage: plain torch, in one process or in several, resumable to the bit in its data."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dreamhead.errors import DreamheadError, TrainingError
from dreamhead.pipelines.memory import free_memory, is_out_of_memory
from dreamhead.training.clips import Batch, ClipPool, step_batches
from dreamhead.training.dataset import Clip, ClipInfo, read_clip
from dreamhead.training.journal import Journal, opened
from dreamhead.training.parallel import Crew, Network
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import LoopSettings
from dreamhead.training.task import Figures, Judgement, Task

NAMED_CLIPS = 8
"""Most clips that a message names."""


class Watcher:
    """What stands around the loop: asks it to save or to stop, and is told how it gets on. This one does neither."""

    def wants_save(self, step: int) -> bool:
        """Whether to save after this step; asked after each, and the answer is the same in all processes."""
        return False

    def wants_stop(self, step: int) -> bool:
        """Whether to save and stop after this step; the same in all processes."""
        return False

    def stepped(self, step: int) -> None:
        """One more step is done; told in the first process only."""

    def noted(self, line: dict[str, Any]) -> None:
        """A line of the log was written; told in the first process only."""

    def saved(self, step: int) -> None:
        """A checkpoint is there; told in all processes."""


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The clips of a data set that a task can use."""

    train: Sequence[ClipInfo]
    validation: Sequence[ClipInfo] = ()
    soft: int = 0
    """Clips to train on that are left out, as their pictures are soft."""


def train(
    task: Task, settings: LoopSettings, clips: Clips, folder: RunFolder, crew: Crew, watcher: Watcher, *, fit: bool
) -> nn.Module | None:
    """Train until `settings.steps`; the same call goes on from the last checkpoint in the folder.

    Args:
        task: its model lies on the crew's device.
        clips: not empty; the validation clips may be, where nothing is validated.
        fit: whether a fresh run begins with `task.begin`; not where the network has been trained before.

    Returns:
        On the crew's first process the network with the averaged weights of the best checkpoint, or of the last where
        nothing is validated, made ready by `task.finish`; None on the others.

    Raises:
        TrainingError: a loss isn't a number, or a checkpoint is damaged.
        KeyboardInterrupt: the watcher wanted to stop; all is saved.
    """
    steps = folder.steps() if crew.leads else []
    last = crew.gather(steps[-1] if steps else 0)[0]
    figures = task.begin(map(read_clip, clips.train)) if crew.leads and fit and not last else {}
    if clips.soft and crew.leads and not last:
        figures = {**figures, "clips_left_out": float(clips.soft)}
    crew.take_over(task.model)
    task.prepare(clips.train)
    trainer = _Trainer(task, settings, clips, folder, crew, watcher)
    if last:
        trainer.restore(last)
    with ExitStack() as stack:
        if crew.leads:
            # A fresh run leaves nothing of one that broke off before its first checkpoint.
            trainer.journal = stack.enter_context(opened(folder.uri, last or -1))
        if figures:
            trainer.note({"step": 0, **figures})
        trainer.run(last)
    return trainer.finish() if crew.leads else None


class _Trainer:
    """The state of one training in one process."""

    def __init__(
        self, task: Task, settings: LoopSettings, clips: Clips, folder: RunFolder, crew: Crew, watcher: Watcher
    ) -> None:
        self._task = task
        self._settings = settings
        self._clips = clips
        self._folder = folder
        self._crew = crew
        self._watcher = watcher
        self._network = Network(task, crew)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters, settings.learning_rate, weight_decay=settings.weight_decay
        )
        # As a function of the step, the rate needs no state that a resume would have to bring back.
        schedule = get_cosine_schedule_with_warmup(self._optimizer, settings.warmup_steps, settings.steps)
        self._share_of_rate = schedule.lr_lambdas[0]
        self._average = self._averager()
        self.journal: Journal | None = None
        self._judged: list[Clip] = []
        self._seen: list[tuple[int, dict[str, float]]] = []
        self._began_s = self._line_s = time.monotonic()
        self._waited_s = 0.0

    def restore(self, step: int) -> None:
        """Take everything from a checkpoint; only the first process reads it."""
        state = self._read(step)
        # The average is a network too: it passes through this one to be cut as its weights are.
        self._network.load_weights(state.get("average", {}))
        self._average = self._averager()
        self._average.optimization_step = self._crew.gather(state.get("averaged_steps", 0))[0]
        self._network.load_weights(state.get("network", {}))
        self._network.load_optimizer(self._optimizer, state.get("optimizer", {}))
        if beside := self._crew.gather(state.get("beside", {}))[0]:
            self._task.load_state(beside)
        if self._crew.leads:
            # An interruption may have come between the checkpoint and what was said of it.
            self._keep(step, state["figures"])

    def run(self, first: int) -> None:
        """Take all steps that are left."""
        settings, crew = self._settings, self._crew
        pool = ClipPool(self._clips.train, settings.resident_clips, settings.resident_period, settings.seed)
        steps = range(first, settings.steps)
        batches = step_batches(
            self._task, pool, settings, steps, crew.rank, crew.size, pin_memory=crew.device.type == "cuda"
        )
        for step, batch in zip(steps, self._awaited(batches), strict=True):
            self._task.progress = self._progress(step)
            self._step(step, batch)
            if self._after(step + 1):
                return

    def finish(self) -> nn.Module:
        """The network to keep; on the first process."""
        best = self._folder.best() if self._settings.validate_every else None
        kept = best.step if best is not None else self._folder.steps()[-1]
        network = self._with_weights(self._folder.load(kept)["average"])
        self._task.model = network.eval()
        self._task.finish(map(read_clip, self._clips.train))
        return network

    def _step(self, step: int, batch: Batch) -> None:
        settings, crew = self._settings, self._crew
        self._network.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        parts = _parts(batch, settings.accumulate)
        told: list[tuple[int, Figures]] = []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            # Shares may differ by one example: each counts as much as every other of the batch.
            share = len(part.clips) * crew.size / settings.batch_size
            with self._network.meeting(last), self._fitting(step, part):
                loss, its = self._loss(step, number, part)
                (loss * share).backward()  # type: ignore[no-untyped-call]
            told.append((len(part.clips), {"loss": loss.detach(), **its}))
        norm = self._network.clip(settings.max_grad_norm)
        figures: dict[str, float] = {}
        for count, its in told:
            for name, value in its.items():
                figures[name] = figures.get(name, 0.0) + float(value) * count / len(batch.clips)
        if not math.isfinite(norm):
            # Gradients have met: every process is here.
            raise self._not_a_number(step, figures["loss"], batch)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(step)
        self._optimizer.step()
        self._average.step(self._network.parameters)
        self._seen.append((len(batch.clips), {**figures, "gradient_norm": norm}))

    def _progress(self, step: int) -> float:
        """Share of the training that is done: by steps, or by the time where that runs out first."""
        return max(step / self._settings.steps, self._share_of_time())

    def _share_of_time(self) -> float:
        """The same in all processes."""
        if not self._settings.minutes:
            return 0.0
        share = (time.monotonic() - self._began_s) / (60 * self._settings.minutes)
        return float(min(1.0, self._crew.gather(share)[0]))

    def _rate(self, step: int) -> float:
        settings = self._settings
        if settings.minutes:
            # How many steps there will be isn't known.
            rising = min(1.0, (step + 1) / max(1, settings.warmup_steps))
            return settings.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * self._task.progress))
        return float(settings.learning_rate * self._share_of_rate(step))

    @contextmanager
    def _fitting(self, step: int, part: Batch) -> Iterator[None]:
        """Say what to set where a part of a step doesn't fit the GPU's memory."""
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            memory, now = free_memory(self._crew.device), self._settings.accumulate
            raise TrainingError(
                f"step {step + 1}: {len(part.clips)} examples at once don't fit the GPU's memory, {memory}; "
                f"set loop.accumulate above {now}, or lower loop.batch_size, now {self._settings.batch_size}"
            ) from error

    def _loss(self, step: int, number: int, part: Batch) -> tuple[Tensor, Figures]:
        settings, device = self._settings, self._crew.device
        key = np.random.SeedSequence((settings.seed, step, number, self._crew.rank)).generate_state(2, np.uint64)
        # Dropout draws from torch's own stream; keyed like the noise.
        torch.manual_seed(int(key[0]) >> 1)
        generator = torch.Generator().manual_seed(int(key[1]) >> 1)
        on_device = {name: value.to(device, non_blocking=True) for name, value in part.examples.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            return self._network.loss(on_device, generator)

    def _after(self, done: int) -> bool:
        """Whatever is due once `done` steps are done; whether that was all."""
        settings = self._settings
        if self._crew.leads:
            self._watcher.stepped(done)
        over = done == settings.steps or self._share_of_time() >= 1
        if done % settings.log_every == 0 or over:
            self._log(done)
        validates = settings.validate_every > 0 and (done % settings.validate_every == 0 or over)
        stops, asked = self._watcher.wants_stop(done), self._watcher.wants_save(done)
        if validates or stops or asked or done % settings.save_every == 0 or over:
            self._save(done, validates)
        if stops and not over:
            raise KeyboardInterrupt
        return over

    def _save(self, done: int, validates: bool) -> None:
        """Publish a checkpoint, judged first where that is due."""
        began_s = time.monotonic()
        network, crew = self._network, self._crew
        average = network.averaged(self._average.shadow_params)
        weights, optimizer = network.state(self._optimizer)
        if crew.leads:
            judgement = self._judgement(done, average) if validates else None
            state = {
                "step": done,
                "network": weights,
                "average": average,
                "averaged_steps": self._average.optimization_step,
                "optimizer": optimizer,
                "beside": self._task.state(),
                "figures": judgement.figures if judgement is not None else {},
            }
            self._folder.save(done, state)
            self._keep(done, state["figures"])
            if self.journal is not None:
                self.journal.publish()
        crew.wait()
        self._watcher.saved(done)
        # The log's pace is that of the steps alone.
        self._line_s += time.monotonic() - began_s

    def _judgement(self, done: int, average: dict[str, Any]) -> Judgement:
        if not self._judged:
            count = min(self._settings.validation_clips, len(self._clips.validation))
            spread = np.linspace(0, len(self._clips.validation) - 1, count).round().astype(int)
            self._judged = [read_clip(self._clips.validation[int(number)]) for number in spread]
        trained = self._task.model
        self._task.model = self._with_weights(average).eval()
        try:
            with torch.no_grad():
                found = self._task.validate(self._judged)
        finally:
            self._task.model = trained
        # What no clip could tell isn't a number, and JSON has no word for it.
        known = {name: value for name, value in found.figures.items() if math.isfinite(value)}
        judgement = replace(found, figures=known)
        if self.journal is not None:
            self.journal.judge(done, judgement)
        self._watcher.noted({"step": done, "validation": judgement.figures})
        return judgement

    def _keep(self, done: int, figures: dict[str, float]) -> None:
        if figures:
            self._folder.judge(done, figures.get(self._task.score, math.nan), figures)
        self._folder.forget(self._settings.keep)

    def _read(self, step: int) -> dict[str, Any]:
        """A checkpoint on the first process, nothing on the others; an error in reading it is everybody's."""
        state: dict[str, Any] = {}
        damage = None
        if self._crew.leads:
            try:
                state = self._folder.load(step)
            except TrainingError as error:
                damage = error
        if (told := self._crew.gather(damage)[0]) is not None:
            raise told
        return state

    def _averager(self) -> EMAModel:
        return EMAModel(
            self._network.parameters, decay=self._settings.ema_decay, foreach=self._crew.device.type == "cuda"
        )

    def _with_weights(self, weights: dict[str, Any]) -> nn.Module:
        network = self._network.plain
        if network is None:
            raise ValueError("only the first process holds a network of its own")
        network.load_state_dict(weights)
        return network

    def _awaited(self, batches: DataLoader[Batch | DreamheadError]) -> Iterator[Batch]:
        """The batches; counts the time in which there is none."""
        arriving = iter(batches)
        while True:
            asked_s = time.monotonic()
            batch = next(arriving, None)
            self._waited_s += time.monotonic() - asked_s
            if batch is None:
                return
            if isinstance(batch, DreamheadError):
                raise batch
            yield batch

    def _log(self, done: int) -> None:
        gathered = [share for shares in self._crew.gather(self._seen) for share in shares]
        now_s = time.monotonic()
        seconds, waited_s = now_s - self._line_s, self._waited_s
        self._line_s, self._waited_s, self._seen = now_s, 0.0, []
        if self._crew.leads:
            examples = sum(count for count, _ in gathered)
            means = _means(gathered)
            rate = self._rate(done - 1)
            pace = {"samples_per_s": examples / seconds, "data_wait": waited_s / seconds}
            figures = {**means, "learning_rate": rate, **pace, "seconds": now_s - self._began_s}
            self.note({"step": done, **{name: float(f"{value:.5g}") for name, value in figures.items()}})

    def note(self, line: dict[str, Any]) -> None:
        """Add a line to the log; on the first process."""
        if self.journal is not None:
            self.journal.write(line)
        self._watcher.noted(line)

    def _not_a_number(self, step: int, loss: float, batch: Batch) -> TrainingError:
        mine = [] if math.isfinite(loss) else sorted(set(batch.clips))
        guilty = sorted({clip for clips in self._crew.gather(mine) for clip in clips})
        if not guilty:
            return TrainingError(
                f"step {step + 1}: the gradient isn't a number, though the loss is: lower learning_rate"
            )
        more = f" and {len(guilty) - NAMED_CLIPS} more" if len(guilty) > NAMED_CLIPS else ""
        names = ", ".join(guilty[:NAMED_CLIPS]) + more
        return TrainingError(f"step {step + 1}: the loss isn't a number; its examples come from {names}")


def _means(shares: Sequence[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Mean of each figure over the examples that have it; a loss may begin in mid-training."""
    names = dict.fromkeys(name for _, figures in shares for name in figures)
    held = {name: [(count, figures[name]) for count, figures in shares if name in figures] for name in names}
    return {name: sum(n * value for n, value in its) / sum(n for n, _ in its) for name, its in held.items()}


def _parts(batch: Batch, count: int) -> list[Batch]:
    """A batch cut into `count` parts, whose sizes differ by one at most."""
    ends = [len(batch.clips) * (number + 1) // count for number in range(count)]
    return [
        Batch({name: value[start:end] for name, value in batch.examples.items()}, batch.clips[start:end])
        for start, end in zip([0, *ends], ends, strict=False)
    ]
