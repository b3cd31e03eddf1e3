"""The records that travel between rooms, and the pyarrow schema of every stored row."""

import dataclasses
import json
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from typing_extensions import Self

LongerAudio = Literal["error", "trim", "freeze", "pingpong"]
SpeechStart = Literal["file", "first_frame"]

LARGEST_ASPECT = Fraction(10)
"""Of a pixel, either way: widescreen in half of the columns and single fields have 2 and 1/2."""


class Route(IntEnum):
    """What happens to one frame, and why."""

    DUB = 0
    NO_FACE = 1
    FACE_TOO_SMALL = 2
    TURNED_AWAY = 3
    OUTSIDE_SEGMENTS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameTimes:
    """When each of T frames is shown."""

    pts: NDArray[np.int64]
    """(T,) presentation times in ticks, ascending: one for each frame shown, edit lists applied."""
    end_pts: int
    """Presentation time at which the last frame ends, in ticks."""
    time_base: Fraction
    """Seconds per tick."""
    lead: int = 0
    """Ticks from the file's zero, where the earliest of its streams starts, to the first frame."""

    @property
    def frame_count(self) -> int:
        """Frames shown."""
        return len(self.pts)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(T,) seconds at which each frame is shown, from the file's zero."""
        ticks: NDArray[np.int64] = self.pts - self.zero
        return ticks.astype(np.float64) * float(self.time_base)

    @property
    def duration_s(self) -> float:
        """Seconds from the file's zero to the end of the last frame."""
        return float((self.end_pts - self.zero) * self.time_base)

    @property
    def zero(self) -> int:
        """The file's zero, in ticks of `pts`."""
        return int(self.pts[0]) - self.lead


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo(FrameTimes):
    """What a video's container says, and the times of the frames that a player shows."""

    uri: str
    width: int
    """Pixels as coded, before rotation."""
    height: int
    """Pixels as coded, before rotation."""
    rotation: int
    """Degrees, counter-clockwise, that a player turns the picture by: 0, 90, 180 or 270."""
    sample_aspect_ratio: Fraction
    """Width of a pixel as coded over its height."""
    average_rate: Fraction
    """Frames per second, averaged."""
    color: tuple[int, int, int, int]
    """FFmpeg's numbers of primaries, transfer, matrix (colorspace) and range."""
    has_audio: bool
    is_still: bool = False
    """A picture file: one frame, held for as long as the speech lasts."""
    told_by: Literal["pts", "dts", "count"] = "pts"
    """By what a packet is told from the others, and the frame in it: `dts` where the container has no other times,
    `count` where it has none."""
    packet_times: NDArray[np.int64] | None = None
    """(T,) that, of each frame's packet, in the container's own ticks; None where it is `pts`."""
    skipped_packets: int = 0
    """Of the container, before the first that can be decoded by itself."""
    title: str = ""
    """As the container says it."""
    warnings: tuple[str, ...] = ()
    """What a person should know of the file."""

    @property
    def pixel_aspect(self) -> float:
        """Width of a displayed pixel over its height, of the upright picture; 1 where that isn't known.

        Ratios that no camera or disc has are taken for damage: a player would show a line.
        """
        aspect = self.sample_aspect_ratio
        if not 1 / LARGEST_ASPECT <= aspect <= LARGEST_ASPECT:
            return 1.0
        return float(1 / aspect if self.rotation % 180 else aspect)

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height of the picture as a player shows it: upright, in square pixels."""
        width, height = (self.height, self.width) if self.rotation % 180 else (self.width, self.height)
        return max(1, round(width * self.pixel_aspect)), height


@dataclass(frozen=True)
class Segment:
    """A stretch of the timeline that is dubbed, in seconds."""

    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """One checked row of a manifest: every uri is absolute."""

    job_id: str
    row: int
    """Index of the row in the manifest."""
    video_uri: str
    audio_uri: str
    output_uri: str
    seed: int = 0
    segments: tuple[Segment, ...] = ()
    """Only these are dubbed; empty means everything."""
    face: str = "largest"
    """`largest`, `point:x,y@t` or `box:x0,y0,x1,y1@t` (pixels as shown: upright and square; seconds)."""
    on_longer_audio: LongerAudio = "trim"
    language: str = ""
    consent_id: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    """The manifest's other columns, as JSON, ridden through to the results."""
    video_digest: str = ""
    """Set once the job is prepared."""
    audio_digest: str = ""
    """Set once the job is prepared."""

    def to_json(self) -> str:
        """One line that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        values["segments"] = tuple(Segment(**segment) for segment in values["segments"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of the source's frames that one analyse task walks: [start, stop)."""

    job: Job
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SpeechTrack:
    """Features of a stretch of speech, and how loud it is."""

    features: NDArray[np.float32]
    """(F, C) at `rate`, the first at `start_s`."""
    level_db: NDArray[np.float32]
    """(F,) RMS level around each feature, in dB of full scale."""
    start_s: float
    rate: float
    """Features per second."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What travels between the stages: kilobytes, never frames; it lies inside one shot."""

    job: Job
    start: int
    """First frame, on the output's timeline."""
    stop: int
    """One past the last frame, on the output's timeline."""
    shot_start: int
    """First frame of its shot, on the source's timeline."""
    shot_stop: int
    """One past the last frame of its shot, on the source's timeline."""
    analysis_uri: str
    """The shot's analysis file."""
    landmarks_uri: str = ""
    """Set by the landmarks stage."""
    chunk_uri: str = ""
    """Set by the render stage, once published."""
    attempt: int = 0
    """Tries that the last stage took in this run; 0 for a chunk that an earlier run rendered."""
    error: str = ""
    """Empty when all went well, else `ErrorType: message`."""
    dubbed_frames: int = 0
    overlay_frames: int = 0
    """Dubbed frames in which something burnt in lies over the lower face, and was kept."""
    route_counts: dict[str, int] = field(default_factory=dict)
    """Frames by `Route` name."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    retries: dict[str, int] = field(default_factory=dict)
    """Tries beyond the first by stage, in this run."""
    workers: dict[str, str] = field(default_factory=dict)
    """Which actor did the work, by stage, in this run."""

    def to_row(self) -> dict[str, object]:
        """The row that Ray Data carries."""
        return {"job_id": self.job.job_id, "start": self.start, "stop": self.stop, "chunk": self.to_json()}

    def to_json(self) -> str:
        """One line that `from_json` reads back."""
        values = dataclasses.asdict(self)
        values["job"] = self.job.to_json()
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        values["job"] = Job.from_json(values["job"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShotAnalysis:
    """Everything the later stages need to know of one shot's face. T frames, K = 478 landmarks, R references."""

    start: int
    stop: int
    landmarks: NDArray[np.float32]
    """(T, K, 3) square pixels of the frame as shown; z in the same scale; NaN where no face was found."""
    routes: NDArray[np.uint8]
    """(T,) `Route` of each frame."""
    neutral: NDArray[np.float32]
    """(K, 3) the speaker's resting face in the canonical pose, lips shut; NaN when the shot has no face."""
    articulation: float
    """How wide the speaker opens the mouth, canonical units; NaN when the shot is too short to tell."""
    crops: NDArray[np.float32]
    """(T, 2, 3) smoothed similarity from the landmarks' pixels to pixels of the aligned crop; for a frame's own pixels
    see `faces.pixel_aspect.from_stored`."""
    reference_frames: NDArray[np.int64]
    """(R,) absolute frame numbers of the references."""
    reference_crops: NDArray[np.uint8]
    """(R, S, S, 3) their aligned crops, RGB."""
    reference_landmarks: NDArray[np.float32]
    """(R, K, 3) their landmarks in pixels of their own crop."""
    reference_crop_transforms: NDArray[np.float32]
    """(R, 2, 3) from their frames' own pixels to their crops."""
    reference_boxes: NDArray[np.int64]
    """(R, 4) left, top, right, bottom of what is kept of their frames at its own resolution: the lower face."""
    reference_pixels: NDArray[np.uint8]
    """(N, 3) RGB of these boxes, one's rows after the other's; see `faces.reference.patch`."""
    pixel_aspect: float = 1.0
    """Width of the frames' pixels over their height, see `VideoInfo.pixel_aspect`."""
    overlay_spans: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    """(M, 3) of what is burnt into the picture over the lower face, a caption or a logo: first frame, one past the last
    one, both absolute, and how many pixels it covers."""
    overlay_pixels: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, 2), np.uint16))
    """(N, 2) x, y of these pixels in the frame, one overlay's after the other's."""

    def __post_init__(self) -> None:
        frames = self.stop - self.start
        for name, shape in {"landmarks": (frames, 478, 3), "routes": (frames,), "crops": (frames, 2, 3)}.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"{name} must be {shape}, got {got}")


RESULTS_SCHEMA = pa.schema(
    [
        ("job_id", pa.string()),
        ("row", pa.int64()),
        ("status", pa.string()),
        ("error_type", pa.string()),
        ("error", pa.string()),
        ("warnings", pa.string()),
        ("video_uri", pa.string()),
        ("audio_uri", pa.string()),
        ("output_uri", pa.string()),
        ("duration_s", pa.float64()),
        ("frames", pa.int64()),
        ("dubbed_frames", pa.int64()),
        ("passed_through", pa.map_(pa.string(), pa.int64())),
        ("seconds", pa.map_(pa.string(), pa.float64())),
        ("real_time_factor", pa.float64()),
        ("quality", pa.map_(pa.string(), pa.float64())),
        ("needs_look", pa.string()),
        ("review_uri", pa.string()),
        ("attempts", pa.int64()),
        ("chunks", pa.int64()),
        ("chunks_rendered", pa.int64()),
        ("seed", pa.int64()),
        ("language", pa.string()),
        ("consent_id", pa.string()),
        ("weights_digest", pa.string()),
        ("settings_digest", pa.string()),
        ("extra", pa.map_(pa.string(), pa.string())),
    ]
)
"""One row a job; `status` is `succeeded` or `failed`, `passed_through` counts frames by `Route`,
`seconds` is by stage, `real_time_factor` is stage seconds per second of video, `chunks_rendered` counts the chunks
that this run rendered (the others were there), `attempts` the tries that these took. `quality` holds the
review's figures, `needs_look` its reasons why a person should look, joined by "; ", and `review_uri` names its file."""
