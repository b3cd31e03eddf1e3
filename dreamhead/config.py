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
    """Smallest distance, in source pixels, from brow to chin of a face that is dubbed."""
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


class LandmarkSettings(Section):
    """Audio to landmarks. A change here redoes landmarks and rendering."""

    num_inference_steps: int = Field(default=8, ge=1)
    """Denoising steps."""
    guidance_scale: float = Field(default=1.5, ge=0)
    """Classifier-free guidance on the speech; 1 is none."""
    articulation: float = Field(default=1.0, ge=0, le=2)
    """Scale of the mouth's motion about its neutral shape."""
    close_in_silence: bool = True
    """Shut the mouth where the speech is silent."""
    silence_db: float = -50.0
    """Level below which speech counts as silent, in dB of full scale."""
    min_silence_s: float = Field(default=0.24, ge=0)
    """Shortest pause that shuts the mouth."""


class RenderSettings(Section):
    """Landmarks to frames. A change here redoes rendering only."""

    renderer: Literal["diffusion", "warp"] = "diffusion"
    """`warp` moves the reference's own pixels along the landmarks and paints nothing."""
    num_inference_steps: int = Field(default=1, ge=1)
    """Denoising steps; the base weights gain nothing from more, see their model card."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the networks; `auto` is bfloat16 where the processor computes in it, else float32."""
    batch_size: int = Field(default=8, ge=1)
    """Frames painted at once."""
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

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
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
    """Tries of one chunk before its job fails."""
    no_progress_timeout_s: float = Field(default=1800.0, gt=0)
    """The run is ended with an error when no chunk finished for this long."""


class WeightsSettings(Section):
    """Paths to others' weights; empty means installed with the `offline` extra, else downloaded."""

    face_landmarker: str = ""
    """MediaPipe's `face_landmarker.task`."""
    whisper: str = ""
    """Directory with `Systran/faster-whisper-base`."""


class DubSettings(Section):
    """Everything that shapes a dub."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""
    cpu_threads: int = Field(default=2, ge=1)
    """Threads of one network on a CPU; fixed, since sums depend on it."""
    analysis: AnalysisSettings = AnalysisSettings()
    landmarks: LandmarkSettings = LandmarkSettings()
    render: RenderSettings = RenderSettings()
    output: OutputSettings = OutputSettings()
    pools: PoolsSettings = PoolsSettings()
    weights: WeightsSettings = WeightsSettings()


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
