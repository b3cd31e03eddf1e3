"""Stand-ins of the networks: they paint what can be computed by hand, so that the stages' own work can be checked."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import AnalysisSettings, DubSettings, OutputSettings, ReviewSettings
from dreamhead.faces.reference import KeptFrame, reference_arrays
from dreamhead.media.audio import write_wav
from dreamhead.records import Job, Route, ShotAnalysis, SpeechTrack
from dreamhead.stages import analyse, dub, landmarks, opening, render
from dreamhead.stages.work import Work

HEIGHT, WIDTH = 48, 64
K = 7


@dataclass(frozen=True)
class Config:
    """A checkpoint's config."""

    speech_encoder: str = "log_mel"
    crop_size: int = 32


@dataclass
class Calls:
    """What the stand-ins were asked to do."""

    walked: list[tuple[int, int]] = field(default_factory=list)
    spoken: list[int] = field(default_factory=list)
    painted: list[int] = field(default_factory=list)
    routes: dict[int, Route] = field(default_factory=dict)
    """Frames that aren't dubbed."""
    cuts: tuple[int, ...] = ()
    """First frames of shots."""
    open: int = 0
    """Analysers that nobody closed yet."""


class Checkpoint:
    """Weights of nothing."""

    config = Config()
    digest = "all"
    landmarks_digest = "landmarks"

    def render_digest(self, renderer: str) -> str:
        return "render"


def shot(start: int, stop: int, routes: dict[int, Route]) -> ShotAnalysis:
    """A shot whose frames are dubbed but for those that `routes` names."""
    frames = stop - start
    dubbed = [routes.get(index, Route.DUB) for index in range(start, stop)]
    face = any(route is Route.DUB for route in dubbed)
    reference = KeptFrame(
        number=start,
        crop=np.zeros((32, 32, 3), np.uint8),
        landmarks=np.zeros((478, 3), np.float32),
        transform=np.eye(2, 3),
        box=(0, 0, 1, 1),
        pixels=np.zeros((1, 1, 3), np.uint8),
    )
    return ShotAnalysis(
        start=start,
        stop=stop,
        landmarks=np.zeros((frames, 478, 3), dtype=np.float32),
        routes=np.array(dubbed, dtype=np.uint8),
        neutral=np.full((478, 3), 0.5 if face else np.nan, dtype=np.float32),
        articulation=math.nan,
        crops=np.zeros((frames, 2, 3), dtype=np.float32),
        **reference_arrays([reference], 32),
    )


class Analyser:
    """Cuts where it is told."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        calls.open += 1

    def close(self) -> None:
        """Be closed."""
        self._calls.open -= 1

    def __call__(
        self,
        frames: Iterable[NDArray[np.uint8]],
        first: int,
        times_s: NDArray[np.float64],
        face: str,
        pixel_aspect: float,
    ) -> Iterator[ShotAnalysis]:
        start = first
        for index, _ in enumerate(frames, start=first):
            if index in self._calls.cuts and index > start:
                yield shot(start, index, self._calls.routes)
                start = index
        self._calls.walked.append((first, first + len(times_s)))
        yield shot(start, first + len(times_s), self._calls.routes)


class Speaker:
    """Targets are the time, and the speech's level there."""

    context_s = 2.5

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __call__(
        self,
        speech: SpeechTrack,
        times_s: NDArray[np.float64],
        neutral: NDArray[np.float32],
        seed: int,
        articulation: float,
    ) -> NDArray[np.float32]:
        assert math.isnan(articulation)
        assert speech.start_s <= max(0.0, times_s[0] - self.context_s)
        assert speech.start_s + len(speech.features) / speech.rate >= times_s[-1] + self.context_s
        self._calls.spoken.append(len(times_s))
        place = ((times_s - speech.start_s) * speech.rate).astype(int)
        targets = np.zeros((len(times_s), K, 3), dtype=np.float32)
        targets[:, 0, 0] = times_s
        targets[:, 0, 1] = speech.level_db[place]
        return targets


class Painter:
    """A dubbed frame turns white, by its strength; the others aren't touched."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __call__(
        self,
        frames: Iterable[NDArray[np.uint8]],
        source_indices: Sequence[int],
        strength: NDArray[np.float32],
        shot: ShotAnalysis,
        targets: NDArray[np.float32],
        seed: int,
    ) -> Iterator[NDArray[np.uint8]]:
        assert len(source_indices) == len(strength) == len(targets)
        assert all(shot.start <= index < shot.stop for index in source_indices)
        self._calls.painted.append(len(strength))
        for frame, share in zip(frames, strength, strict=True):
            yield (frame + share * (255.0 - frame)).round().astype(np.uint8)


SETTINGS = DubSettings(
    device="cpu",
    cpu_threads=1,
    analysis=AnalysisSettings(crop_size=32, span_s=1.0, chunk_s=0.4),
    output=OutputSettings(quality=1, encoder_threads=1),
    review=ReviewSettings(gate="off"),
)


class Studio:
    """A folder with clips and speech, and the stages over stand-ins of the networks."""

    settings = SETTINGS

    def __init__(self, folder: Path, calls: Calls) -> None:
        self.folder = folder
        self.calls = calls
        self.work_uri = str(folder / "work")

    def clip(self, frames: int, name: str = "clip.mp4") -> str:
        """A clip of grey frames at 25 a second; frame n is 16 + 4 n bright."""
        path = self.folder / name
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast", "g": "10"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for index in range(frames):
                picture = np.full((HEIGHT, WIDTH, 3), 16 + 4 * index, dtype=np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode(None))
        return str(path)

    def speech(self, seconds: float, name: str = "speech.wav") -> str:
        """A tone."""
        path = self.folder / name
        times_s = np.arange(round(seconds * 16_000)) / 16_000
        write_wav(path, (0.3 * np.sin(2 * np.pi * 220 * times_s)).astype(np.float32), 16_000)
        return str(path)

    def job(self, video_uri: str, audio_uri: str, **values: Any) -> Job:
        """A job whose output lies in the folder."""
        output_uri = str(self.folder / "out" / f"{values.get('job_id', 'job')}.mp4")
        return Job(
            **{"job_id": "job", "row": 0, "output_uri": output_uri} | values, video_uri=video_uri, audio_uri=audio_uri
        )

    def dub(self, job: Job, settings: DubSettings = SETTINGS) -> dict[str, Any]:
        """The whole way in this process."""
        return dub.dub(job, settings, "", self.work_uri)

    def work(self, settings: DubSettings = SETTINGS) -> Work:
        """The names of the work directory's files."""
        return Work(self.work_uri, settings, Checkpoint())  # type: ignore[arg-type]

    def brightness(self, uri: str) -> list[int]:
        """The middle of each frame of a file."""
        with av.open(uri) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return [int(picture[HEIGHT // 2, WIDTH // 2, 1]) for picture in pictures]


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    calls = Calls()
    for module in (analyse, landmarks, render, opening):
        monkeypatch.setattr(module.Checkpoint, "load", lambda uri="": Checkpoint())
    monkeypatch.setattr(analyse, "VideoAnalyser", lambda *arguments: Analyser(calls))
    monkeypatch.setattr(landmarks.AudioToLandmarks, "from_checkpoint", lambda *arguments: Speaker(calls))
    monkeypatch.setattr(render.LandmarksToFrames, "from_checkpoint", lambda *arguments: Painter(calls))
    yield Studio(tmp_path, calls)
    assert not calls.open, "an analyser was left open: its graph is never freed"
