"""A portrait whose mouth is moved along a curve that the toy network hears in the sound."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import LandmarkSettings, PreparationSettings, VariantSettings
from dreamhead.faces import geometry, topology
from dreamhead.faces.detection import FaceDetector
from dreamhead.faces.warp import displacement, warp
from dreamhead.models.audio_encoder import LogMelEncoder
from dreamhead.pipelines.audio_to_landmarks import AudioToLandmarks
from dreamhead.stages.preparation.offset import _opening
from dreamhead.stages.preparation.sound import FeatureGrid, Sound
from dreamhead.stages.preparation.tracks import Candidate, Track
from tests.tiny import tiny_checkpoint
from tests.toy_faces import astronaut, canonical_face, posed

RATE = 25
SECONDS = 4
SIZE = 256

SETTINGS = PreparationSettings(
    speech_encoder="log_mel",
    clip_s=2.5,
    crop_size=64,
    variants=VariantSettings(count=3, unchanged=2),
    filters={"min_face_px": 32.0, "min_sharpness": 0.0001},  # type: ignore[arg-type]
    offset={"min_clip_correlation": 0.0},  # type: ignore[arg-type]
)


def babble(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """(N,) noise whose loudness and colour change several times a second, as speech's do."""
    generator = np.random.default_rng(seed)
    count, knots = round(seconds * 16_000), round(seconds * 8) + 2
    places = np.linspace(0, knots - 1, count)
    low, high = (np.interp(places, np.arange(knots), generator.random(knots)) for _ in range(2))
    noise = generator.standard_normal(count)
    dull = np.convolve(noise, np.ones(8) / 8, "same")
    return (0.3 * (low * dull * 3 + high * (noise - dull))).astype(np.float32)


def shifted(samples: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """The same sound that many seconds later."""
    lead = round(seconds * 16_000)
    return np.concatenate([np.zeros(lead, np.float32), samples])[: len(samples)]


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A toy checkpoint's folder."""
    return str(tiny_checkpoint(tmp_path_factory.mktemp("weights") / "checkpoint"))


def heard_opening(weights: str, samples: NDArray[np.float32], times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) how far the toy network opens the mean face's mouth at the given times, 0 to 0.3."""
    settings = LandmarkSettings(num_inference_steps=4, guidance_scale=1.0)
    pipeline = AudioToLandmarks.from_checkpoint(Checkpoint.load(weights), settings, torch.device("cpu"))
    grid = FeatureGrid(LogMelEncoder(), Sound(samples), 0.0)
    speech = grid.track(float(times_s[0]) - pipeline.context_s, float(times_s[-1]) + pipeline.context_s)
    found = [_opening(pipeline(speech, times_s, canonical_face().astype(np.float32), seed)) for seed in range(4)]
    curve = np.mean(found, axis=0)
    curve = np.clip((curve - curve.mean()) / (4 * curve.std()) + 0.5, 0, 1)
    return np.asarray(0.3 * curve, np.float64)


def candidate(opening: NDArray[np.float64], rate: float = RATE, **values: Any) -> Candidate:
    """A clip of the mean face, its lips that far apart in each frame."""
    landmarks = np.stack([posed(canonical_face(gap)) for gap in opening])
    return Candidate(
        **{
            "start": 0,
            "stop": len(opening),
            "times_s": np.arange(len(opening)) / rate,
            "landmarks": landmarks,
            "transforms": np.repeat(np.array([[[0.5, 0, 0], [0, 0.5, 0]]], np.float32), len(opening), axis=0),
            "track": Track(
                neutral=geometry.resting_face(canonical_face()[None]),
                articulation=0.3,
                detected_share=1.0,
            ),
        }
        | values
    )


@dataclass(frozen=True)
class Talker:
    """A clip of a portrait that talks, and the sound it goes with."""

    frames: list[NDArray[np.uint8]]
    opening: NDArray[np.float64]
    samples: NDArray[np.float32]

    def write(self, path: Path, late_s: float = 0.0, *, silent: bool = False) -> str:
        """Write the clip, its sound that many seconds late, and return the path."""
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=RATE, options={"crf": "12", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
            sound = output.add_stream("pcm_s16le", rate=16_000, layout="mono") if not silent else None
            for picture in self.frames:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode(None))
            if sound is not None:
                values = np.round(shifted(self.samples, late_s) * 32767).clip(-32768, 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values[None]), format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
                output.mux(sound.encode(frame))
                output.mux(sound.encode(None))
        return str(path)


@pytest.fixture(scope="session")
def talker(tiny_weights: str) -> Talker:
    """Four seconds; the mouth moves as the toy network hears it in the sound."""
    return make_talker(tiny_weights)


def make_talker(tiny_weights: str) -> Talker:
    """What the fixture gives."""
    samples = babble(SECONDS)
    opening = heard_opening(tiny_weights, samples, np.arange(SECONDS * RATE) / RATE)
    picture = np.asarray(cv2.resize(astronaut()[20:276, 90:346], (SIZE, SIZE)), np.uint8)
    with FaceDetector(pretrained.face_landmarker()) as detector:
        (face, *_) = detector.find(picture)
    return Talker([open_mouth(picture, face, gap) for gap in opening], opening, samples)


def open_mouth(picture: NDArray[np.uint8], face: NDArray[np.float32], opening: float) -> NDArray[np.uint8]:
    """The (S, S, 3) portrait with its lips that far apart."""
    pose = geometry.fit_pose(face[None])
    shape = geometry.close_lips(np.asarray(pose.to_canonical(face[None])[0], np.float64))
    lower = [*topology.INNER_LOWER_LIP[1:-1], *topology.OUTER_LOWER_LIP[1:-1], topology.CHIN]
    shape[lower, 1] += opening
    return warp(picture, displacement(face, pose.to_pixels(shape[None])[0].astype(np.float32), SIZE))


@pytest.fixture
def preparation(tmp_path: Path) -> Callable[..., PreparationSettings]:
    """Settings at toy size, some of them changed."""
    return lambda **values: SETTINGS.model_copy(update=values)
