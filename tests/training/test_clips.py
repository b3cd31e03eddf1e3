"""Examples follow from numbers alone: the same for any number of workers, at any step, in any order."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamhead.errors import InputError
from dreamhead.training import clips as clips_module
from dreamhead.training.clips import Batch, ClipPool, StepBatches, step_batches
from dreamhead.training.dataset import ClipInfo, list_clips, write_clips
from tests.training.lines import SETTINGS, LineTask, bare_row, write_bare_data


@pytest.fixture
def infos(tmp_path: Path) -> list[ClipInfo]:
    """Five clips c0 to c4 with 1 to 5 frames."""
    return list_clips(write_bare_data(tmp_path), "train")


def batches(infos: list[ClipInfo], rank: int = 0, size: int = 1, seed: int = 3, resident: int = 9) -> StepBatches:
    return StepBatches(LineTask(), ClipPool(infos, resident, 2, seed), 6, seed, rank, size)


def batch(source: StepBatches, step: int) -> Batch:
    found = source[step]
    assert isinstance(found, Batch)
    return found


@pytest.mark.parametrize("resident", [3, 9])
def test_two_workers_draw_together_what_one_draws_alone(infos: list[ClipInfo], resident: int) -> None:
    for step in (0, 1, 7):
        alone = batch(batches(infos, resident=resident), step)
        parts = [batch(batches(infos, rank, 2, resident=resident), step) for rank in (0, 1)]
        for rank, part in enumerate(parts):
            assert torch.equal(part.examples["x"], alone.examples["x"][rank::2])
            assert part.clips == alone.clips[rank::2]


def test_a_step_is_the_same_whenever_it_comes_and_unlike_others(infos: list[ClipInfo]) -> None:
    source = batches(infos, resident=2)
    first = [batch(source, step).examples["x"] for step in (5, 6, 5)]
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[0], batch(batches(infos, resident=2), 5).examples["x"])
    assert not torch.equal(first[0], batch(batches(infos, seed=4, resident=2), 5).examples["x"])


def test_residents_move_on_by_one_and_come_round(infos: list[ClipInfo]) -> None:
    pool = ClipPool(infos, 3, 2, seed=1)
    windows = [pool.resident(step) for step in range(12)]
    assert all(len(set(window)) == 3 for window in windows)
    assert all(windows[step] == windows[step + 1] for step in range(0, 10, 2))
    assert all(windows[step][1:] == windows[step + 2][:2] for step in range(10))
    assert set().union(*windows) == set(range(5))
    assert windows[10] == windows[0]


def test_all_clips_are_resident_where_they_fit(infos: list[ClipInfo]) -> None:
    pool = ClipPool(infos, 5, 1, seed=1)
    assert sorted(pool.resident(0)) == [0, 1, 2, 3, 4]
    assert pool.resident(0) == pool.resident(17)


def test_clips_are_drawn_in_proportion_to_their_frames(infos: list[ClipInfo]) -> None:
    pool, generator = ClipPool(infos, 9, 1, seed=1), np.random.default_rng(0)
    counts = Counter(pool.draw(0, generator).clip_id for _ in range(3000))
    shares = [counts[f"c{number}"] / 3000 for number in range(5)]
    np.testing.assert_allclose(shares, np.arange(1, 6) / 15, atol=0.03)


def test_a_clip_is_read_once_and_let_go(infos: list[ClipInfo], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = clips_module.read_clip

    def counting(info: ClipInfo):  # type: ignore[no-untyped-def]
        read.append(info.clip_id)
        return original(info)

    monkeypatch.setattr(clips_module, "read_clip", counting)
    pool, generator = ClipPool(infos, 2, 1, seed=1), np.random.default_rng(0)
    for _ in range(50):
        pool.draw(0, generator)
    assert len(read) == 2
    for step in range(1, 40):
        pool.draw(step, generator)
        assert set(pool._held) <= set(pool.resident(step))


def test_other_processes_draw_the_same(infos: list[ClipInfo]) -> None:
    def drawn(data_workers: int) -> list[Batch]:
        settings = SETTINGS.model_copy(update={"data_workers": data_workers})
        pool = ClipPool(infos, 2, 1, seed=3)
        return list(step_batches(LineTask(), pool, settings, range(2, 6), 0, 1, pin_memory=False))  # type: ignore

    for here, there in zip(drawn(0), drawn(1), strict=True):
        assert torch.equal(here.examples["y"], there.examples["y"])
        assert here.clips == there.clips


def test_a_bad_clip_comes_as_the_error_that_it_is(tmp_path: Path) -> None:
    write_clips(str(tmp_path / "train/a.parquet"), [bare_row("short", 4, landmarks=b"12345678")])
    pool = ClipPool(list_clips(str(tmp_path), "train"), 1, 1, seed=0)
    settings = SETTINGS.model_copy(update={"data_workers": 1})
    (found,) = step_batches(LineTask(), pool, settings, range(1), 0, 1, pin_memory=False)
    assert isinstance(found, InputError)
    assert str(found).startswith(f"{tmp_path}/train/a.parquet: row 0: landmarks: 8 bytes")
