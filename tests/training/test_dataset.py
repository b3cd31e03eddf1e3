"""Clips are read back as they were written, or refused by the name of what is wrong."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamhead.errors import InputError
from dreamhead.faces import geometry
from dreamhead.faces.crop import extract
from dreamhead.training.dataset import CLIP_SCHEMA, Clip, list_clips, read_clip, write_clips
from tests.toy_faces import texture


def test_what_is_written_is_read(shards: Path, toy_clips: list[Clip]) -> None:
    assert [clip.clip_id for clip in toy_clips] == ["first", "second", "third"]
    first, second, _ = toy_clips
    (row,) = (r for r in pq.read_table(shards / "train/a.parquet").to_pylist() if r["clip_id"] == "first")
    assert first.landmarks.tobytes() == row["landmarks"]
    assert first.landmarks.shape == (50, 478, 3)
    assert first.transforms.tobytes() == row["transforms"]
    assert first.transforms.shape == (50, 2, 3)
    assert first.neutral.tobytes() == row["neutral"]
    assert first.crops == row["crops"]
    assert [variant.speed for variant in first.variants] == [1, 1.25]
    assert [variant.features.shape for variant in first.variants] == [(100, 80), (80, 80)]
    assert first.variants[1].features.astype(np.float16).tobytes() == row["features"][1]["data"]
    assert second.variants == []
    assert (first.speaker, first.frame_rate, first.feature_rate, first.crop_size) == ("speaker 0", 25, 50, 64)
    assert first.articulation == pytest.approx(0.3, abs=0.01)


def test_a_list_tells_without_reading_the_clips(shards: Path) -> None:
    infos = list_clips(str(shards), "train")
    assert [(info.clip_id, info.row, info.frames, info.spoken) for info in infos] == [
        ("first", 0, 50, True),
        ("second", 1, 12, False),
        ("third", 0, 50, True),
    ]
    assert {(info.crop_size, info.speech_encoder, info.feature_size) for info in infos} == {(64, "log_mel", 80)}
    assert [info.clip_id for info in list_clips(str(shards), "validation")] == ["fourth"]


def test_crops_are_decoded_in_rgb(toy_clips: list[Clip]) -> None:
    crop = toy_clips[0].crop(3)
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8
    picture = np.roll(texture(160, 200, 0), round(20 * 0.15 * (1 + np.sin(1))), axis=0)
    cut_out = extract(picture, toy_clips[0].transforms[3], 64).astype(int)
    assert np.abs(crop - cut_out).mean() < 4
    assert np.abs(crop - cut_out[..., ::-1]).mean() > 20


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_a_damaged_crop_is_named(toy_clips: list[Clip], data: bytes) -> None:
    damaged = dataclasses.replace(toy_clips[0], crops=[data])
    with pytest.raises(InputError, match="clip first: crop 0 is not a readable picture"):
        damaged.crop(0)


def test_canonical_shapes_have_lost_the_pose(toy_clips: list[Clip]) -> None:
    canonical = toy_clips[0].canonical()
    assert np.abs(canonical[:, geometry.topology.RIGID] - canonical[0, geometry.topology.RIGID]).max() < 1e-3
    expected = 0.15 * (1 + np.sin(np.arange(50) / 3))
    np.testing.assert_allclose(geometry.lip_opening(canonical), expected, atol=5e-3)


def test_a_data_set_without_shards_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train: no \*.parquet shards; ray_jobs/prepare_dataset.py writes them"):
        list_clips(str(tmp_path), "train")


def rewritten(shards: Path, folder: Path, **changes: Any) -> str:
    """A data set whose only row is another in some columns."""
    (row,) = pq.read_table(shards / "train/b.parquet").to_pylist()
    write_clips(str(folder / "train/bad.parquet"), [{**row, **changes}])
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 51}, r"bad\.parquet: row 0: crops: 50 pictures for 51 frames"),
        ({"landmarks": b"1234"}, r"row 0: landmarks: 4 bytes aren't float32 of shape \(50, 478, 3\)"),
        ({"neutral": b""}, r"row 0: neutral: 0 bytes aren't float32 of shape \(478, 3\)"),
        ({"feature_size": 33}, r"row 0: features: 16000 bytes aren't float16 of shape \(-1, 33\)"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(
    shards: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (info,) = list_clips(rewritten(shards, tmp_path, **changes), "train")
    with pytest.raises(InputError, match=message):
        read_clip(info)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_clips(str(folder), "train")


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    pq.write_table(pa.table({"clip_id": ["a"], "speaker": ["b"]}), tmp_path / "train/a.parquet")
    refused(tmp_path, r"a\.parquet: not a shard of clips: column source_uri is missing")


def test_columns_of_another_type_are_refused(tmp_path: Path, shards: Path) -> None:
    table = pq.read_table(shards / "train/b.parquet")
    place = CLIP_SCHEMA.get_field_index("frame_rate")
    (tmp_path / "train").mkdir()
    pq.write_table(
        table.cast(CLIP_SCHEMA.set(place, pa.field("frame_rate", pa.float32()))), tmp_path / "train/b.parquet"
    )
    refused(tmp_path, r"b\.parquet: not a shard of clips: column frame_rate is float, expected double")


def test_clips_that_share_a_row_group_are_refused(tmp_path: Path, shards: Path) -> None:
    (tmp_path / "train").mkdir()
    pq.write_table(pq.read_table(shards / "train/a.parquet"), tmp_path / "train/a.parquet")
    refused(tmp_path, r"a\.parquet: 2 clips in 1 row groups; allowed: one in each")


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.parquet").write_bytes(b"hello")
    refused(tmp_path, r"a\.parquet: not a readable shard")
