"""Each stage's loss falls over a few steps on a generated clip, and its batches are what the networks expect."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamhead.errors import InputError
from dreamhead.faces import geometry, topology
from dreamhead.pipelines.audio_to_landmarks import WINDOW
from dreamhead.training.autoencoder_stage import AutoencoderTask, edge_error, to_tensor
from dreamhead.training.dataset import Clip
from dreamhead.training.image_stage import ImageTask, face_of
from dreamhead.training.landmark_stage import LandmarkTask, full_face, motion_of, opening_of, point_weights
from dreamhead.training.loop import LoopSettings, train
from tests import tiny

SIZE = tiny.CROP_SIZE


def losses(task: Any, folder: Path, steps: int = 20, rate: float = 3e-3) -> list[float]:
    settings = LoopSettings(steps=steps, learning_rate=rate, warmup_steps=2, log_every=steps // 4, save_every=steps)
    train(task, settings, folder)
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_motion_is_that_of_the_clip(toy_clips: list[Clip]) -> None:
    motion = motion_of(toy_clips[0])
    assert motion.residual.shape == (50, len(topology.lower_face()), 3)
    assert motion.speech.shape == (2, 50, tiny.SPEECH_SIZE)
    np.testing.assert_allclose(opening_of(motion), geometry.lip_opening(toy_clips[0].canonical()), atol=0.01)
    heard = motion.speech[0, :, 0]
    assert abs(np.corrcoef(heard, opening_of(motion))[0, 1]) > 0.99
    shapes = full_face(motion.neutral, motion.residual)
    assert (shapes[:, topology.LEFT_EYE] == motion.neutral[list(topology.LEFT_EYE)]).all()


def test_speech_that_comes_late_is_moved_to_the_lips(toy_clips: list[Clip]) -> None:
    clip = toy_clips[0]
    late = np.concatenate([np.zeros_like(clip.features[:, :5]), clip.features], axis=1)
    moved = motion_of(dataclasses.replace(clip, features=late, speech_lag_s=0.1))
    np.testing.assert_allclose(moved.speech, motion_of(clip).speech, atol=1e-5)


@pytest.mark.parametrize("rate", [50.0, 20.0])
def test_other_frame_rates_are_brought_to_ticks(toy_clips: list[Clip], rate: float) -> None:
    clip = toy_clips[0]
    motion = motion_of(dataclasses.replace(clip, frame_rate=rate))
    assert len(motion.residual) == min(round(50 / rate * 25), 50)
    opening = geometry.lip_opening(clip.canonical())
    ticks = np.arange(len(motion.residual)) / 25 * rate
    np.testing.assert_allclose(opening_of(motion), np.interp(ticks, np.arange(50), opening), atol=0.015)


def test_a_motion_mirrored_twice_is_itself(toy_clips: list[Clip]) -> None:
    motion = motion_of(toy_clips[0])
    once = motion.mirrored()
    twice = once.mirrored()
    np.testing.assert_array_equal(twice.neutral, motion.neutral)
    np.testing.assert_array_equal(twice.residual, motion.residual)
    assert once.speech is motion.speech
    np.testing.assert_allclose(opening_of(once), opening_of(motion), atol=1e-6)
    left, right = topology.OUTER_LOWER_LIP[2], topology.OUTER_LOWER_LIP[-3]
    np.testing.assert_allclose(once.neutral[left], motion.neutral[right] * [-1, 1, 1], atol=1e-7)


def test_lips_weigh_more_and_the_mean_is_one() -> None:
    weights = dict(zip(topology.lower_face().tolist(), point_weights().tolist(), strict=True))
    assert np.mean(list(weights.values())) == pytest.approx(1)
    assert weights[topology.LOWER_LIP_MIDDLE] == pytest.approx(6 * weights[topology.CHIN], rel=1e-5)


def test_the_first_stage_learns(toy_clips: list[Clip], tmp_path: Path) -> None:
    task = LandmarkTask(tiny.landmark_denoiser(), toy_clips, 4)
    assert 0.95 < task.prepare()["explained"] <= 1
    batch = task.draw(np.random.default_rng(0))
    points = len(topology.lower_face())
    assert {name: tuple(part.shape) for name, part in batch.items()} == {
        "residual": (4, WINDOW, points, 3),
        "speech": (4, WINDOW, tiny.SPEECH_SIZE),
        "neutral": (4, points, 3),
        "keep": (4,),
    }
    assert set(batch["keep"].tolist()) <= {0.0, 1.0}
    seen = losses(task, tmp_path, rate=1e-2)
    assert seen[-1] < 0.8 * seen[0]


def test_the_first_stage_wants_speech(toy_clips: list[Clip]) -> None:
    with pytest.raises(InputError, match="no training clip has speech and half a window of frames"):
        LandmarkTask(tiny.landmark_denoiser(), toy_clips[1:2], 4)


def test_a_clip_of_one_frame_is_no_accident(toy_clips: list[Clip]) -> None:
    clip = toy_clips[0]
    one = dataclasses.replace(clip, landmarks=clip.landmarks[:1], transforms=clip.transforms[:1], crops=clip.crops[:1])
    assert len(motion_of(one).residual) == 1
    assert len(LandmarkTask(tiny.landmark_denoiser(), [one, clip], 4).draw(np.random.default_rng(0))["keep"]) == 4
    with pytest.raises(InputError, match="no training clip has two frames"):
        ImageTask(tiny.latent_denoiser(), tiny.autoencoder(), [one], 2, SIZE)


def test_the_second_stage_learns(toy_clips: list[Clip], tmp_path: Path) -> None:
    task = ImageTask(tiny.latent_denoiser(), tiny.autoencoder(), toy_clips, 4, SIZE)
    batch = task.draw(np.random.default_rng(0))
    rows = SIZE * 3 // 4
    assert {name: tuple(part.shape) for name, part in batch.items()} == {
        "target": (4, 3, rows, SIZE),
        "warped": (4, 3, rows, SIZE),
        "mask": (4, 1, rows, SIZE),
        "mouth": (4, 1, rows, SIZE),
        "guides": (4, 8, rows, SIZE),
    }
    outside = (batch["mask"] == 0).expand_as(batch["target"])
    torch.testing.assert_close(batch["warped"][outside], batch["target"][outside])
    frozen = {name: part.clone() for name, part in task._autoencoder.state_dict().items()}
    before = task.loss(batch, torch.Generator().manual_seed(0))[1]
    losses(task, tmp_path)
    after = task.loss(batch, torch.Generator().manual_seed(0))[1]
    assert set(after) == {"latent", "pixel", "trust"}
    assert after["latent"] < 0.9 * before["latent"]
    # The toy autoencoder's pictures are noise: what there is to learn is to trust them less.
    assert after["trust"] < before["trust"]
    assert all(torch.equal(part, frozen[name]) for name, part in task._autoencoder.state_dict().items())


def test_faces_are_prepared_for_every_frame(toy_clips: list[Clip]) -> None:
    face = face_of(toy_clips[1], SIZE)
    assert face.landmarks.shape == (12, 478, 3)
    assert [mask.shape for mask in face.masks] == [(SIZE, SIZE)] * 12
    assert face.masks[0].dtype == np.uint8
    assert face.masks[0].max() == 255


def test_the_autoencoder_learns_and_its_latents_are_whitened(toy_clips: list[Clip], tmp_path: Path) -> None:
    task = AutoencoderTask(tiny.autoencoder(), toy_clips, 4, 32)
    batch = task.draw(np.random.default_rng(0))
    assert batch["pixels"].shape == (4, 3, 32, 32)
    assert batch["pixels"].abs().max() <= 1
    seen = losses(task, tmp_path)
    assert seen[-1] < 0.9 * seen[0]
    task.fit_statistics(np.random.default_rng(0))
    generator = np.random.default_rng(1)
    pictures = np.stack([task._picture(generator) for _ in range(64)])
    with torch.no_grad():
        latents = task.model.encode(to_tensor(pictures))
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.2, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=0.2, rtol=0)


def test_edges_count_and_a_constant_does_not() -> None:
    flat, step = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    step[..., 4:] = 1
    assert float(edge_error(flat + 0.5, flat)) == 0
    assert float(edge_error(step, flat)) == pytest.approx(1 / 7)
