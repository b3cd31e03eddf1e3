"""Build the task of a stage: its network, fresh or a checkpoint's, and what it is trained with."""

from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from dreamhead.training import networks
from dreamhead.training.autoencoder_stage import AutoencoderTask
from dreamhead.training.image_stage import ImageTask
from dreamhead.training.landmark_stage import LandmarkTask
from dreamhead.training.mixer_stage import MixerTask
from dreamhead.training.networks import AutoencoderSource
from dreamhead.training.parallel import Crew
from dreamhead.training.settings import AUTOENCODER, LANDMARKS, MIXER, TrainingSettings
from dreamhead.training.task import Task


def build_task(
    stage: str, settings: TrainingSettings, init_from: str, autoencoder: AutoencoderSource | None, crew: Crew
) -> Task:
    """The task of a stage on the crew's device.

    Args:
        init_from: checkpoint whose network is trained further; empty for a fresh one.
        autoencoder: for the stage that paints into its latents.
    """
    network = networks.checkpoint_network(init_from, stage) if init_from else networks.fresh_network(settings, stage)
    model: Any = _placed(network, crew)
    # A task names the class of its network; the loop puts others of that class in its place.
    task: Any
    if stage == AUTOENCODER:
        task = AutoencoderTask(model, settings.autoencoder)
    elif stage == LANDMARKS:
        task = LandmarkTask(model, settings.audio_to_landmark)
    elif stage == MIXER:
        task = MixerTask(model, settings.reference_mixer)
    elif autoencoder is None:
        raise ValueError(f"{stage} needs an autoencoder")
    else:
        frozen: Any = networks.load_autoencoder(autoencoder)
        frozen = frozen.to(crew.device, memory_format=torch.channels_last)
        task = ImageTask(model, frozen, settings.landmark_to_image)
    built: Task = task
    return built


def _placed(network: ModelMixin, crew: Crew) -> ModelMixin:
    # Pieces of a network are cut from contiguous weights only.
    whole = crew.size == 1 or crew.parallel == "ddp"
    return network.to(crew.device, memory_format=torch.channels_last if whole else torch.contiguous_format)
