"""The training command: one stage or all three, in this process or on Ray; a checkpoint directory at the end."""

import argparse
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console

from dreamhead import storage
from dreamhead.cluster.command import SUCCEEDED, run_command
from dreamhead.cluster.only_run import OnlyRun
from dreamhead.cluster.training_progress import TrainingProgress
from dreamhead.config import load_yaml, parse
from dreamhead.errors import ConfigError
from dreamhead.training.assembly import assemble
from dreamhead.training.loop import Watcher
from dreamhead.training.networks import BASE
from dreamhead.training.plan import Plan, Request, plan, plan_ahead
from dreamhead.training.settings import AUTOENCODER, MIXER, STAGES, TrainingSettings, WorkersSettings
from dreamhead.training.stage import train_stage

ALL = "all"
RUNNING = "running.json"
"""Keeps other calls away from a stage of a run while one is at work there."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train; 0 when all steps are done, 2 when the run was refused or broke off, 130 when it was interrupted."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda console: _run(arguments, console))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py", description="Train the networks, on Ray or in this process.")
    parser.add_argument(
        "--stage", choices=(*STAGES, MIXER, ALL), required=True, help=f"what to train; {ALL}: one by one"
    )
    parser.add_argument("--data", required=True, help="directory of a prepared data set; a path or s3://")
    parser.add_argument("--config", type=Path, required=True, help="YAML with settings, such as configs/base.yaml")
    parser.add_argument("--name", required=True, help="of the run; the same name goes on with it")
    parser.add_argument("--storage", required=True, help="directory of runs; a path that all workers share, or s3://")
    parser.add_argument("--num-workers", metavar="N|LEAST:MOST", help="instead of the settings' workers.num_workers")
    parser.add_argument("--minutes", type=float, help="end after so many, instead of the settings' loop.minutes")
    parser.add_argument("--init-from", default="", metavar="CHECKPOINT", help=f"train its networks on; {BASE}: bundled")
    parser.add_argument("--autoencoder", default="", metavar="CHECKPOINT", help="paint into its autoencoder's latents")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    request = _request(arguments)
    stages = [arguments.stage] if arguments.stage != ALL else [s for s in STAGES if _is_wanted(s, request)]
    ahead = plan_ahead(request, stages)
    for stage in stages:
        _train(ahead.get(stage) or plan(request, stage), console)
    if uri := assemble(request):
        console.print(f"checkpoint: {uri}", markup=False, highlight=False, soft_wrap=True)
    return SUCCEEDED


def _request(arguments: argparse.Namespace) -> Request:
    if not arguments.name or arguments.name != arguments.name.strip("/."):
        raise ConfigError(f"--name: {arguments.name!r} is no name for a directory")
    settings = load_yaml(arguments.config, TrainingSettings)
    if arguments.num_workers is not None:
        values = settings.model_dump(exclude_unset=True)
        values.setdefault("workers", {})["num_workers"] = _number(arguments.num_workers)
        settings = parse(values, TrainingSettings, "--num-workers")
    if arguments.minutes is not None:
        settings = _within(settings, arguments.stage, arguments.minutes)
    return Request(
        settings=settings,
        data_uri=_absolute(arguments.data),
        run_uri=storage.join(_absolute(arguments.storage), arguments.name),
        init_from=_checkpoint(arguments.init_from),
        autoencoder=_checkpoint(arguments.autoencoder),
    )


def _is_wanted(stage: str, request: Request) -> bool:
    """An autoencoder that is given needn't be trained."""
    return stage != AUTOENCODER or not request.autoencoder


def _train(planned: Plan, console: Console) -> None:
    workers = planned.settings.workers
    if planned.is_done:
        console.print(f"{planned.stage}: all {planned.steps} steps are done", markup=False, highlight=False)
        return
    progress = TrainingProgress(console, planned.stage, planned.steps)
    with progress, OnlyRun(storage.join(planned.folder_uri, RUNNING), planned.folder_uri, progress.say):
        clips = planned.clips
        left_out = f" ({clips.soft} soft ones left out)" if clips.soft else ""
        what = f"{len(clips.train)} clips{left_out}"
        progress.say(f"{planned.stage}: {planned.steps} steps on {what}, into {planned.folder_uri}")
        if workers.num_workers == 0:
            with _asked_to_stop() as stop:
                train_stage(planned, _device(workers), _Here(progress, stop))
            return
        # A training in this process needs no Ray.
        from dreamhead.cluster.session import ray_with_cpus
        from dreamhead.cluster.trainer import train_on_ray

        with ray_with_cpus(math.ceil(workers.least * workers.cpus_per_worker)):
            train_on_ray(planned, progress)


def _device(workers: WorkersSettings) -> torch.device:
    """Where this process computes, with as many threads as it may have."""
    has_gpu = torch.cuda.is_available()
    if workers.use_gpu is True and not has_gpu:
        raise ConfigError("workers.use_gpu: true, but this machine has no GPU; allowed here: auto, false")
    return torch.device("cuda" if has_gpu and workers.use_gpu else "cpu")


class _Here(Watcher):
    """Shows how a training in this process gets on, and ends it on Ctrl-C once a step is done."""

    def __init__(self, progress: TrainingProgress, stop: list[int]) -> None:
        self._progress = progress
        self._stop = stop

    def wants_stop(self, step: int) -> bool:
        """See Watcher."""
        return bool(self._stop)

    def stepped(self, step: int) -> None:
        """See Watcher."""
        self._progress.step(step)

    def noted(self, line: dict[str, Any]) -> None:
        """See Watcher."""
        self._progress.note(line)


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that a first Ctrl-C, or a polite end from outside, fills; a second one ends the process at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _within(settings: TrainingSettings, stage: str, minutes: float) -> TrainingSettings:
    """The settings with a limit of time for one stage, or for each of all."""
    values = settings.model_dump(exclude_unset=True)
    for name in STAGES if stage == ALL else (stage,):
        loop = settings.stage(name).loop.model_dump()
        values.setdefault(name, {})["loop"] = {**loop, "minutes": minutes}
    return parse(values, TrainingSettings, "--minutes")


def _number(text: str) -> object:
    """`4` or `2:8`; what is neither is left to the settings to refuse."""
    parts = text.split(":")
    if not all(part.isdigit() for part in parts):
        return text
    return int(text) if len(parts) == 1 else [int(part) for part in parts]


def _checkpoint(name: str) -> str:
    return name if name in ("", BASE) else _absolute(name)


def _absolute(uri: str) -> str:
    return storage.resolve(uri, ".")
