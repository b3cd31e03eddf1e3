"""Stores of jobs in each kind of storage, a clock that the test turns, and the stages without Ray."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import AnalysisSettings, DubSettings, LandmarkSettings, OutputSettings, RenderSettings
from dreamhead.records import Chunk, Job, Span
from dreamhead.serving.checkpoints import stage_arguments
from dreamhead.serving.jobs import JobStore, NewJob
from dreamhead.serving.records import Options
from dreamhead.serving.settings import ServingSettings
from dreamhead.stages.analyse import AnalyseSpan
from dreamhead.stages.dub import dub
from dreamhead.stages.landmarks import MakeLandmarks
from dreamhead.stages.render import RenderChunk
from tests.conftest import ToneMaker, VideoMaker
from tests.tiny import tiny_checkpoint


class Clock:
    """A time that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(base: str, clock: Clock) -> JobStore:
    return JobStore(base, clock)


class LocalStages:
    """The real stages in this process, which a test can hold up, and make fail."""

    def __init__(self, settings: ServingSettings) -> None:
        arguments = stage_arguments(settings)
        made_with = (arguments.settings, arguments.checkpoint_uri, arguments.work_uri)
        self._analyse = AnalyseSpan(*made_with)
        self._landmarks = MakeLandmarks(*made_with)
        self._render = RenderChunk(*made_with)
        self.rendered: list[int] = []
        """First frames of the chunks, as they were rendered."""
        self.most_at_once = 0
        self._at_once = 0
        self.allowed = asyncio.Semaphore(1000)
        """Chunks that may still be rendered."""
        self.defect = ""
        """What a stage raises that isn't one of our errors."""

    async def analyse(self, span: Span, checkpoint: str) -> AsyncIterator[Chunk]:
        """All chunks of the span."""
        for chunk in await asyncio.to_thread(lambda: list(self._analyse(span))):
            yield chunk

    async def render(self, chunk: Chunk, checkpoint: str) -> Chunk:
        """The chunk, rendered."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self.allowed.acquire()
            if self.defect:
                raise ZeroDivisionError(self.defect)
            done = await asyncio.to_thread(lambda: self._render(self._landmarks(chunk)))
        finally:
            self._at_once -= 1
        self.rendered.append(done.start)
        return done

    def close(self) -> None:
        """Free the detector."""
        self._analyse.close()


@dataclass
class Studio:
    """A clip, speech, and a service's settings with tiny weights."""

    folder: Path
    settings: ServingSettings
    video_uri: str
    audio_uri: str

    def new_job(self, **values: Any) -> NewJob:
        """What a request for a dub of the clip becomes."""
        given: dict[str, Any] = {"video_uri": self.video_uri, "audio_uri": self.audio_uri, "content": "c"} | values
        return NewJob(**{"owner": "anna", "options": Options()} | given)

    def dub_directly(self, name: str, checkpoint: str = "") -> bytes:
        """What `dreamhead dub` makes of the same inputs, with the weights of that name."""
        arguments = stage_arguments(self.settings, checkpoint)
        output = self.folder / f"{name}.mp4"
        uris = {"video_uri": self.video_uri, "audio_uri": self.audio_uri, "output_uri": str(output)}
        row = dub(
            Job(job_id=name, row=0, **uris),
            arguments.settings,
            arguments.checkpoint_uri,
            str(self.folder / f"work-{name}"),
        )
        assert (row["status"], row["error"]) == ("succeeded", "")
        return output.read_bytes()


@pytest.fixture(scope="session")
def studio_of(face_frames: list[NDArray[np.uint8]]) -> Callable[..., Studio]:
    """Makes a studio in a folder; its clip shows the face's frames, forth and back, so many times."""

    def make(folder: Path, times: int = 1, **values: Any) -> Studio:
        frames = [*face_frames, *reversed(face_frames)] * ((times + 1) // 2)
        frames = frames[: times * len(face_frames)]
        settings = ServingSettings(
            storage=str(folder / "service"),
            checkpoint=str(tiny_checkpoint(folder / "checkpoint")),
            dub=DubSettings(
                device="cpu",
                cpu_threads=1,
                analysis=AnalysisSettings(chunk_s=0.25, span_s=0.5, reference_frames=3),
                landmarks=LandmarkSettings(num_inference_steps=1),
                render=RenderSettings(num_inference_steps=1),
                output=OutputSettings(preset="ultrafast", encoder_threads=1),
            ),
            lease_s=2,
            poll_s=0.05,
            **values,
        )
        video_uri = VideoMaker(folder)("clip.mp4", frames)
        return Studio(folder, settings, video_uri, ToneMaker(folder)("speech.wav", 0.96 * times))

    return make


@pytest.fixture
def studio(tmp_path: Path, studio_of: Callable[..., Studio]) -> Studio:
    return studio_of(tmp_path)


@pytest.fixture(scope="session")
def local_stages() -> type[LocalStages]:
    """For stages that live longer than a test."""
    return LocalStages


@pytest.fixture
def stages(studio: Studio) -> Iterator[LocalStages]:
    """The stages of the studio's settings."""
    local = LocalStages(studio.settings)
    yield local
    local.close()
