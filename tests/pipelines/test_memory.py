"""A network that doesn't fit the GPU's memory runs on fewer items at once, and gives the same as if told to."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dreamhead.config import LandmarkSettings, RenderSettings
from dreamhead.errors import DeviceMemoryError
from dreamhead.faces import topology
from dreamhead.pipelines.audio_to_landmarks import AudioToLandmarks
from dreamhead.pipelines.landmarks_to_frames import LandmarksToFrames
from dreamhead.pipelines.memory import is_out_of_memory
from dreamhead.records import SpeechTrack
from tests import tiny
from tests.toy_faces import canonical_face, toy_shot

FRAMES = 7


def limited(model: Any, most: int, error: type[RuntimeError] = torch.OutOfMemoryError) -> Any:
    """A network for which a batch of more than `most` is too large; it counts how often that was so."""

    def refuse(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > most:
            model.refused = getattr(model, "refused", 0) + 1
            raise error("CUDA out of memory. ALLOC_FAILED\nand more")

    model.register_forward_pre_hook(refuse)
    return model


def rendered(model: Any, batch_size: int, strength: Any = None) -> list[Any]:
    settings = RenderSettings(precision="float32", batch_size=batch_size)
    frames, shot = toy_shot([0.1 * (n % 3) for n in range(FRAMES)], tiny.CROP_SIZE)
    target = canonical_face(0.2)[topology.lower_face()].astype(np.float32)
    pipeline = LandmarksToFrames(model, tiny.autoencoder(), settings, tiny.CROP_SIZE)
    full = np.ones(FRAMES, np.float32) if strength is None else np.array(strength, np.float32)
    return list(pipeline(frames, range(FRAMES), full, shot, np.stack([target] * FRAMES), 0))


@pytest.mark.parametrize(("asked", "fits", "smaller"), [(4, 2, 2), (4, 1, 1), (8, 3, 3), (5, 2, 2)])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_frames_are_those_of_the_smaller_batch(
    asked: int, fits: int, smaller: int, error: type[RuntimeError], caplog: pytest.LogCaptureFixture
) -> None:
    model = limited(tiny.latent_denoiser(), fits, error)
    with caplog.at_level(logging.WARNING):
        found = rendered(model, asked)
    for first, second in zip(found, rendered(tiny.latent_denoiser(), smaller), strict=True):
        np.testing.assert_array_equal(first, second)
    # It is learnt once, not at each batch.
    assert model.refused == len(caplog.records) <= 2
    assert f"rendering crops of 64x64 pixels: a batch of {min(asked, FRAMES)} doesn't fit" in caplog.text


def test_frames_that_pass_through_stay_in_their_places() -> None:
    strength = [1, 0, 1, 1, 0, 0, 1]
    found = rendered(limited(tiny.latent_denoiser(), 1), 4, strength)
    for first, second in zip(found, rendered(tiny.latent_denoiser(), 1, strength), strict=True):
        np.testing.assert_array_equal(first, second)


def test_one_frame_that_does_not_fit_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DeviceMemoryError) as caught:
        rendered(limited(tiny.latent_denoiser(), 0), 4)
    text = str(caught.value)
    assert text.startswith("rendering crops of 64x64 pixels: a batch of 1 doesn't fit, free memory unknown; ")
    assert "pools.render.num_gpus" in text
    assert "\n" not in text


def test_other_errors_pass_through() -> None:
    model = tiny.latent_denoiser()
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("a kernel failed")))
    with pytest.raises(RuntimeError, match="a kernel failed"):
        rendered(model, 4)
    assert not is_out_of_memory(RuntimeError("a kernel failed"))


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_landmarks_are_made_of_fewer_windows_at_once(fits: int) -> None:
    shapes = []
    for model in (tiny.landmark_denoiser(), limited(tiny.landmark_denoiser(), fits)):
        features = np.random.default_rng(0).standard_normal((1000, tiny.SPEECH_SIZE // 2)).astype(np.float32)
        speech = SpeechTrack(features=features, level_db=np.full(1000, -20, np.float32), start_s=0.0, rate=50.0)
        speak = AudioToLandmarks(model, LandmarkSettings(num_inference_steps=1))
        shapes.append(speak(speech, np.arange(200) / 25, canonical_face().astype(np.float32), 0))
    np.testing.assert_allclose(shapes[1], shapes[0], atol=1e-6)


def test_one_window_that_does_not_fit_is_an_error() -> None:
    speak = AudioToLandmarks(limited(tiny.landmark_denoiser(), 0), LandmarkSettings(num_inference_steps=1))
    features = np.zeros((200, tiny.SPEECH_SIZE // 2), np.float32)
    speech = SpeechTrack(features=features, level_db=np.full(200, -20, np.float32), start_s=0.0, rate=50.0)
    with pytest.raises(DeviceMemoryError, match="landmarks of windows of 64 ticks: a batch of 1 doesn't fit"):
        speak(speech, np.arange(5) / 25, canonical_face().astype(np.float32), 0)
