"""What the HTTP interface takes and answers."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dreamhead.serving.records import Failure, JobRecord, Options, Progress, State

EXAMPLE_ID = "e64892557ff2ecac0e5e6997e15ac2c41fd79483f34"
EXAMPLE_REQUEST: dict[str, Any] = {
    "video_uri": "s3://studio/interview.mp4",
    "audio_uri": "s3://studio/interview.fr.wav",
    "on_longer_audio": "freeze",
    "segments": [{"start_s": 2.0, "end_s": 9.5}],
    "language": "fr",
    "consent_id": "contract-1182",
}
EXAMPLE_JOB: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "status": "running",
    "progress": {"frames_done": 120, "frames": 500, "eta_s": 31.5},
    "error": None,
    "warnings": "",
    "dubbed_frames": None,
    "passed_through": {},
    "created_at": "2026-01-01T12:00:00Z",
    "updated_at": "2026-01-01T12:00:09Z",
    "links": {
        "self": f"/v1/dubs/{EXAMPLE_ID}",
        "events": f"/v1/dubs/{EXAMPLE_ID}/events",
        "stream": f"/v1/dubs/{EXAMPLE_ID}/stream",
        "video": f"/v1/dubs/{EXAMPLE_ID}/video",
        "source": f"/v1/dubs/{EXAMPLE_ID}/source",
        "curve": f"/v1/dubs/{EXAMPLE_ID}/curve",
    },
}


class DubRequest(Options):
    """A dub of files that the service can read."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_REQUEST]})

    video_uri: str = Field(min_length=1, max_length=2000)
    """The video, or a still picture: `s3://`, a path below an allowed directory, or `sample:` and a sample's name."""
    audio_uri: str = Field(min_length=1, max_length=2000)
    """The new speech: any file with sound."""


class Links(BaseModel):
    """Where the rest is."""

    self: str
    events: str
    stream: str
    video: str
    source: str
    curve: str


class JobView(BaseModel):
    """A job as its owner sees it."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra={"examples": [EXAMPLE_JOB]})

    id: str
    status: State
    progress: Progress
    error: Failure | None
    """Why the job failed."""
    warnings: str
    """What a person should know, such as speech that was cut."""
    dubbed_frames: int | None
    """Frames whose mouth was changed; once the job succeeded."""
    passed_through: dict[str, int]
    """Frames that were left as they are, by reason."""
    created_at: datetime
    updated_at: datetime
    links: Links

    @classmethod
    def of(cls, record: JobRecord) -> "JobView":
        """The view of a record."""
        path, result = f"/v1/dubs/{record.id}", record.result
        return cls(
            id=record.id,
            status=record.state,
            progress=record.progress,
            error=record.failure,
            warnings=result.warnings if result else "",
            dubbed_frames=result.dubbed_frames if result else None,
            passed_through=result.passed_through if result else {},
            created_at=record.created_at,
            updated_at=record.updated_at,
            links=Links(
                self=path,
                events=f"{path}/events",
                stream=f"{path}/stream",
                video=f"{path}/video",
                source=f"{path}/source",
                curve=f"{path}/curve",
            ),
        )


class JobPage(BaseModel):
    """Some of a list of jobs, the newest first."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    jobs: list[JobView]
    next: str | None
    """What to send as `after` to get the jobs after these; null when there are none."""


class ProblemView(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no job 12"}]
        }
    )

    type: str
    title: str
    status: int
    detail: str
