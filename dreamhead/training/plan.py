"""Check what a user asks for before anything is computed: settings, checkpoints, data, and runs that are there."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dreamhead import storage
from dreamhead.errors import ConfigError, InputError, TrainingError
from dreamhead.pipelines.audio_to_landmarks import SPEECH_OFFSETS_S
from dreamhead.training import networks, sharpness
from dreamhead.training.dataset import ClipInfo, list_clips
from dreamhead.training.loop import Clips
from dreamhead.training.networks import AutoencoderSource
from dreamhead.training.parallel import Crew
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import (
    AUTOENCODER,
    IMAGE,
    LANDMARKS,
    ImageStage,
    MixerStage,
    StageSettings,
    TrainingSettings,
)
from dreamhead.training.task import Task
from dreamhead.training.tasks import build_task


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for."""

    settings: TrainingSettings
    data_uri: str
    run_uri: str
    """Directory of the run; each stage has its own below it."""
    init_from: str = ""
    """Checkpoint whose networks are trained further, `base` for the bundled one; empty begins anew."""
    autoencoder: str = ""
    """Checkpoint whose autoencoder is painted into; empty takes the run's own, or else that of `init_from`."""

    def folder(self, stage: str) -> RunFolder:
        """Where a stage is kept."""
        return RunFolder(storage.join(self.run_uri, stage))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One stage, checked: everything that a worker must know, and no more than values."""

    stage: str
    settings: TrainingSettings
    """With the sizes that the networks have."""
    clips: Clips
    folder_uri: str
    init_from: str
    autoencoder: AutoencoderSource | None

    @property
    def steps(self) -> int:
        """Steps to take in all."""
        return self.settings.stage(self.stage).loop.steps

    @property
    def is_done(self) -> bool:
        """Whether an earlier call took all steps."""
        note = RunFolder(self.folder_uri).finished()
        return note is not None and int(note["step"]) >= self.steps


def plan(request: Request, stage: str) -> Plan:
    """Check all that can be known before the first step, and note in storage what the run is begun with.

    Raises:
        ConfigError: settings that don't fit each other or a checkpoint.
        InputError: a data set that doesn't fit the settings; names the file, the column and the value.
        TrainingError: another run is there under this name, or a stage is missing before this one.
    """
    settings = request.settings
    if request.init_from:
        _check_checkpoint(settings, request.init_from)
        # The first stage's sizes say what speech the data must hold, whatever is trained.
        for its in {stage, LANDMARKS}:
            network = networks.checkpoint_network(request.init_from, its)
            settings = networks.adopt_sizes(settings, its, network, request.init_from)
    source = _autoencoder_source(request) if stage == IMAGE else None
    if source is not None:
        _check_latents(settings, source)
    task = build_task(stage, settings, request.init_from, source, Crew())
    clips = _usable_clips(request, settings, stage, task)
    found = Plan(
        stage=stage,
        settings=settings,
        clips=clips,
        folder_uri=request.folder(stage).uri,
        init_from=request.init_from,
        autoencoder=source,
    )
    _begin(found, request.data_uri)
    return found


def plan_ahead(request: Request, stages: Sequence[str]) -> dict[str, Plan]:
    """Plans of all stages that can be planned now: all but one that waits for an autoencoder still to be trained.

    Raises as `plan`, and ConfigError where that autoencoder's latents won't fit.
    """
    plans: dict[str, Plan] = {}
    for stage in stages:
        trained_before = plans.get(AUTOENCODER)
        if stage != IMAGE or trained_before is None or trained_before.is_done:
            plans[stage] = plan(request, stage)
        elif not request.init_from:
            _check_channels(request.settings, request.settings.autoencoder.model.latent_channels, "the settings'")
    return plans


def _begin(plan: Plan, data_uri: str) -> None:
    """Note what the run is begun with; an earlier call must have begun with the same."""
    ids = "\n".join(f"{clip.clip_id} {clip.frames}" for clip in plan.clips.train)
    record = {
        "stage": plan.stage,
        "crop_size": plan.settings.crop_size,
        "speech_encoder": plan.settings.speech_encoder,
        "settings": plan.settings.stage(plan.stage).model_dump(mode="json"),
        "clips": hashlib.sha256(ids.encode()).hexdigest(),
        "init_from": networks.open_checkpoint(plan.init_from).digest if plan.init_from else "",
        "autoencoder": plan.autoencoder.model_dump() if plan.autoencoder is not None else None,
        "data": data_uri,
    }
    RunFolder(plan.folder_uri).begin(record)


def _check_checkpoint(settings: TrainingSettings, name: str) -> None:
    found = networks.open_checkpoint(name).config
    for key in ("crop_size", "speech_encoder"):
        wanted, its = getattr(settings, key), getattr(found, key)
        if wanted != its:
            raise ConfigError(f"{key}: the settings say {wanted!r}, the checkpoint {name} was trained for {its!r}")


def _autoencoder_source(request: Request) -> AutoencoderSource:
    if request.autoencoder:
        return networks.autoencoder_of_checkpoint(request.autoencoder)
    own = request.folder(AUTOENCODER)
    if own.finished() is not None:
        return networks.autoencoder_of_run(own.network_uri)
    if request.init_from:
        return networks.autoencoder_of_checkpoint(request.init_from)
    raise TrainingError(
        f"{own.uri}: no finished autoencoder, which {IMAGE} paints into; "
        f"train --stage {AUTOENCODER} first, or name a checkpoint by --autoencoder"
    )


def _check_latents(settings: TrainingSettings, source: AutoencoderSource) -> None:
    _check_channels(settings, networks.latent_channels(networks.load_autoencoder(source)), f"that of {source.uri}")


def _check_channels(settings: TrainingSettings, found: int, whose: str) -> None:
    wanted = settings.landmark_to_image.model.latent_channels
    if wanted != found:
        raise ConfigError(
            f"{IMAGE}.model.latent_channels: the settings say {wanted}, the autoencoder, {whose}, has {found}"
        )


def _usable_clips(request: Request, settings: TrainingSettings, stage: str, task: Task) -> Clips:
    splits = ("train", "validation") if settings.stage(stage).loop.validate_every else ("train",)
    usable: dict[str, Sequence[ClipInfo]] = {}
    for split in splits:
        found = list_clips(request.data_uri, split)
        for clip in found:
            _check_clip(clip, settings)
        usable[split] = [clip for clip in found if task.usable(clip)]
        if not usable[split]:
            folder = storage.join(request.data_uri, split)
            raise InputError(f"{folder}: none of its {len(found)} clips can be used for {stage}")
    sharp = _sharp_clips(request.folder(stage), settings.stage(stage), usable["train"])
    if not sharp:
        folder = storage.join(request.data_uri, "train")
        raise InputError(
            f"{folder}: none of its {len(usable['train'])} clips is sharp enough; lower {stage}.sharpness.least"
        )
    soft = len(usable["train"]) - len(sharp)
    return Clips(train=sharp, validation=usable.get("validation", ()), soft=soft)


def _sharp_clips(folder: RunFolder, settings: StageSettings, clips: Sequence[ClipInfo]) -> Sequence[ClipInfo]:
    """The clips that are sharp enough, each with its weight; all as they are where sharpness doesn't count."""
    if not isinstance(settings, ImageStage | MixerStage) or not settings.sharpness.full:
        return clips
    detail = folder.detail()
    if detail.keys() != {clip.clip_id for clip in clips}:
        detail = {clip.clip_id: float(f"{its:.4g}") for clip, its in zip(clips, sharpness.measure(clips), strict=True)}
        folder.keep_detail(detail)
    weighted = (replace(clip, weight=settings.sharpness.weight(detail[clip.clip_id])) for clip in clips)
    return [clip for clip in weighted if clip.weight > 0]


def _check_clip(clip: ClipInfo, settings: TrainingSettings) -> None:
    expected: dict[str, object] = {"crop_size": settings.crop_size}
    if clip.spoken:
        feature_size = settings.audio_to_landmark.model.speech_size // len(SPEECH_OFFSETS_S)
        expected |= {"speech_encoder": settings.speech_encoder, "feature_size": feature_size}
    for key, wanted in expected.items():
        found = getattr(clip, key)
        if found != wanted:
            where = f"{clip.shard_uri}: row {clip.row}: {key}"
            raise InputError(f"{where} is {found!r}, the settings want {wanted!r}")
