"""Settings of training: what each network is, how long and how hard it is trained, and on how many workers."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dreamhead.config import Section

AUTOENCODER, LANDMARKS, IMAGE = "autoencoder", "audio_to_landmark", "landmark_to_image"
STAGES = (AUTOENCODER, LANDMARKS, IMAGE)
"""In the order that `all` runs them: the last one paints into the first one's latents."""
MIXER = "reference_mixer"
"""Trained by its own name only."""

GROUPS = 8
"""Group norms of the autoencoder divide its channels into this many."""
HEAD = 32
"""Attention heads of the image network are this wide."""


def _check_multiples(name: str, values: Sequence[int], factor: int) -> None:
    if any(value < factor or value % factor for value in values):
        raise ValueError(f"{name} must be multiples of {factor}, got {list(values)}")


class LoopSettings(Section):
    """How long and how hard to train."""

    steps: int = Field(ge=1)
    """Steps of the optimizer. A run that is there may be told to take more, and goes on."""
    minutes: float = Field(default=0.0, ge=0)
    """Ends after so many minutes of one call, if that comes first; the rate falls with the time then. 0: never."""
    batch_size: int = Field(default=16, ge=1)
    """Examples in a step, over all workers."""
    accumulate: int = Field(default=1, ge=1)
    """Parts that a worker cuts its share of a step into, to hold one of them in memory at a time."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Highest rate; a cosine brings it to nothing at the last step."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps in which the rate rises from nothing."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Longer gradients are scaled down to this."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Share of the old in the average of the weights, which is what is validated and kept."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in; weights stay float32."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights, the examples and the noise."""
    save_every: int = Field(default=200, ge=1)
    """Steps between checkpoints: what is lost at most."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints kept; the best one is kept besides."""
    log_every: int = Field(default=50, ge=1)
    """Steps that one line of the log sums up."""
    validate_every: int = Field(default=200, ge=0)
    """Steps between validations, each of them a checkpoint too; 0 validates never, and the last weights are kept."""
    validation_clips: int = Field(default=32, ge=1)
    """Most clips that are judged, spread over the validation split."""
    data_workers: int = Field(default=1, ge=0)
    """Processes of each worker that draw examples ahead; 0 draws them in between."""
    resident_clips: int = Field(default=256, ge=1)
    """Clips that a worker draws examples from at any time, decoded."""
    resident_period: int = Field(default=4, ge=1)
    """Steps after which one resident clip gives way to the next."""


class AutoencoderModel(Section):
    """Sizes of the autoencoder."""

    latent_channels: int = Field(default=16, ge=1)
    """Channels of a latent, which is an eighth as wide as the crop."""
    channels: tuple[int, int] = (64, 128)
    """Of the quarter-size and of the eighth-size layers; multiples of 8."""
    blocks: tuple[int, int] = (2, 3)
    """Residual blocks of each."""

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        _check_multiples("channels", self.channels, GROUPS)
        return self


class LandmarkModel(Section):
    """Sizes of the first stage's network."""

    coefficients: int = Field(default=32, ge=1)
    """Components of the shape basis."""
    speech_size: int = Field(default=1024, ge=2, multiple_of=2)
    """Speech features that a tick hears: two of the encoder's, joined."""
    hidden_size: int = Field(default=192, ge=2, multiple_of=2)
    """Channels inside."""
    blocks: int = Field(default=6, ge=1)
    """Pairs of a temporal and a mapping unit."""
    dilations: tuple[int, ...] = Field(default=(1, 2, 4), min_length=1)
    """Of the temporal units, in turn."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of hidden values dropped while training."""


class ImageModel(Section):
    """Sizes of the second stage's network."""

    latent_channels: int = Field(default=16, ge=1)
    """Those of the autoencoder that it is trained with."""
    guide_channels: int = Field(default=32, ge=1)
    """Kept of the guiding pictures."""
    block_out_channels: tuple[int, ...] = Field(default=(96, 160, 224), min_length=2)
    """Of the UNet, from fine to coarse; multiples of 32."""
    layers_per_block: int = Field(default=1, ge=1)
    """Of the UNet."""

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        _check_multiples("block_out_channels", self.block_out_channels, HEAD)
        return self


class AutoencoderAugmentation(Section):
    """Random changes of the pictures that the autoencoder is trained on; 0 turns one off."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Share seen in a mirror."""
    colour: bool = True
    """Move hue, saturation and gain."""
    window: int = Field(default=128, ge=32, multiple_of=32)
    """Side of the random cut that is trained on, pixels; no larger than the crop."""


class MixerModel(Section):
    """Sizes of the reference mixer."""

    window: int = Field(default=160, ge=16, multiple_of=16)
    """Side of the mouth's window, pixels of the crop; no larger than the crop."""
    channels: tuple[int, int, int] = (24, 48, 96)
    """At 1/2, 1/4 and 1/8 of the window's resolution; multiples of 32, but for the first two of 8."""
    kept: int = Field(default=16, ge=8, multiple_of=8)
    """Channels, at half of the resolution, of what is moved of each reference."""

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        _check_multiples("channels", self.channels[:2], GROUPS)
        _check_multiples("the last of channels", self.channels[2:], HEAD)
        return self


class MixerAugmentation(Section):
    """Random changes of the reference mixer's examples; 0 turns one off."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Share seen in a mirror."""
    colour: float = Field(default=1.0, ge=0, le=2)
    """Strength of the moves of hue, saturation and gain."""
    landmark_noise: float = Field(default=0.006, ge=0)
    """Standard deviation of errors like those of predicted landmarks, in units of eye distance."""
    few_share: float = Field(default=0.2, ge=0, le=1)
    """Share of examples that have fewer references than there may be."""
    shut_share: float = Field(default=0.15, ge=0, le=1)
    """Share of examples whose references are the most shut mouths of the clip: what they don't show is to be added."""
    own_share: float = Field(default=0.6, ge=0, le=1)
    """Share of examples that see the frame itself too, as when dubbing."""
    made_share: float = Field(default=0.5, ge=0, le=1)
    """Share of these in which it is the very frame with its mouth moved to another one's; else a frame nearby."""


class MixerLoss(Section):
    """What the reference mixer's mistakes cost."""

    pixel: float = Field(default=1.0, ge=0)
    """Of the mean absolute error at half resolution, pixels in -1..1, the mouth weighted more."""
    mixed: float = Field(default=0.5, ge=0)
    """The same of the references alone, before anything is added."""
    added: float = Field(default=0.05, ge=0)
    """Of the size of what is added."""
    detail: float = Field(default=8.0, ge=0)
    """Of the difference of how much fine detail there is, pixels in -1..1."""
    motion: float = Field(default=0.5, ge=0)
    """Of the mean absolute error of the change from one frame to the next."""
    steady: float = Field(default=0.02, ge=0)
    """Of the change of the fine band's weights from one frame to the next."""
    perceptual: float = Field(default=0.25, ge=0)
    """Of the distance of VGG16's features, around the mouth."""
    adversary: float = Field(default=0.03, ge=0)
    """Of what the critic sees."""
    matching: float = Field(default=1.0, ge=0)
    """Of the difference of the critic's features."""
    critic_from: float = Field(default=0.33, ge=0, le=1)
    """Share of the training after which the critic is listened to; it learns from then on too."""
    critic_learning_rate: float = Field(default=2e-4, gt=0)
    """Of the critic."""


class Sharpness(Section):
    """How sharp a clip's mouth must be to be learnt from, by `sharpness.clip_detail`; measured in crops of 256 pixels.

    `full: 0` measures nothing and takes all clips alike.
    """

    least: float = Field(default=0.025, ge=0)
    """Clips of less detail are left out."""
    full: float = Field(default=0.045, ge=0)
    """From here on a clip counts in full; below it less, down to nothing at `least`."""

    def weight(self, detail: float) -> float:
        """0 to 1: how often a clip is drawn, relative to a sharp one of its length."""
        if detail < self.least:
            return 0.0
        return 1.0 if detail >= self.full else (detail - self.least) / (self.full - self.least)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.full and self.full < self.least:
            raise ValueError(f"full {self.full:g} is below least {self.least:g}")
        return self


class LandmarkAugmentation(Section):
    """Random changes of motion and speech; 0 turns one off."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Share seen in a mirror."""
    speech_noise: float = Field(default=0.2, ge=0)
    """Standard deviation of what is added to every speech feature."""
    speech_gain: float = Field(default=0.1, ge=0)
    """Standard deviation of the factor on all speech features, about 1."""
    motion_gain: float = Field(default=0.0, ge=0)
    """Standard deviation of the factor on the mouth's motion, about 1."""
    speech_dropout: float = Field(default=0.15, ge=0, lt=1)
    """Share of windows without speech, for guidance."""
    neutral_noise: float = Field(default=0.01, ge=0)
    """Standard deviation of what is added to the resting face, canonical units."""


class ImageAugmentation(Section):
    """Random changes of the second stage's pictures and landmarks; 0 turns one off."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Share seen in a mirror."""
    colour: float = Field(default=1.0, ge=0, le=2)
    """Strength of the moves of hue, saturation and gain."""
    scale: float = Field(default=0.05, ge=0, le=0.5)
    """How far the face is drawn larger or smaller in its crop."""
    blur: float = Field(default=0.2, ge=0, le=1)
    """Share of examples whose pictures are blurred."""
    landmark_noise: float = Field(default=0.006, ge=0)
    """Standard deviation of errors like those of predicted landmarks, in units of eye distance."""
    nearest_share: float = Field(default=0.5, ge=0, le=1)
    """Share of examples whose reference is among the nearest mouths; the others take any frame of the clip."""
    references: int = Field(default=3, ge=1)
    """Nearest mouths that the reference is drawn from."""


class AutoencoderStage(Section):
    """Training of the autoencoder."""

    model: AutoencoderModel = AutoencoderModel()
    """Its sizes."""
    loop: LoopSettings = LoopSettings(steps=1050, learning_rate=1e-3, precision="bfloat16", ema_decay=0.995)
    """How it is trained."""
    augmentation: AutoencoderAugmentation = AutoencoderAugmentation()
    """How its pictures are changed."""


class LandmarkStage(Section):
    """Training of audio to landmarks."""

    model: LandmarkModel = LandmarkModel()
    """Its sizes."""
    loop: LoopSettings = LoopSettings(steps=1200)
    """How it is trained."""
    augmentation: LandmarkAugmentation = LandmarkAugmentation()
    """How its windows are changed."""


class ImageStage(Section):
    """Training of landmarks to image."""

    model: ImageModel = ImageModel()
    """Its sizes."""
    loop: LoopSettings = LoopSettings(steps=1500, learning_rate=4e-4, precision="bfloat16", ema_decay=0.995)
    """How it is trained."""
    augmentation: ImageAugmentation = ImageAugmentation()
    """How its examples are changed."""
    sharpness: Sharpness = Sharpness()
    """Which clips it is trained on, and how often each."""


class MixerStage(Section):
    """Training of the reference mixer."""

    model: MixerModel = MixerModel()
    """Its sizes."""
    loop: LoopSettings = LoopSettings(steps=1500, batch_size=8, precision="bfloat16", ema_decay=0.998)
    """How it is trained."""
    augmentation: MixerAugmentation = MixerAugmentation()
    """How its examples are changed."""
    sharpness: Sharpness = Sharpness()
    """Which clips it is trained on, and how often each."""
    loss: MixerLoss = MixerLoss()
    """What mistakes cost."""
    references: int = Field(default=5, ge=1)
    """Of each example, besides the frame itself."""
    every: int = Field(default=3, ge=1)
    """Of so many pairs of neighbouring frames one is kept in memory; 10,000 frames take 4 GB."""
    compile: bool = False
    """Compile the network for the GPU first, which takes a minute: for long trainings there."""
    perceptual: str = ""
    """File that `scripts/make_perceptual` wrote; empty: where it writes by itself."""


class WorkersSettings(Section):
    """Where the steps are computed. None of this changes what is learnt, but for the order of sums and the noise."""

    num_workers: int | tuple[int, int] = 0
    """Processes on Ray, each with its share of a batch; 0 trains in this process, without Ray; [least, most] takes
    what the cluster has, and grows and shrinks with it."""
    use_gpu: bool | Literal["auto"] = "auto"
    """One GPU for each worker; `auto` where there are GPUs."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs that a worker reserves, and how many threads it computes with when it has no GPU."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Copies of the network that exchange gradients, or one network cut into pieces, for one that doesn't fit."""
    max_failures: int = Field(default=3, ge=-1)
    """Times that dead workers are started again, from the last checkpoint; -1 has no limit."""
    max_preemption_failures: int = Field(default=-1, ge=-1)
    """The same for machines that were taken away with notice."""

    @property
    def least(self) -> int:
        """Fewest workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def most(self) -> int:
        """Most workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        if isinstance(self.num_workers, int):
            if self.num_workers < 0:
                raise ValueError(f"num_workers must be 0 or more, got {self.num_workers}")
        elif not 1 <= self.least <= self.most:
            raise ValueError(f"num_workers must be [least, most] with 1 <= least <= most, got {list(self.num_workers)}")
        return self


StageSettings = AutoencoderStage | LandmarkStage | ImageStage | MixerStage


class TrainingSettings(Section):
    """Everything that shapes a training."""

    crop_size: int = Field(default=256, ge=32, multiple_of=32)
    """Side of the aligned crops of the data set, pixels."""
    speech_encoder: str = "whisper_layer4"
    """Name of the speech features of the data set."""
    autoencoder: AutoencoderStage = AutoencoderStage()
    """Between pixels and latents."""
    audio_to_landmark: LandmarkStage = LandmarkStage()
    """First stage."""
    landmark_to_image: ImageStage = ImageStage()
    """Second stage."""
    reference_mixer: MixerStage = MixerStage()
    """What mixes moved references."""
    workers: WorkersSettings = WorkersSettings()
    """Where it runs."""

    def stage(self, name: str) -> StageSettings:
        """The settings of one of STAGES, or of MIXER."""
        found: StageSettings = getattr(self, name)
        return found

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        window = self.autoencoder.augmentation.window
        if window > self.crop_size:
            raise ValueError(f"autoencoder.augmentation.window {window} is above crop_size {self.crop_size}")
        if "reference_mixer" in self.model_fields_set and self.reference_mixer.model.window > self.crop_size:
            window = self.reference_mixer.model.window
            raise ValueError(f"reference_mixer.model.window {window} is above crop_size {self.crop_size}")
        return self

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        for name in (*STAGES, MIXER):
            loop = self.stage(name).loop
            parts = max(self.workers.most, 1) * loop.accumulate
            if loop.batch_size < parts:
                raise ValueError(
                    f"{name}.loop.batch_size {loop.batch_size} is below workers x accumulate, {parts}: "
                    "every worker needs an example for each of its parts"
                )
        return self
