"""What the store keeps of one job, and what may become of it."""

from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dreamhead.config import Section
from dreamhead.records import Job, LongerAudio, Segment

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]

OVER: frozenset[State] = frozenset(("succeeded", "failed", "cancelled"))
"""States that nothing follows."""

MAX_SEED = 2**63 - 1


class TimeRange(Section):
    """A stretch of the timeline."""

    start_s: float = Field(ge=0, allow_inf_nan=False)
    """Where it begins, in seconds."""
    end_s: float = Field(allow_inf_nan=False)
    """Where it ends, in seconds; after `start_s`."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s {self.end_s:g} must be after start_s {self.start_s:g}")
        return self


class Options(Section):
    """How a job is dubbed: a manifest's optional columns."""

    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """The same seed gives the same pictures."""
    segments: tuple[TimeRange, ...] = ()
    """Only these are dubbed; empty means everything."""
    face: str = Field(default="largest", max_length=200)
    """`largest`, `point:x,y@t` or `box:x0,y0,x1,y1@t` (pixels as shown: upright and square; seconds)."""
    on_longer_audio: LongerAudio = "trim"
    """What happens when the speech outlasts the video."""
    language: str = Field(default="", max_length=100)
    """Of the speech; kept with the job."""
    consent_id: str = Field(default="", max_length=200)
    """Where the speaker's consent is filed; kept with the job."""
    checkpoint: str = Field(default="", max_length=100)
    """Name of other weights, one of the service's `checkpoints`; its own unless given."""
    webhook_url: str = Field(default="", max_length=2000)
    """Where the job is posted to once it is over, signed as Standard Webhooks has it."""


class Progress(Section):
    """How far a job is."""

    frames_done: int = 0
    """Frames of the output that are rendered."""
    frames: int = 0
    """Frames of the output; 0 until the inputs were looked at."""
    eta_s: float | None = None
    """Seconds until the end, guessed from the pace so far."""


class Failure(Section):
    """Why a job failed."""

    type: str
    """Kind of error, such as `MediaError`."""
    detail: str
    """One line that a person can act on."""


class Result(Section):
    """What a job ended with."""

    output_uri: str
    bytes: int
    digest: str
    """A name for the content."""
    frames: int
    dubbed_frames: int
    passed_through: dict[str, int]
    """Frames that weren't dubbed, by reason."""
    warnings: str = ""

    @property
    def curve_uri(self) -> str:
        """Where the curves of the lips lie, where they could be had."""
        return curve_uri_of(self.output_uri)


def curve_uri_of(output_uri: str) -> str:
    """Where the curves of a result's lips lie."""
    return f"{output_uri.rpartition('.')[0]}.curve.json"


class Lease(Section):
    """Who works on a job, and until when that is believed without another word."""

    holder: str
    token: str
    """Random: tells this claim from any other of the same holder."""
    expires_at: datetime


class Delivery(Section):
    """A webhook that isn't delivered."""

    since: datetime
    """When it was first tried; until then, when its job was submitted."""
    due_at: datetime
    """When the next try may be made, once the job is over."""
    tries: int = 0
    change: str
    """Random, new with each change: no two writes are alike."""


class JobRecord(Section):
    """One job."""

    id: str
    owner: str
    """Name of the API key that it was submitted with."""
    state: State = "queued"
    video_uri: str
    audio_uri: str
    options: Options = Options()
    created_at: datetime
    updated_at: datetime
    revision: int = 0
    """Counts the record's changes."""
    change: str = ""
    """Random, new with each change: no two writes are alike."""
    key_name: str = ""
    """Of the file of its idempotency key."""
    progress: Progress = Progress()
    lease: Lease | None = None
    """Set while the job is running."""
    claims: int = 0
    """How often somebody began, or went on, to work on it."""
    worked_s: float = 0.0
    """How long it has been worked on, all tries together, in seconds."""
    cancel_requested: bool = False
    failure: Failure | None = None
    result: Result | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in OVER

    def to_job(self, output_uri: str) -> Job:
        """The stages' job."""
        options = self.options
        return Job(
            job_id=self.id,
            row=0,
            video_uri=self.video_uri,
            audio_uri=self.audio_uri,
            output_uri=output_uri,
            seed=options.seed,
            segments=tuple(Segment(part.start_s, part.end_s) for part in options.segments),
            face=options.face,
            on_longer_audio=options.on_longer_audio,
            language=options.language,
            consent_id=options.consent_id,
        )
