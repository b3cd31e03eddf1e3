"""A clip of a face that speaks: a portrait whose mouth follows a known curve, with a tone as its speech."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.config import AnalysisSettings, DubSettings, LandmarkSettings, OutputSettings, RenderSettings
from dreamhead.evaluation.records import JudgedClip
from dreamhead.evaluation.settings import EvaluationSettings
from dreamhead.faces import geometry, topology
from dreamhead.faces.detection import FaceDetector
from dreamhead.faces.warp import displacement, warp
from dreamhead.media.audio import write_wav
from tests.tiny import CROP_SIZE, tiny_checkpoint
from tests.toy_faces import astronaut

FRAMES = 30
GAPS = 0.11 * (1 - np.cos(np.arange(FRAMES) / 2.5))
"""(T,) by how much the mouth is opened, in units of eye distance."""

SETTINGS = EvaluationSettings(
    dub=DubSettings(
        device="cpu",
        cpu_threads=1,
        analysis=AnalysisSettings(crop_size=CROP_SIZE, reference_frames=6),
        landmarks=LandmarkSettings(num_inference_steps=1),
        render=RenderSettings(num_inference_steps=1),
        output=OutputSettings(preset="ultrafast", encoder_threads=1),
    ),
    apart_s=0.4,
    network_every=5,
    moments=2,
    worst_moments=1,
    picture_px=48,
)


def opened(portrait: NDArray[np.uint8], landmarks: NDArray[np.float32], gap: float) -> NDArray[np.uint8]:
    """The portrait (S, S, 3) with the lower lip and the jaw let down."""
    pose = geometry.fit_pose(landmarks[None])
    shape = pose.to_canonical(landmarks[None])
    lower = topology.lower_face()
    middle = shape[0, topology.UPPER_LIP_MIDDLE, 1]
    inner_upper = {*topology.INNER_UPPER_LIP, *topology.OUTER_UPPER_LIP}
    moving = [index for index in lower.tolist() if shape[0, index, 1] > middle and index not in inner_upper]
    shape[0, moving, 1] += gap * np.exp(-((shape[0, moving, 0] / 0.5) ** 2))
    target = pose.to_pixels(shape)[0].astype(np.float32)
    return warp(portrait, displacement(landmarks, target, portrait.shape[0]))


@pytest.fixture(scope="session")
def speaking_frames() -> list[NDArray[np.uint8]]:
    """FRAMES pictures (256, 256, 3) of a mouth that follows GAPS."""
    portrait = cv2.resize(astronaut()[0:224, 112:336], (256, 256), interpolation=cv2.INTER_AREA)
    portrait = np.asarray(portrait, np.uint8)
    with FaceDetector(pretrained.face_landmarker()) as detector:
        (landmarks, *_) = detector.find(portrait)
    return [opened(portrait, landmarks, float(gap)) for gap in GAPS]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint at toy size."""
    return str(tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture
def speaking_clip(
    tmp_path: Path, make_video: Callable[..., str], speaking_frames: list[NDArray[np.uint8]]
) -> JudgedClip:
    """The clip, and a speech that grows loud where its mouth is open."""
    video_uri = make_video("speaker.mp4", speaking_frames)
    times_s = np.arange(round(16_000 * FRAMES / 25)) / 16_000
    loud = np.interp(times_s, np.arange(FRAMES) / 25, GAPS / GAPS.max())
    tone = np.sin(2 * np.pi * (200 * times_s + 50 * times_s**2))
    write_wav(tmp_path / "speech.wav", (0.5 * loud * tone).astype(np.float32), 16_000)
    return JudgedClip(
        clip_id="speaker", video_uri=video_uri, audio_uri=str(tmp_path / "speech.wav"), speaker="astronaut"
    )
