"""The rehearsal of a lent GPU: the same command at toy size, where there is none; and parts that fail or take long."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_stages import prepare
from dreamhead.training.dataset import write_clips
from tests import tiny
from tests.training.conftest import clip_row

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable]
"""That the kit runs on; a bare machine's takes its place by this line."""

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's own run is no rehearsal")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as scripts/pack_gpu makes it, but for the packages, which are this Python's own, and the data."""
    folder = tmp_path_factory.mktemp("packed")
    with tarfile.open(folder / "site.tar.xz", "w:xz") as site:
        member = tarfile.TarInfo("unpacked_here.py")
        site.addfile(member, io.BytesIO())
    pytest.importorskip("skimage")
    prepare(folder / "bench", "", "")
    return folder


def gpu_run(packed: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*PYTHON, "scripts/gpu_run", "--packed", str(packed), "--out", str(out), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


def test_check_and_bench_at_toy_size(packed: Path, tmp_path: Path) -> None:
    # Far more than it takes on idle cores: busy ones fail no test.
    limits = ["--minutes", "14", "--check-minutes", "6", "--bench-minutes", "7"]
    found = gpu_run(packed, tmp_path, *limits, "--only", "check", "--only", "bench")
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr
    summary = (tmp_path / "summary.md").read_text()
    assert "**Rehearsal at toy size: no GPU here." in summary
    for part in ("check", "bench"):
        assert f"| {part} | passed |" in summary
        assert (tmp_path / f"{part}.log").stat().st_size
    assert summary.strip() in found.stdout
    rows = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    assert {key for row in rows for key in row} >= {"part", "render", "dub", "processes"}
    assert "not measured" not in (tmp_path / "bench.log").read_text()
    assert len(list(tmp_path.iterdir())) <= 8, "so many files come back from a lent machine"


@pytest.mark.skipif(os.environ.get("WITHOUT_TRAINING") == "1", reason="WITHOUT_TRAINING=1")
def test_training_at_toy_size(packed: Path, tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("validation", 1)):
        write_clips(str(packed / "data" / split / "clips.parquet"), [clip_row(split, seed)])
    checkpoint = tiny.tiny_checkpoint(tmp_path / "checkpoint")
    config = ["--config", str(ROOT / "configs" / "tiny.yaml"), "--only", "train"]
    told = ["--", "--autoencoder", str(checkpoint)]
    found = gpu_run(packed, tmp_path / "out", *config, "--minutes", "5", "--train-minutes", "0.05", *told)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr
    assert "| train | passed |" in (tmp_path / "out" / "summary.md").read_text()


def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_next(tmp_path: Path, packed: Path) -> None:
    limits = ["--check-minutes", "0.3"]
    found = gpu_run(packed, tmp_path, *limits, "--only", "check", "--only", "train", "--stage", "no_such_stage")
    summary = (tmp_path / "summary.md").read_text()
    assert found.returncode == 1
    assert "| check | cut off after" in summary or "| check | passed" in summary
    assert "| train | failed with exit status 2 |" in summary
    assert "no_such_stage" in (tmp_path / "train.log").read_text()


def test_packages_that_are_not_there_are_named(tmp_path: Path) -> None:
    found = gpu_run(tmp_path / "nowhere", tmp_path / "out")
    assert found.returncode == 2
    assert f"{tmp_path / 'nowhere' / 'site.tar.xz'}: not there; make it with scripts/pack_gpu" in found.stderr


def test_a_folder_for_the_results_must_be_named(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OUT"}
    command = [*PYTHON, "scripts/gpu_run"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment)
    assert found.returncode == 2
    assert "--out: neither given nor set as $OUT" in found.stderr
