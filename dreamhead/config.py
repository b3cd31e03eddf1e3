"""Every setting: frozen pydantic models loaded from YAML; an unknown key is an error."""

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from dreamhead.errors import ConfigError


class Section(BaseModel):
    """Base of all settings: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AnalysisSettings(Section):
    """How a video is walked: spans, shots, faces. A change here redoes the analysis."""

    span_s: float = Field(default=300.0, gt=0)
    """Seconds of video that one analyse task walks."""
    chunk_s: float = Field(default=10.0, gt=0)
    """Longest chunk, in seconds; chunks never cross a shot or a span."""
    shot_threshold: float = Field(default=27.0, gt=0)
    """Mean change of hue, saturation and value, 0 to 255, above which a cut is seen."""
    min_face_px: float = Field(default=48.0, gt=0)
    """Smallest distance, in pixels of the source as shown (square ones), from brow to chin of a face that is dubbed."""
    max_yaw_deg: float = Field(default=50.0, gt=0, le=90)
    """A face turned further to the side than this passes through."""
    max_pitch_deg: float = Field(default=40.0, gt=0, le=90)
    """A face turned further up or down than this passes through."""
    crop_size: int = Field(default=256, ge=32, multiple_of=32)
    """Side of the aligned crop, in pixels; a checkpoint is trained for one."""
    crop_smoothing_s: float = Field(default=0.2, ge=0)
    """Standard deviation of the Gaussian that smooths the crop's transform over time."""
    reference_frames: int = Field(default=40, ge=1)
    """Most frames of a shot kept as references, spread over the shapes that the mouth takes."""
    reference_mb: int = Field(default=256, ge=1)
    """Most memory for the references' own pixels, in MiB; of faces so large that they need more, fewer are kept."""


class LandmarkSettings(Section):
    """Audio to landmarks. A change here redoes landmarks and rendering."""

    num_inference_steps: int = Field(default=8, ge=1)
    """Denoising steps."""
    guidance_scale: float = Field(default=2.0, ge=0)
    """Classifier-free guidance on the speech; 1 is none."""
    articulation: float = Field(default=1.0, ge=0, le=2)
    """Scale of the mouth's motion about its neutral shape."""
    match_articulation: bool = True
    """Open the mouth as wide as the speaker opens it in the source."""
    close_in_silence: bool = True
    """Shut the mouth where the speech is silent."""
    silence_db: float = -50.0
    """Level below which speech counts as silent, in dB of full scale."""
    min_silence_s: float = Field(default=0.24, ge=0)
    """Shortest pause that shuts the mouth."""
    speech_start: Literal["file", "first_frame"] = "file"
    """Where the speech begins in a video whose pictures start after its sound: at the file's zero, or with them."""


class RenderSettings(Section):
    """Landmarks to frames. A change here redoes rendering only."""

    renderer: Literal["diffusion", "warp", "mixer"] = "diffusion"
    """`warp` moves the reference's own pixels along the landmarks and paints nothing; `mixer` mixes several of them
    and the frame's own by a network, which the checkpoint must have."""
    num_inference_steps: int = Field(default=1, ge=1)
    """Denoising steps; the base weights gain nothing from more, see their model card."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the networks; `auto` is bfloat16 where the processor computes in it, else float32."""
    batch_size: int = Field(default=8, ge=1)
    """Frames painted at once."""
    references: int = Field(default=3, ge=1)
    """Nearest mouths of the shot that are moved and merged into the first guess."""
    skin: Literal["frame", "reference"] = "frame"
    """What is warped outside the lips: the frame itself, or the nearest-mouth reference as inside them."""
    feather: float = Field(default=0.06, ge=0, le=0.5)
    """Width of the blend at the mask's edge, as a share of the crop's side."""
    fade_s: float = Field(default=0.12, ge=0)
    """Cross-fade from passed-through to dubbed frames and back, in seconds."""


class OutputSettings(Section):
    """How chunks and the final file are encoded."""

    codec: Literal["libx264", "libx265", "h264_nvenc", "hevc_nvenc"] = "libx264"
    """FFmpeg's name of the video encoder."""
    quality: int = Field(default=16, ge=0, le=51)
    """Constant rate factor (CQ for NVENC): lower is better."""
    preset: str = "veryfast"
    """The encoder's own preset name."""
    keyframe_s: float = Field(default=2.0, gt=0)
    """Longest time between key frames, in seconds: players and editors seek that far at once."""
    encoder_threads: int = Field(default=2, ge=1)
    """Fixed, since x264's output depends on it."""
    audio_bitrate: int = Field(default=256_000, ge=32_000)
    """Bits per second when the speech must be encoded as AAC."""


class PoolSettings(Section):
    """Bounds and resources of one pool of Ray Data actors."""

    min_size: int = Field(default=1, ge=1)
    """Actors at the start."""
    max_size: int = Field(default=1, ge=1)
    """Most actors."""
    num_cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs an actor reserves."""
    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs an actor reserves; fractions share one."""
    label_selector: dict[str, str] = {}
    """Labels of the nodes that its actors may run on, as Ray's `label_selector`; empty means any node."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        if self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"num_gpus {self.num_gpus:g}: a share of one GPU, or whole GPUs")
        return self


class PoolsSettings(Section):
    """The three pools; a pool that isn't given is sized from the cluster."""

    analyse: PoolSettings | None = None
    """CPU pool that walks videos."""
    landmarks: PoolSettings | None = None
    """Small GPU pool that runs audio to landmarks."""
    render: PoolSettings | None = None
    """GPU pool that paints and encodes."""
    max_attempts: int = Field(default=3, ge=1)
    """Tries of one chunk before its job fails; those that a lost machine took away don't count."""
    chunk_timeout_s: float = Field(default=600.0, gt=0)
    """Wall-clock limit of one try of a chunk's landmarks or rendering; its process is then ended."""
    span_timeout_s: float = Field(default=1800.0, gt=0)
    """Wall-clock limit of one try of a span's analysis, waiting for the next stage not counted."""
    finalize_timeout_s: float = Field(default=1800.0, gt=0)
    """Wall-clock limit of one try to check a group of jobs, or to join and publish one."""
    no_progress_timeout_s: float = Field(default=3600.0, gt=0)
    """The run is ended with an error when no chunk finished for this long."""
    wait_for_nodes_s: float = Field(default=0.0, ge=0)
    """How long to wait for machines that an autoscaler must start first; pools that aren't given are sized after it."""

    @model_validator(mode="after")
    def _check_timeouts(self) -> Self:
        for name in ("chunk_timeout_s", "span_timeout_s"):
            if getattr(self, name) >= self.no_progress_timeout_s:
                raise ValueError(
                    f"{name} {getattr(self, name):g} must be below no_progress_timeout_s "
                    f"{self.no_progress_timeout_s:g}, or one slow piece would end the whole run"
                )
        return self


class WeightsSettings(Section):
    """Paths to others' weights; empty means installed with the `offline` extra, else downloaded."""

    face_landmarker: str = ""
    """MediaPipe's `face_landmarker.task`."""
    whisper: str = ""
    """Directory with `Systran/faster-whisper-base`."""


class ReviewSettings(Section):
    """How a finished dub is looked at, and when a person should look too. A change here redoes nothing."""

    gate: Literal["report", "fail", "off"] = "report"
    """`report` says what needs a look; `fail` makes it a failed job whose output isn't published; `off` never looks."""
    share: float = Field(default=0.1, gt=0, le=1)
    """Share of the output's frames that is looked at."""
    min_frames: int = Field(default=25, ge=1)
    """Fewest frames looked at, where so many are dubbed. Above 25 frames a second this number and the two other counts
    of frames are raised to as much time as they are at 25."""
    max_frames: int = Field(default=200, ge=1)
    """Most frames looked at."""
    stretch_s: float = Field(default=1.0, gt=0)
    """Longest stretch of consecutive frames, in seconds."""
    pictures_every: int = Field(default=5, ge=1)
    """Pixels are compared with the source's in one of so many of these frames."""
    most_lag_s: float = Field(default=0.12, ge=0, le=1)
    """Seconds, either way, within which the lag of the lips is looked for, in whole frames."""
    min_motion: float = Field(default=0.02, ge=0)
    """Spread of the wanted lip opening, in eye distances, below which nothing is said about correlation and lag."""
    min_correlation: float = Field(default=0.7, ge=-1, le=1)
    """Of the lip opening on the output with the wanted one, at the best lag."""
    max_lag_s: float = Field(default=0.06, ge=0, le=1)
    """Seconds by which the lips may be early or late: at 25 frames a second one frame, and not two."""
    min_spread: float = Field(default=0.5, ge=0, le=1)
    """Spread of the lip opening on the output over that of the wanted one."""
    max_spread: float = Field(default=1.6, ge=1)
    """The same, from above."""
    max_lip_error: float = Field(default=0.1, ge=0)
    """Mean distance of the lip opening from the wanted one, in eye distances."""
    min_faces_found: float = Field(default=0.95, ge=0, le=1)
    """Share of the frames in which the face is still found."""
    min_sharpness: float = Field(default=0.25, ge=0, le=1)
    """Fine detail of the mouth over that of the source's."""
    max_seam: float = Field(default=1.3, ge=1)
    """Change of colour across the mask's edge over that of the source's."""
    max_colour_step: float = Field(default=14.0, ge=0)
    """Levels of 255 by which the change of colour across the mask's edge may differ from the source's."""
    max_jitter: float = Field(default=2.0, ge=1)
    """Trembling of the lips over that of the source's, or of the wanted motion where that is livelier."""
    min_untouched_db: float = Field(default=28.0, ge=0, le=60)
    """PSNR, against the source, of the pixels around the face that nothing was painted on."""
    max_passed_through: float = Field(default=0.2, ge=0, le=1)
    """Share of the frames to be dubbed that passed through."""
    report_sheets: int = Field(default=60, ge=0)
    """Most jobs that report.html shows with pictures, the worst first."""
    report_rows: int = Field(default=1000, ge=0)
    """Most jobs in the table of report.html; results.parquet has all."""

    @model_validator(mode="after")
    def _check_frames(self) -> Self:
        if self.max_frames < self.min_frames:
            raise ValueError(f"max_frames {self.max_frames} is below min_frames {self.min_frames}")
        return self


class DubSettings(Section):
    """Everything that shapes a dub."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""
    cpu_threads: int = Field(default=2, ge=1)
    """Threads of one network on a CPU, fixed, since sums depend on it; and of the work on pictures in one process."""
    analysis: AnalysisSettings = AnalysisSettings()
    landmarks: LandmarkSettings = LandmarkSettings()
    render: RenderSettings = RenderSettings()
    output: OutputSettings = OutputSettings()
    review: ReviewSettings = ReviewSettings()
    pools: PoolsSettings = PoolsSettings()
    weights: WeightsSettings = WeightsSettings()


class FilterSettings(Section):
    """What a stretch of one face must be for training. A change here prepares every source again."""

    min_face_px: float = Field(default=64.0, gt=0)
    """Smallest distance, in pixels of the source as shown (square ones), from brow to chin."""
    max_yaw_deg: float = Field(default=45.0, gt=0, le=90)
    """Frames whose face is turned further to the side end a clip."""
    max_pitch_deg: float = Field(default=35.0, gt=0, le=90)
    """Frames whose face is turned further up or down end a clip."""
    min_detected_share: float = Field(default=0.5, ge=0, le=1)
    """Share of a shot's frames in which its face must be found; below it, what is found is seldom a face."""
    min_sharpness: float = Field(default=0.004, ge=0)
    """Variance of the crop's Laplacian over the variance of its brightness, the median over a clip's frames."""
    min_brightness: float = Field(default=35.0, ge=0, le=255)
    """Mean of the crop's brightness, 0 to 255."""
    max_brightness: float = Field(default=220.0, ge=0, le=255)
    """Mean of the crop's brightness, 0 to 255."""
    max_second_face: float = Field(default=0.6, ge=0)
    """Size of a second face, as a share of the first's, above which the sound isn't taken for the first one's."""
    min_level_db: float = -45.0
    """Level of a clip's sound, in dB of full scale, below which nobody is taken to speak."""


class OffsetSettings(Section):
    """How the time between sound and lips is measured, and when the measure is believed."""

    max_lag_s: float = Field(default=0.4, gt=0, le=2)
    """Lags up to this many seconds, either way, are tried."""
    min_correlation: float = Field(default=0.35, ge=-1, le=1)
    """Of the lips with what the speech predicts at the best lag, all clips of a source together."""
    min_margin: float = Field(default=0.2, ge=0)
    """By how much the correlation at the best lag must exceed the median over all lags."""
    min_clip_correlation: float = Field(default=0.2, ge=-1, le=1)
    """Of one clip at its source's lag: below it, somebody else is taken to speak."""
    min_sync_confidence: float = Field(default=2.5, ge=0)
    """Where SyncNet measures: median over all lags of its distance, less that at the best one."""
    num_inference_steps: int = Field(default=4, ge=1)
    """Denoising steps of the prediction."""
    samples: int = Field(default=2, ge=1)
    """Predictions of different noise whose mean is compared."""


class VariantSettings(Section):
    """The ways in which a clip's speech is encoded for training."""

    count: int = Field(default=8, ge=1)
    """Encodings of one clip; the first is as in dubbing."""
    unchanged: int = Field(default=3, ge=1)
    """So many of them are of unchanged speech, each at another place of the encoder's window."""
    gain_db: tuple[float, float] = (-12.0, 6.0)
    """Range of the change of level."""
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    """Range of the level of speech over that of added noise."""
    speed: tuple[float, float] = (0.9, 1.1)
    """Range of the change of speed."""
    pitch_semitones: tuple[float, float] = (-3.0, 3.0)
    """Range of the change of pitch."""
    change_share: float = Field(default=0.5, ge=0, le=1)
    """How often each of noise, speed and pitch is part of a change."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if self.unchanged > self.count:
            raise ValueError(f"unchanged {self.unchanged} is above count {self.count}")
        for name in ("gain_db", "noise_snr_db", "speed", "pitch_semitones"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: {low:g} is above {high:g}")
        if not 0.5 <= self.speed[0] <= self.speed[1] <= 2:
            raise ValueError(f"speed must lie within 0.5 and 2, got {self.speed}")
        if max(map(abs, self.pitch_semitones)) > 12:
            raise ValueError(f"pitch_semitones must lie within -12 and 12, got {self.pitch_semitones}")
        return self


class PreparationSettings(Section):
    """How videos become training data. A change prepares every source again, but for that of threads and pool."""

    speech_encoder: str = "whisper_layer4"
    """Name of the speech features that are stored."""
    clip_s: float = Field(default=10.0, gt=0, le=60)
    """Longest clip, in seconds; a longer stretch is cut into equal ones."""
    min_clip_s: float = Field(default=1.0, gt=0)
    """Shortest clip, in seconds."""
    shot_threshold: float = Field(default=27.0, gt=0)
    """Mean change of hue, saturation and value, 0 to 255, above which a cut is seen."""
    crop_size: int = Field(default=256, ge=32, multiple_of=32)
    """Side of the aligned crop, in pixels."""
    crop_smoothing_s: float = Field(default=0.2, ge=0)
    """Standard deviation of the Gaussian that smooths the crop's transform over time."""
    jpeg_quality: int = Field(default=96, ge=1, le=100)
    """Of the stored crops."""
    part_mb: int = Field(default=256, ge=1)
    """A source's shard is split into files of about this many million bytes."""
    filters: FilterSettings = FilterSettings()
    offset: OffsetSettings = OffsetSettings()
    variants: VariantSettings = VariantSettings()
    weights: WeightsSettings = WeightsSettings()
    cpu_threads: int = Field(default=1, ge=1)
    """Threads of the networks in one process."""
    pool: PoolSettings | None = None
    """Pool of processes; sized from the cluster unless given."""
    max_attempts: int = Field(default=3, ge=1)
    """Tries of one source before it is given up."""
    no_progress_timeout_s: float = Field(default=7200.0, gt=0)
    """The run is ended with an error when no source was finished for this long."""

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.min_clip_s > self.clip_s:
            raise ValueError(f"min_clip_s {self.min_clip_s:g} is above clip_s {self.clip_s:g}")
        return self


SectionT = TypeVar("SectionT", bound=Section)


def load_yaml(path: Path, kind: type[SectionT]) -> SectionT:
    """Read one settings file; raises ConfigError that names file, key, value and what is allowed."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    return parse(values or {}, kind, str(path))


def parse(values: object, kind: type[SectionT], where: str) -> SectionT:
    """Check settings that came as plain values; `where` names their source in errors."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']) or '(top level)'}: {item['msg']}, got {item['input']!r}"
            for item in error.errors()
        ]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from error
