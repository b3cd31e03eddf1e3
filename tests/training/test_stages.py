"""Each stage's loss falls over a few steps on generated clips, and its examples are what the networks expect."""

import dataclasses
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamhead.errors import InputError
from dreamhead.faces import geometry, topology
from dreamhead.pipelines.audio_to_landmarks import TYPICAL_ARTICULATION, WINDOW
from dreamhead.training.autoencoder_stage import AutoencoderTask, edge_error, to_pictures, to_pixels
from dreamhead.training.dataset import Clip, ClipInfo, Variant, list_clips
from dreamhead.training.image_stage import ImageTask, face_of, nearest
from dreamhead.training.landmark_stage import (
    LandmarkTask,
    full_face,
    heard,
    mirror,
    mirror_lower,
    motion_of,
    point_weights,
    ticks_of,
)
from dreamhead.training.settings import AutoencoderStage, ImageStage, LandmarkStage
from tests import tiny

SIZE = tiny.CROP_SIZE
PLAIN_IMAGE = ImageStage.model_validate(
    {"augmentation": {"flip": 0, "colour": 0, "scale": 0, "blur": 0, "landmark_noise": 0}}
)
PLAIN_LANDMARKS = LandmarkStage.model_validate(
    {"augmentation": {"flip": 0, "speech_noise": 0, "speech_gain": 0, "speech_dropout": 0, "neutral_noise": 0}}
)


def autoencoder_task(**augmentation: Any) -> AutoencoderTask:
    stage = AutoencoderStage.model_validate({"augmentation": {"window": 32, **augmentation}})
    return AutoencoderTask(tiny.autoencoder(), stage)


def landmark_task(stage: LandmarkStage | None = None) -> LandmarkTask:
    return LandmarkTask(tiny.landmark_denoiser(), stage or LandmarkStage())


def image_task(stage: ImageStage | None = None) -> ImageTask:
    return ImageTask(tiny.latent_denoiser(), tiny.autoencoder(), stage or ImageStage())


def batch_of(task: Any, clips: list[Clip], seed: int = 0, size: int = 4) -> dict[str, Tensor]:
    generator = np.random.default_rng(seed)
    examples = [task.example(clips[int(generator.integers(len(clips)))], generator) for _ in range(size)]
    return {name: torch.from_numpy(np.stack([example[name] for example in examples])) for name in examples[0]}


def learn(task: Any, clips: list[Clip], steps: int = 20, rate: float = 3e-3) -> None:
    optimizer = torch.optim.AdamW(task.model.parameters(), rate)
    task.model.train()
    for step in range(steps):
        loss, _ = task.loss(batch_of(task, clips, seed=step + 1), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
        optimizer.step()
    task.model.eval()


def losses(task: Any, batch: dict[str, Tensor]) -> dict[str, float]:
    with torch.no_grad():
        total, told = task.loss(batch, torch.Generator().manual_seed(0))
    parts = {name: float(part) for name, part in told.items()}
    assert float(total) == pytest.approx(sum(parts.values()), rel=1e-5)
    return parts


def shapes(batch: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(part.shape) for name, part in batch.items()}


def test_each_stage_says_which_clips_it_can_use(shards: Path) -> None:
    first, second, _ = list_clips(str(shards), "train")
    one = dataclasses.replace(second, frames=1)
    short = dataclasses.replace(first, frames=31)

    def usable(task: Any) -> list[bool]:
        found: list[ClipInfo] = [first, second, one, short]
        return [task.usable(info) for info in found]

    assert usable(autoencoder_task()) == [True, True, True, True]
    assert usable(landmark_task()) == [True, False, False, False]
    assert usable(image_task()) == [True, True, False, True]


def test_motion_is_that_of_the_clip_as_wide_as_is_typical(toy_clips: list[Clip]) -> None:
    clip = toy_clips[0]
    motion = motion_of(clip)
    assert motion.residual.shape == (50, len(topology.lower_face()), 3)
    times_s = np.arange(50) / 25
    opening = geometry.lip_opening(clip.canonical())
    gain = clip.articulation / TYPICAL_ARTICULATION
    np.testing.assert_allclose(motion.opening(times_s) * gain, opening, atol=0.01)
    unknown = motion_of(dataclasses.replace(clip, articulation=float("nan")))
    np.testing.assert_allclose(unknown.opening(times_s), opening, atol=0.01)
    full = full_face(motion.neutral, motion.at(times_s))
    assert (full[:, topology.LEFT_EYE] == motion.neutral[list(topology.LEFT_EYE)]).all()


def test_every_variant_is_heard_where_the_lips_are(toy_clips: list[Clip]) -> None:
    clip = toy_clips[0]
    motion = motion_of(clip)
    for variant, count in zip(clip.variants, (50, 40), strict=True):
        assert ticks_of(clip, variant) == count
        times_s = np.arange(count) / 25
        said = heard(clip, variant, times_s)
        assert said.shape == (count, tiny.SPEECH_SIZE)
        assert abs(np.corrcoef(said[:, 0], motion.opening(times_s * variant.speed))[0, 1]) > 0.99


@pytest.mark.parametrize("rate", [50.0, 20.0])
def test_other_frame_rates_are_brought_to_ticks(toy_clips: list[Clip], rate: float) -> None:
    clip = dataclasses.replace(toy_clips[0], frame_rate=rate)
    count = ticks_of(clip, clip.variants[0])
    assert count == min(round(50 / rate * 25), 50)
    times_s = np.arange(count) / 25
    opening = motion_of(toy_clips[0]).opening(np.arange(50) / 25)
    found = motion_of(clip).opening(times_s)
    np.testing.assert_allclose(found, np.interp(times_s * rate, np.arange(50), opening), atol=0.015)


def test_a_motion_mirrored_twice_is_itself(toy_clips: list[Clip]) -> None:
    motion = motion_of(toy_clips[0])
    np.testing.assert_array_equal(mirror(mirror(motion.neutral)), motion.neutral)
    np.testing.assert_array_equal(mirror_lower(mirror_lower(motion.residual)), motion.residual)
    flipped = full_face(mirror(motion.neutral), mirror_lower(motion.residual))
    np.testing.assert_allclose(geometry.lip_opening(flipped), motion.opening(np.arange(50) / 25), atol=1e-6)
    left, right = topology.OUTER_LOWER_LIP[2], topology.OUTER_LOWER_LIP[-3]
    np.testing.assert_allclose(flipped[0, left], full_face(motion.neutral, motion.residual)[0, right] * [-1, 1, 1])


def test_lips_weigh_more_and_the_mean_is_one() -> None:
    weights = dict(zip(topology.lower_face().tolist(), point_weights().tolist(), strict=True))
    assert np.mean(list(weights.values())) == pytest.approx(1)
    assert weights[topology.LOWER_LIP_MIDDLE] == pytest.approx(6 * weights[topology.CHIN], rel=1e-5)


def test_the_first_stage_learns(toy_clips: list[Clip]) -> None:
    clips, task = [toy_clips[0], toy_clips[2]], landmark_task()
    assert 0.95 < task.begin(clips)["explained"] <= 1
    batch = batch_of(task, clips)
    points = len(topology.lower_face())
    assert shapes(batch) == {
        "residual": (4, WINDOW, points, 3),
        "speech": (4, WINDOW, tiny.SPEECH_SIZE),
        "neutral": (4, points, 3),
        "keep": (4,),
    }
    assert set(batch["keep"].tolist()) <= {0.0, 1.0}
    before = losses(task, batch)
    learn(task, clips, rate=1e-2)
    assert sum(losses(task, batch).values()) < 0.8 * sum(before.values())
    found = task.validate(clips)
    expected = {"correlation", "concordance", "shuffled", "lag", "jitter_ratio", "articulation_ratio"}
    assert found.figures.keys() >= expected | {"closure", "false_closure"}
    assert -1 <= found.figures["correlation"] <= 1
    (picture,) = found.pictures.values()
    assert picture.dtype == np.uint8
    assert picture.std() > 1
    assert task.validate(clips).figures == pytest.approx(found.figures, rel=0, abs=0, nan_ok=True)


def test_windows_that_are_not_changed_are_the_clips(toy_clips: list[Clip]) -> None:
    task, clip = landmark_task(PLAIN_LANDMARKS), toy_clips[0]
    motion = motion_of(clip)
    drawn = task.example(dataclasses.replace(clip, variants=clip.variants[:1]), np.random.default_rng(1))
    np.testing.assert_array_equal(drawn["neutral"], motion.neutral[topology.lower_face()])
    assert drawn["keep"] == 1
    starts = range(-WINDOW // 4, 51)
    held = [np.clip(np.arange(start, start + WINDOW), 0, 49) for start in starts]
    matches = [
        start for start, place in zip(starts, held, strict=True) if (drawn["residual"] == motion.residual[place]).all()
    ]
    assert len(matches) == 1
    place = np.arange(matches[0], matches[0] + WINDOW)
    assert (drawn["speech"][(place < 0) | (place > 49)] == 0).all()
    spoken = drawn["speech"][(place >= 0) & (place <= 49)]
    assert (spoken[:, 0] != 0).mean() > 0.9


def test_faster_speech_moves_the_mouth_faster(toy_clips: list[Clip]) -> None:
    clip = toy_clips[0]
    long = np.concatenate([clip.landmarks] * 3), np.concatenate([clip.transforms] * 3)
    frozen = Variant(speed=2.0, features=np.ones((400, tiny.SPEECH_SIZE // 2), np.float32))
    fast = dataclasses.replace(clip, landmarks=long[0], transforms=long[1], variants=[frozen])
    task = landmark_task(PLAIN_LANDMARKS)
    drawn = task.example(fast, np.random.default_rng(0))["residual"]
    step = np.abs(np.diff(drawn, axis=0)).max(axis=(1, 2))
    usual = np.abs(np.diff(motion_of(fast).residual[:50], axis=0)).max(axis=(1, 2))
    assert np.median(step[step > 0]) > 1.6 * np.median(usual)


def test_the_first_stage_wants_speech() -> None:
    with pytest.raises(InputError, match="no training clip has speech and half a window of frames"):
        landmark_task().begin([])


def test_the_second_stage_learns(toy_clips: list[Clip]) -> None:
    task = image_task()
    batch = batch_of(task, toy_clips)
    rows = SIZE * 3 // 4
    assert shapes(batch) == {
        "target": (4, rows, SIZE, 3),
        "warped": (4, 3, rows, SIZE),
        "mask": (4, 1, rows, SIZE),
        "mouth": (4, 1, rows, SIZE),
        "guides": (4, 8, rows, SIZE),
    }
    outside = (batch["mask"] == 0).expand_as(batch["warped"])
    torch.testing.assert_close(batch["warped"][outside], to_pixels(batch["target"])[outside])
    frozen = {name: part.clone() for name, part in task._autoencoder.state_dict().items()}
    before = losses(task, batch)
    learn(task, toy_clips, steps=200, rate=1e-3)
    after = losses(task, batch)
    assert set(after) == {"latent", "pixel", "trust"}
    assert after["latent"] < 0.5 * before["latent"]
    # The toy autoencoder's pictures are noise: what there is to learn is to trust them less.
    assert after["trust"] < before["trust"]
    assert all(torch.equal(part, frozen[name]) for name, part in task._autoencoder.state_dict().items())
    found = task.validate(toy_clips)
    assert found.figures["gain"] == pytest.approx(found.figures["mouth_psnr"] - found.figures["single_warp_psnr"])
    (picture,) = found.pictures.values()
    assert picture.shape == (3 * SIZE, 3 * SIZE, 3)
    assert task.validate(toy_clips).figures == found.figures


def test_examples_that_are_not_changed_are_the_clips(toy_clips: list[Clip]) -> None:
    task, clip = image_task(PLAIN_IMAGE), toy_clips[1]
    drawn = task.example(clip, np.random.default_rng(0))
    rows = slice(SIZE // 4, SIZE)
    # JPEG pictures that nothing changed come through a map that moves nothing.
    assert any((drawn["target"] == clip.crop(frame)[rows]).all() for frame in range(12))
    changed = image_task().example(clip, np.random.default_rng(0))
    assert not any((changed["target"] == clip.crop(frame)[rows]).all() for frame in range(12))


def test_references_keep_away_and_the_nearest_comes_first(toy_clips: list[Clip]) -> None:
    task, face = image_task(), face_of(toy_clips[0])
    for seed in range(20):
        chosen = task._references(face, 20, np.random.default_rng(seed))
        assert 1 <= len(chosen) <= 3
        assert (np.abs(chosen - 20) >= 10).all()
        distance = np.linalg.norm(face.lips[chosen] - face.lips[20], axis=1)
        assert (np.diff(distance) >= 0).all()
    assert nearest(face, 20, np.arange(50))[0] == 20


def test_faces_know_every_frame(toy_clips: list[Clip]) -> None:
    face = face_of(toy_clips[1])
    assert face.landmarks.shape == (12, 478, 3)
    mask = face.mask(11)
    assert mask.shape == (SIZE, SIZE)
    assert (mask.min(), mask.max()) == (0, 1)


def test_clips_that_are_let_go_are_forgotten(toy_clips: list[Clip]) -> None:
    clip = dataclasses.replace(toy_clips[0])
    tasks = [image_task(), landmark_task()]
    for task in tasks:
        task.example(clip, np.random.default_rng(0))
    gone = weakref.ref(clip)
    del clip
    gc.collect()
    assert gone() is None


def test_the_autoencoder_learns_and_its_latents_are_whitened(toy_clips: list[Clip]) -> None:
    task = autoencoder_task()
    batch = batch_of(task, toy_clips)
    assert shapes(batch) == {"pixels": (4, 32, 32, 3)}
    assert batch["pixels"].dtype == torch.uint8
    before = losses(task, batch)
    learn(task, toy_clips)
    assert sum(losses(task, batch).values()) < 0.9 * sum(before.values())
    task.finish(toy_clips * 8)
    generator = np.random.default_rng(1)
    pictures = np.stack([clip.crop(int(frame)) for clip in toy_clips for frame in generator.integers(12, size=24)])
    with torch.no_grad():
        latents = task.model.encode(to_pixels(torch.from_numpy(pictures)))
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.2, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=0.2, rtol=0)
    found = task.validate(toy_clips)
    assert found.figures["worst_psnr"] <= found.figures["psnr"] < 40
    assert found.pictures["pictures and what became of them"].shape == (3 * SIZE, 2 * SIZE, 3)
    with pytest.raises(InputError, match="no training clip has pictures"):
        task.finish([])


def test_pictures_survive_the_way_to_pixels_and_back() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(to_pictures(to_pixels(torch.from_numpy(pictures))), pictures)


def test_edges_count_and_a_constant_does_not() -> None:
    flat, step = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    step[..., 4:] = 1
    assert float(edge_error(flat + 0.5, flat)) == 0
    assert float(edge_error(step, flat)) == pytest.approx(1 / 7)
