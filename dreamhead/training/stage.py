"""Train one planned stage, in one process or as one of several, and keep its network."""

import os
import tempfile
from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from dreamhead import storage
from dreamhead.errors import StorageError
from dreamhead.training.loop import Watcher, train
from dreamhead.training.parallel import Crew
from dreamhead.training.plan import Plan
from dreamhead.training.runs import RunFolder
from dreamhead.training.task import Task
from dreamhead.training.tasks import build_task


def train_stage(plan: Plan, device: torch.device, watcher: Watcher) -> None:
    """Train a stage to its end, this process being one of a crew if it has joined one; the network is then in storage.

    Raises:
        TrainingError, KeyboardInterrupt: as `loop.train`.
    """
    # All batches of a training are of one shape: the fastest convolutions for it are looked for once.
    torch.backends.cudnn.benchmark = device.type == "cuda"
    crew = Crew.joined(device, plan.settings.workers.parallel)
    folder = RunFolder(plan.folder_uri)
    _check_shared(folder)
    task = _build_in_turn(plan, crew)
    loop = plan.settings.stage(plan.stage).loop
    network = train(task, loop, plan.clips, folder, crew, watcher, fit=not plan.init_from)
    if network is not None:
        _keep(network, plan, folder)


def _keep(network: nn.Module, plan: Plan, folder: RunFolder) -> None:
    best = folder.best() if plan.settings.stage(plan.stage).loop.validate_every else None
    last = folder.steps()[-1]
    note = {
        "step": last,
        "best_step": best.step if best is not None else last,
        "figures": best.figures if best is not None else {},
        "clips": len(plan.clips.train),
        "clips_left_out": plan.clips.soft,
        "speakers": len({clip.speaker for clip in plan.clips.train}),
        "seconds_of_video": round(sum(clip.frames / clip.frame_rate for clip in plan.clips.train), 1),
    }
    with tempfile.TemporaryDirectory() as local:
        if not isinstance(network, ModelMixin):
            raise TypeError(f"{type(network).__name__} can't be saved as a network of diffusers")
        network.save_pretrained(local)
        folder.finish(Path(local), note)


def _check_shared(folder: RunFolder) -> None:
    """A local path must be the same directory on every machine."""
    uri = storage.join(folder.uri, "settings.json")
    if not storage.exists(uri):
        raise StorageError(f"{uri}: not seen on this machine; workers on several machines need shared storage or s3://")


def _build_in_turn(plan: Plan, crew: Crew) -> Task:
    """Build the task on every process; first on one of each machine, which fetches what the others then find."""
    goes_first = int(os.environ.get("LOCAL_RANK", crew.rank)) == 0
    if not goes_first:
        crew.wait()
    task = build_task(plan.stage, plan.settings, plan.init_from, plan.autoencoder, crew)
    if goes_first:
        crew.wait()
    return task
