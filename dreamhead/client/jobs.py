"""A job as its client reads it: what this version knows; more that a newer service tells is passed over."""

from datetime import datetime

from pydantic import BaseModel

from dreamhead.serving.records import OVER


class ClientProgress(BaseModel):
    """How far a job is."""

    frames_done: int
    frames: int
    """0 until the service has looked at the inputs."""
    eta_s: float | None = None


class ClientFailure(BaseModel):
    """Why a job failed."""

    type: str
    detail: str


class ClientJob(BaseModel):
    """One job."""

    id: str
    status: str
    progress: ClientProgress
    error: ClientFailure | None = None
    warnings: str = ""
    created_at: datetime

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in OVER

    @property
    def line(self) -> str:
        """What a log says of it."""
        progress = self.progress
        frames = f", {progress.frames_done} of {progress.frames} frames" if progress.frames else ""
        left = f", about {progress.eta_s:.0f} s left" if progress.eta_s else ""
        reason = f": {self.error.type}: {self.error.detail}" if self.error else ""
        return f"{self.status}{frames}{left}{reason}"


class ClientPage(BaseModel):
    """Some of a list of jobs."""

    jobs: list[ClientJob]
