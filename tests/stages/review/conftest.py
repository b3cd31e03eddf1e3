"""A short clip of a real portrait that a camera moves over, its analysis, and a dub of it by random weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.config import AnalysisSettings, DubSettings, OutputSettings, WeightsSettings
from dreamhead.faces.detection import FaceDetector
from dreamhead.media.audio import write_wav
from dreamhead.media.encode import encode_chunk
from dreamhead.media.video import probe
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.records import Job, ShotAnalysis, VideoInfo
from dreamhead.stages.dub import dub
from dreamhead.stages.opening import open_work
from dreamhead.stages.source import Source, open_source
from tests.conftest import VideoMaker
from tests.tiny import CROP_SIZE, tiny_checkpoint
from tests.toy_faces import astronaut

FRAMES = 30
ANALYSIS = AnalysisSettings(crop_size=CROP_SIZE, chunk_s=0.64)
SETTINGS = DubSettings(device="cpu", cpu_threads=1, analysis=ANALYSIS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """30 frames (256, 256, 3) at 25 a second, as a file, with speech of the same length."""

    frames: list[NDArray[np.uint8]]
    job: Job
    source: Source
    shot: ShotAnalysis


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("clip")
    portrait = astronaut()
    views = [portrait[10 + t // 3 : 234 + t // 3, 100 + t // 2 : 324 + t // 2] for t in range(FRAMES)]
    frames = [np.asarray(cv2.resize(view, (256, 256), interpolation=cv2.INTER_AREA)) for view in views]
    video_uri = VideoMaker(folder)("portrait.mp4", frames)
    speech = np.random.default_rng(0).normal(size=round(FRAMES / 25 * 16_000)) * 0.1
    write_wav(folder / "speech.wav", speech.astype(np.float32), 16_000)
    write_wav(folder / "silence.wav", np.zeros(len(speech), np.float32), 16_000)
    cv2.imwrite(str(folder / "still.png"), cv2.cvtColor(frames[0], cv2.COLOR_RGB2BGR))
    job = Job(
        job_id="job", row=0, video_uri=video_uri, audio_uri=str(folder / "speech.wav"), output_uri=str(folder / "o.mp4")
    )
    work, _ = open_work(SETTINGS, str(tiny_checkpoint(folder / "weights")), str(folder / "work"))
    source = open_source(job, work)
    analyser = VideoAnalyser(ANALYSIS, WeightsSettings())
    (shot,) = analyser(iter(frames), 0, source.video.times_s, "largest")
    analyser.close()
    return Clip(frames=frames, job=job, source=source, shot=shot)


@pytest.fixture(scope="module")
def detector() -> Any:
    with FaceDetector(pretrained.face_landmarker()) as detector:
        yield detector


class Dubber:
    """Dubs jobs by random weights in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work_uri = str(folder / "work")
        self.weights = str(tiny_checkpoint(folder / "weights"))

    def __call__(self, settings: DubSettings, job: Job) -> dict[str, Any]:
        """The job's results row."""
        return dub(job, settings, self.weights, self.work_uri)


@pytest.fixture(scope="session")
def dubber(tmp_path_factory: pytest.TempPathFactory) -> Dubber:
    return Dubber(tmp_path_factory.mktemp("dubs"))


@pytest.fixture
def settings() -> DubSettings:
    return SETTINGS


def write_output(path: Path, frames: list[NDArray[np.uint8]], like: VideoInfo) -> VideoInfo:
    """A finished output that shows these frames."""
    encode_chunk(path, iter(frames), like, like.pts[: len(frames)], like.end_pts, OutputSettings(quality=4))
    return probe(str(path))


@pytest.fixture
def publish(tmp_path: Path, clip: Clip) -> Any:
    """Writes frames as an output of the clip."""
    return lambda frames: write_output(tmp_path / "output.mp4", frames, clip.source.video)
