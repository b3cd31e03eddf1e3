"""Where a stage's networks come from: fresh ones, a checkpoint's, and the autoencoder that is painted into."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.modeling_utils import ModelMixin
from pydantic import BaseModel, ConfigDict
from torch import nn

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import Section
from dreamhead.errors import CheckpointError, ConfigError
from dreamhead.models.autoencoder import FaceAutoencoder, LibraryAutoencoder
from dreamhead.models.landmark_denoiser import LandmarkDenoiser
from dreamhead.models.latent_denoiser import LatentDenoiser
from dreamhead.models.reference_mixer import ReferenceMixer
from dreamhead.training.settings import AUTOENCODER, IMAGE, LANDMARKS, MIXER, TrainingSettings

BASE = "base"
"""Stands for the bundled checkpoint."""
CPU = torch.device("cpu")
KINDS: dict[str, type[ModelMixin]] = {
    AUTOENCODER: FaceAutoencoder,
    LANDMARKS: LandmarkDenoiser,
    IMAGE: LatentDenoiser,
    MIXER: ReferenceMixer,
}
"""The network of each stage."""


class AutoencoderSource(BaseModel):
    """Which autoencoder the second stage paints into."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["run", "checkpoint"]
    """Trained by the same run, or a checkpoint's."""
    uri: str
    """Directory of the network, or the checkpoint's name."""
    digest: str
    """Of its weights."""


def open_checkpoint(name: str) -> Checkpoint:
    """A checkpoint by its uri, or the bundled one by the name `base`."""
    return Checkpoint.load("" if name == BASE else name)


def checkpoint_network(name: str, stage: str) -> ModelMixin:
    """A checkpoint's network of one stage, ready to be trained, on the CPU.

    Raises:
        CheckpointError: it is of a kind that can't be trained here.
    """
    opened = open_checkpoint(name)
    load: dict[str, Callable[[torch.device], Any]] = {
        AUTOENCODER: opened.autoencoder,
        LANDMARKS: opened.landmark_denoiser,
        IMAGE: opened.latent_denoiser,
        MIXER: opened.reference_mixer,
    }
    found = load[stage](CPU)
    if not isinstance(found, KINDS[stage]):
        raise CheckpointError(
            f"{name}: its autoencoder is a {opened.config.autoencoder}, which can't be trained here; "
            f"allowed: {FaceAutoencoder.__name__}; --autoencoder {name} uses it as it is"
        )
    return without_origin(found).train().requires_grad_(True)


def fresh_network(settings: TrainingSettings, stage: str) -> ModelMixin:
    """A network with random weights, the same wherever it is built."""
    chosen = settings.stage(stage)
    torch.manual_seed(chosen.loop.seed)
    return KINDS[stage](**chosen.model.model_dump())


def adopt_sizes(settings: TrainingSettings, stage: str, network: ModelMixin, name: str) -> TrainingSettings:
    """The settings with the sizes of a checkpoint's network.

    Raises:
        ConfigError: the settings give another size.
    """
    chosen = settings.stage(stage)
    sizes = type(chosen.model).model_validate(_sizes(chosen.model, network.config))
    for key in sorted(chosen.model.model_fields_set):
        wanted, found = getattr(chosen.model, key), getattr(sizes, key)
        if wanted != found:
            raise ConfigError(
                f"{stage}.model.{key}: the settings say {wanted}, the checkpoint {name} has {found}; "
                "leave it out to take the checkpoint's"
            )
    adopted: TrainingSettings = settings.model_copy(update={stage: chosen.model_copy(update={"model": sizes})})
    return adopted


def autoencoder_of_run(network_uri: str) -> AutoencoderSource:
    """The autoencoder that the run itself has trained."""
    weights = [uri for uri in storage.list_files(network_uri) if uri.endswith(".safetensors")]
    digest = " ".join(storage.content_digest(uri) for uri in weights)
    return AutoencoderSource(kind="run", uri=network_uri, digest=digest)


def autoencoder_of_checkpoint(name: str) -> AutoencoderSource:
    """A checkpoint's autoencoder."""
    return AutoencoderSource(kind="checkpoint", uri=name, digest=open_checkpoint(name).digest)


def load_autoencoder(source: AutoencoderSource) -> nn.Module:
    """The autoencoder on the CPU, with `encode` and `decode`."""
    if source.kind == "checkpoint":
        return open_checkpoint(source.uri).autoencoder(CPU)
    found: nn.Module = read_network(source.uri, FaceAutoencoder)
    return found


def latent_channels(autoencoder: nn.Module) -> int:
    """Channels of its latents."""
    network: Any = autoencoder.autoencoder if isinstance(autoencoder, LibraryAutoencoder) else autoencoder
    return int(network.config["latent_channels"])


def read_network(uri: str, kind: type[ModelMixin]) -> ModelMixin:
    """A network that a run has finished, on the CPU; raises CheckpointError where it can't be loaded."""
    with tempfile.TemporaryDirectory() as folder:
        for file in storage.list_files(uri):
            storage.fetch(file, Path(folder) / file.rpartition("/")[2])
        try:
            return without_origin(kind.from_pretrained(folder, low_cpu_mem_usage=False))
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{uri}: can't load {kind.__name__}: {error}") from error


def without_origin(network: ModelMixin) -> ModelMixin:
    """The same network, but for the path that it was read from, which diffusers would save with it."""
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    renewed = type(network).from_config(config)
    renewed.load_state_dict(network.state_dict())
    return renewed


def _sizes(model: Section, config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in type(model).model_fields}
