"""Make a checkpoint directory of what a run has trained, with a model card that says how."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from dreamhead import checkpoint, storage
from dreamhead.checkpoint import DIGESTS, CheckpointConfig
from dreamhead.errors import CheckpointError
from dreamhead.models.autoencoder import LibraryAutoencoder
from dreamhead.training import networks
from dreamhead.training.networks import AutoencoderSource
from dreamhead.training.plan import Request
from dreamhead.training.settings import AUTOENCODER, IMAGE, LANDMARKS, STAGES

State = dict[str, Any]


def assemble(request: Request) -> str:
    """Publish RUN/checkpoint, if there is a network for each part of it; its uri, or "" while something is missing.

    The landmark and the image network are the run's own, or else those of `init_from`; the autoencoder is the one that
    the image network was trained with.
    """
    trained = [stage for stage in (LANDMARKS, IMAGE) if request.folder(stage).finished() is not None]
    if not trained or (len(trained) < 2 and not request.init_from):
        return ""
    landmarks, image = _network(request, LANDMARKS), _network(request, IMAGE)
    autoencoder: Any = networks.load_autoencoder(_source(request))
    if isinstance(autoencoder, LibraryAutoencoder):
        autoencoder = autoencoder.autoencoder
    autoencoder = networks.without_origin(autoencoder)
    config = CheckpointConfig(
        speech_encoder=request.settings.speech_encoder,
        crop_size=request.settings.crop_size,
        autoencoder=type(autoencoder).__name__,
    )
    uri = storage.join(request.run_uri, "checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), config, landmarks, image, autoencoder, card(request))
        _publish(Path(folder), uri)
    return uri


def card(request: Request) -> str:
    """The model card, Markdown: for each stage its data, steps, settings and what validation found."""
    lines = ["# Checkpoint", "", f"Trained for crops of {request.settings.crop_size} pixels and the speech features of"]
    lines[-1] += f" `{request.settings.speech_encoder}`."
    if request.init_from:
        lines += ["", f"Networks without a section of their own are those of the checkpoint `{request.init_from}`."]
    for stage in STAGES:
        if (note := request.folder(stage).finished()) is not None:
            lines += ["", f"## {stage}", "", *_section(request.folder(stage).record(), note)]
    lines += ["", "Data keep their owners' licences; say here which they are before you pass these weights on."]
    return "\n".join(lines) + "\n"


def _section(record: State, note: State) -> list[str]:
    rows = {
        "data": f"`{record['data']}`: {note['clips']} clips of {note['speakers']} speakers, "
        f"{note['seconds_of_video'] / 3600:.2f} hours",
        "steps": f"{note['step']}; the weights are those after {note['best_step']}, averaged",
    }
    if record["init_from"]:
        rows["begun with"] = f"the checkpoint of digest `{record['init_from']}`"
    rows |= {f"validation: {name}": f"{value:.4g}" for name, value in note["figures"].items()}
    table = ["| | |", "|---|---|", *[f"| {name} | {value} |" for name, value in rows.items()]]
    return [*table, "", "```yaml", yaml.safe_dump(record["settings"], sort_keys=False).rstrip(), "```"]


def _network(request: Request, stage: str) -> Any:
    folder = request.folder(stage)
    if folder.finished() is not None:
        return networks.read_network(folder.network_uri, networks.KINDS[stage])
    return networks.checkpoint_network(request.init_from, stage)


def _source(request: Request) -> AutoencoderSource:
    """The autoencoder that the image network paints into; raises CheckpointError if it isn't the same any more."""
    if request.folder(IMAGE).finished() is None:
        return networks.autoencoder_of_checkpoint(request.init_from)
    source = AutoencoderSource.model_validate(request.folder(IMAGE).record()["autoencoder"])
    is_own, own_uri = source.kind == "run", request.folder(AUTOENCODER).network_uri
    now = networks.autoencoder_of_run(own_uri) if is_own else networks.autoencoder_of_checkpoint(source.uri)
    if now.digest != source.digest:
        raise CheckpointError(f"{now.uri}: isn't the autoencoder any more that {IMAGE} was trained with")
    return now


def _publish(folder: Path, uri: str) -> None:
    """The digests go last: a directory without them is no checkpoint."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    storage.delete(storage.join(uri, DIGESTS))
    for name in sorted(files, key=lambda name: name == DIGESTS):
        storage.publish(folder / name, storage.join(uri, name))
