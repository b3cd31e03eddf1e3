"""Both stages and the autoencoder give on a GPU what they give on a CPU."""

from typing import Any

import numpy as np
import pytest
import torch

from dreamhead.config import LandmarkSettings, RenderSettings
from dreamhead.faces import topology
from dreamhead.pipelines.audio_to_landmarks import AudioToLandmarks
from dreamhead.pipelines.landmarks_to_frames import LandmarksToFrames
from tests.gpu import inputs

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
COUNT = 2
NEUTRAL = topology.face_model().canonical.astype(np.float32)


def spoken(which: str, place: torch.device, seed: int) -> Any:
    """How far the mouth moves from rest: the rest is the same anyhow."""
    nets, generator = inputs.networks(which, place), np.random.default_rng(seed)
    pipeline = AudioToLandmarks(nets.landmarks, LandmarkSettings(num_inference_steps=2))
    times_s = np.arange(40) / 25 + 1.0
    shapes = pipeline(inputs.speech(generator, nets.speech_size), times_s, NEUTRAL, seed=3)
    return shapes - NEUTRAL[topology.lower_face()]


def painted(which: str, place: torch.device, seed: int, precision: str = "float32") -> Any:
    """What painting changes of the first guess, in levels."""
    nets, generator = inputs.networks(which, place), np.random.default_rng(seed)
    settings = RenderSettings.model_validate({"precision": precision})
    told = inputs.examples(generator, nets.size, COUNT)
    found = LandmarksToFrames(nets.image, nets.autoencoder, settings, nets.size).paint(told, seed=5)
    return found - np.stack([example.warped for example in told])


def coded(which: str, place: torch.device, seed: int) -> tuple[Any, Any]:
    """Latents of noise, and what becomes of them."""
    nets, generator = inputs.networks(which, place), np.random.default_rng(seed)
    pixels = inputs.tensor(generator, COUNT, 3, nets.size * 3 // 4, nets.size).clamp(-1, 1).to(place)
    with torch.no_grad():
        latents = nets.autoencoder.encode(pixels)
        return latents.cpu(), nets.autoencoder.decode(latents).cpu()


def any_seed() -> int:
    return int(inputs.fresh().integers(1 << 31))


def test_landmarks(which: str, device: torch.device) -> None:
    seed = any_seed()
    inputs.assert_near(spoken(which, device, seed), spoken(which, CPU, seed))


def test_painting(which: str, device: torch.device) -> None:
    seed = any_seed()
    found = painted(which, device, seed)
    inputs.assert_near(found, painted(which, CPU, seed))
    inputs.assert_half(painted(which, device, seed, "bfloat16"), found)


def test_latents_and_pictures(which: str, device: torch.device) -> None:
    seed = any_seed()
    for found, reference in zip(coded(which, device, seed), coded(which, CPU, seed), strict=True):
        inputs.assert_near(found, reference)


def test_the_same_bits_twice(which: str, device: torch.device) -> None:
    seed = any_seed()
    inputs.assert_same(spoken(which, device, seed), spoken(which, device, seed))
    inputs.assert_same(painted(which, device, seed), painted(which, device, seed))
    inputs.assert_same(painted(which, device, seed, "bfloat16"), painted(which, device, seed, "bfloat16"))
    for first, second in zip(coded(which, device, seed), coded(which, device, seed), strict=True):
        inputs.assert_same(first, second)
