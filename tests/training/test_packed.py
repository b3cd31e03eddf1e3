"""A packed data set gives back the clips it was made from, and says what is wrong when it can't."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.errors import InputError
from dreamhead.faces.crop import apply_transform
from dreamhead.training import picture_cache
from dreamhead.training.dataset import Clip, ClipInfo, list_clips, read_clip, write_clips
from dreamhead.training.packed import from_points, to_points
from dreamhead.training.packing import Packed, PackedClip, Packing, fitting, pack, thinned
from dreamhead.training.picture_video import encode_pictures
from dreamhead.training.settings import AUTOENCODER, IMAGE, LANDMARKS
from tests import tiny
from tests.training.conftest import clip_row

SIZE = tiny.CROP_SIZE


def packing(*stages: str, **changes: Any) -> Packing:
    usual: dict[str, Any] = {"crf": 16, "picture_step": 1, "variants": 2, "budget_bytes": 10**8}
    return Packing(stages=stages or (IMAGE, LANDMARKS), **{**usual, **changes})


def pack_quietly(shards: Path, folder: Path, how: Packing) -> Packed:
    return pack(str(shards), folder, how, lambda line: None)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded pictures of a test are its own."""
    monkeypatch.setattr(picture_cache, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All clips of the toy data set, for all stages."""
    folder = tmp_path_factory.mktemp("packed")
    pack_quietly(shards, folder, packing())
    return folder


def clips_of(folder: Path, split: str = "train") -> list[Clip]:
    return [read_clip(info) for info in list_clips(str(folder), split)]


def in_crop(clip: Clip) -> NDArray[np.float32]:
    pairs = zip(clip.transforms, clip.landmarks, strict=True)
    return np.stack([apply_transform(transform, points) for transform, points in pairs])


def psnr(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(np.float64) - second) ** 2)))


def test_clips_come_back(shards: Path, whole: Path) -> None:
    assert [replace(info, shard_uri="", row=0, is_packed=False) for info in list_clips(str(whole), "train")] == [
        replace(info, shard_uri="", row=0) for info in list_clips(str(shards), "train")
    ]
    for clip, again in zip(clips_of(shards), clips_of(whole), strict=True):
        assert np.abs(in_crop(again) - in_crop(clip)).max() < 0.05
        np.testing.assert_array_equal(again.transforms, clip.transforms)
        np.testing.assert_array_equal(again.neutral, clip.neutral)
        assert (again.articulation, again.frame_rate) == (clip.articulation, clip.frame_rate)
        assert [variant.speed for variant in again.variants] == [variant.speed for variant in clip.variants]
        for heard, variant in zip(again.variants, clip.variants, strict=True):
            np.testing.assert_array_equal(heard.features, variant.features)


def test_pictures_come_back_in_their_order(shards: Path, whole: Path) -> None:
    for split in ("train", "validation"):
        for clip, again in zip(clips_of(shards, split), clips_of(whole, split), strict=True):
            assert len(again.crops) == len(clip.crops)
            pairs = [(again.crop(frame), clip.crop(frame)) for frame in range(len(clip.crops))]
            assert min(psnr(found, true) for found, true in pairs) > 30
            assert again.crop(0).dtype == np.uint8
            with pytest.raises(ValueError, match="read-only"):
                again.crop(0)[0, 0, 0] = 1


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 120, 90), (60, 60, 200)])
def test_colours_do_not_shift(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    picture = np.full((SIZE, SIZE, 3), colour, np.uint8)
    (tmp_path / "a.mp4").write_bytes(encode_pictures([picture] * 3, 16, "here"))
    found = list(picture_cache._frames(tmp_path / "a.mp4"))
    assert len(found) == 3
    for decoded in found:
        assert np.abs(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(int) - colour).max() <= 2


def test_the_mean_colour_stays(shards: Path, whole: Path) -> None:
    for clip, again in zip(clips_of(shards), clips_of(whole), strict=True):
        shift = np.mean([again.crop(t).astype(float) - clip.crop(t) for t in range(len(clip.crops))], axis=(0, 1, 2))
        assert np.abs(shift).max() < 1


def test_pictures_are_thinned_and_motion_is_not(shards: Path, tmp_path: Path) -> None:
    pack_quietly(shards, tmp_path, packing(picture_step=2))
    infos = list_clips(str(tmp_path), "train")
    told = [(info.clip_id, info.frames, info.frame_rate, info.spoken, info.has_pictures) for info in infos]
    assert told == [
        ("first", 25, 12.5, False, True),
        ("first", 50, 25.0, True, False),
        ("second", 6, 12.5, False, True),
        ("third", 25, 12.5, False, True),
        ("third", 50, 25.0, True, False),
    ]
    clips, originals = clips_of(tmp_path), clips_of(shards)
    assert np.abs(in_crop(clips[0]) - in_crop(originals[0])[::2]).max() < 0.05
    assert np.abs(in_crop(clips[1]) - in_crop(originals[0])).max() < 0.05
    assert psnr(clips[0].crop(20), originals[0].crop(40)) > 30
    assert (len(clips[0].variants), len(clips[1].variants), len(clips[1].crops)) == (0, 2, 0)


def test_only_what_the_stages_need_is_packed(shards: Path, tmp_path: Path) -> None:
    pack_quietly(shards, tmp_path / "spoken", packing(LANDMARKS, variants=1))
    assert [info.clip_id for info in list_clips(str(tmp_path / "spoken"), "train")] == ["first", "third"]
    assert [len(clip.variants) for clip in clips_of(tmp_path / "spoken")] == [1, 1]
    assert not (tmp_path / "spoken/pictures").exists()
    pack_quietly(shards, tmp_path / "seen", packing(AUTOENCODER))
    infos = list_clips(str(tmp_path / "seen"), "train")
    assert [(info.clip_id, info.spoken, info.has_pictures) for info in infos] == [
        ("first", False, True),
        ("second", False, True),
        ("third", False, True),
    ]


def test_landmarks_far_outside_are_refused() -> None:
    transforms = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
    points = np.full((2, 478, 3), 2000, np.float32)
    moved = to_points(points * [[[1]], [[-0.9]]], transforms, SIZE)
    np.testing.assert_allclose(from_points(moved, transforms, SIZE), points * [[[1]], [[-0.9]]], atol=0.05)
    with pytest.raises(InputError, match=r"landmarks lie 3000 pixels from the crop's middle; allowed: below 2048"):
        to_points(points * 1.5, transforms, SIZE)


def sized(speaker: str, number: int, size: int) -> PackedClip:
    info = ClipInfo(
        shard_uri="",
        row=number,
        clip_id=f"{speaker}{number}",
        speaker=speaker,
        frames=100,
        frame_rate=25.0,
        crop_size=SIZE,
        spoken=False,
        speech_encoder="",
        feature_size=0,
    )
    return PackedClip(info=info, split="train", rows=[], video=b"x" * (size - 2000))


def test_what_does_not_fit_is_left_out_evenly_over_speakers() -> None:
    clips = [sized("a", number, 10_000) for number in range(6)] + [sized("b", number, 10_000) for number in range(2)]
    assert [clip.info.clip_id for clip in fitting(clips, 45_000)] == ["a0", "a1", "b0", "b1"]
    assert [clip.info.clip_id for clip in fitting(clips, 65_000)] == ["a0", "a1", "a2", "a3", "b0", "b1"]
    assert fitting(clips, 10**9) == clips
    assert fitting(clips, 100) == []


def test_a_packed_folder_keeps_to_its_budget(shards: Path, tmp_path: Path) -> None:
    everything = pack_quietly(shards, tmp_path / "all", packing())
    whole = sum(path.stat().st_size for path in (tmp_path / "all").rglob("*.*"))
    assert whole <= sum(clip.bytes for clip in everything.kept)
    half = pack_quietly(shards, tmp_path / "half", packing(budget_bytes=whole // 2))
    assert sum(path.stat().st_size for path in (tmp_path / "half").rglob("*.*")) <= whole // 2
    assert half.left_out
    assert len(half.kept) + len(half.left_out) == 4
    for split in half.index.splits:
        assert len(clips_of(tmp_path / "half", split)) == sum(clip.split == split for clip in half.kept)


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / "copy"))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clips_of(folder)


def test_damage_is_told_with_its_file(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path)
    part = folder / "pictures/train-000.mp4"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    refused(folder, r"pictures/train-000\.mp4: damaged: its SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_damaged_numbers_are_told(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path)
    rows = folder / "train.parquet"
    data = bytearray(rows.read_bytes())
    data[len(data) // 2] ^= 1
    rows.write_bytes(data)
    refused(folder, r"train\.parquet")
    rows.write_bytes(data[:1000])
    refused(folder, r"train\.parquet: not readable packed clips")


def test_what_is_missing_is_told(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path)
    with pytest.raises(InputError, match=r"test\.parquet: no such split; packed\.json names \['train', 'validation'\]"):
        list_clips(str(folder), "test")
    index = folder / "packed.json"
    text = index.read_text()
    index.write_text(text.replace('"form": 1', '"form": 7'))
    refused(folder, r"packed\.json: form 7; this version reads form 1: pack the data again")
    index.write_text(text.replace('"sha256"', '"sha"'))
    refused(folder, r"packed\.json: not the index of a packed data set")
    index.write_text(text.replace("train-000", "train-007"))
    (folder / "pictures/train-000.mp4").rename(folder / "pictures/train-007.mp4")
    refused(folder, r"train\.parquet: row 0: pictures 0 to 50 of pictures/train-000\.mp4; packed\.json knows 0 there")


def test_pictures_are_decoded_once(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(whole, tmp_path)
    first = clips_of(folder)[0].crop(3).copy()
    for part in (folder / "pictures").iterdir():
        part.unlink()
    monkeypatch.setattr(picture_cache, "_write", None)
    np.testing.assert_array_equal(clips_of(copied(folder, tmp_path / "other"))[0].crop(3), first)


def test_thinning_keeps_first_frames(toy_clips: list[Clip]) -> None:
    clip = thinned(toy_clips[0], 3)
    assert (clip.frame_rate, len(clip.crops), len(clip.landmarks), len(clip.transforms)) == (25 / 3, 17, 17, 17)
    np.testing.assert_array_equal(clip.crop(1), toy_clips[0].crop(3))


def test_data_that_serves_nothing_is_refused(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_clips(str(tmp_path / split / "a.parquet"), [clip_row("mute", 1, speeds=(), frames=3)])
    with pytest.raises(InputError, match="no clip serves audio_to_landmark"):
        pack_quietly(tmp_path, tmp_path / "packed", packing(LANDMARKS))
