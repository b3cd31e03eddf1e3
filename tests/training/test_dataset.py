"""Clips are read back as they were written, or refused by the name of what is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamhead.errors import InputError
from dreamhead.faces import geometry
from dreamhead.faces.crop import extract
from dreamhead.training.dataset import CLIP_SCHEMA, Clip, read_clips
from tests.toy_faces import texture


def test_what_is_written_is_read(shards: Path, toy_clips: list[Clip]) -> None:
    assert [clip.clip_id for clip in toy_clips] == ["first", "second", "third"]
    first, second, _ = toy_clips
    (row,) = (r for r in pq.read_table(shards / "a.parquet").to_pylist() if r["clip_id"] == "first")
    assert first.landmarks.tobytes() == row["landmarks"]
    assert first.landmarks.shape == (50, 478, 3)
    assert first.transforms.tobytes() == row["transforms"]
    assert first.transforms.shape == (50, 2, 3)
    assert first.crops == row["crops"]
    assert first.features.shape == (2, 100, 80)
    assert first.features.dtype == np.float32
    assert first.features[1].astype(np.float16).tobytes() == row["features"][1]
    assert second.features.shape == (0, 0, 80)
    assert (first.speaker, first.frame_rate, first.feature_rate, first.speech_lag_s) == ("speaker 0", 25, 50, 0)


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
    clip = toy_clips[0]
    damaged = Clip(**{**vars(clip), "crops": [data]})
    with pytest.raises(InputError, match="clip first: crop 0 is not a readable picture"):
        damaged.crop(0)


def test_canonical_shapes_have_lost_the_pose(toy_clips: list[Clip]) -> None:
    canonical = toy_clips[0].canonical()
    assert np.abs(canonical[:, geometry.topology.RIGID] - canonical[0, geometry.topology.RIGID]).max() < 1e-3
    expected = 0.15 * (1 + np.sin(np.arange(50) / 3))
    np.testing.assert_allclose(geometry.lip_opening(canonical), expected, atol=5e-3)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \*.parquet shards"):
        read_clips(tmp_path)


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"clip_id": ["a"], "speaker": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match=r"a\.parquet: not a shard of clips; missing or of another type: .*'landmarks'"
    ):
        read_clips(tmp_path)


def test_columns_of_another_type_are_refused(tmp_path: Path, shards: Path) -> None:
    table = pq.read_table(shards / "b.parquet")
    schema = CLIP_SCHEMA.set(2, pa.field("frame_rate", pa.float32()))
    pq.write_table(table.cast(schema), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: not a shard of clips"):
        read_clips(tmp_path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"a\.parquet: not a readable shard"):
        read_clips(tmp_path)
