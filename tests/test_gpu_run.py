"""The rehearsal of a lent GPU: the same command at toy size, where there is none; and parts that fail or take long."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.gpu_stages import prepare
from dreamhead.training.dataset import write_clips
from dreamhead.training.packing import Packing, pack
from dreamhead.training.settings import IMAGE, MIXER, STAGES
from tests import tiny
from tests.bare import ROOT, Bare, bare_environment
from tests.perceptual_weights import write_weights
from tests.training.conftest import clip_row

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's own run is no rehearsal")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """What a lent machine has: an import of anything else fails there, and here."""
    folder = tmp_path_factory.mktemp("bare")
    machine = bare_environment(folder)
    # Else each process would compile all of torch anew.
    machine.environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    return machine


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as scripts/pack_gpu makes it, but for the packages, which are linked into the bare environment."""
    folder = tmp_path_factory.mktemp("packed")
    with tarfile.open(folder / "site.tar.xz", "w:xz") as site:
        member = tarfile.TarInfo("unpacked_here.py")
        site.addfile(member, io.BytesIO())
    pytest.importorskip("skimage")
    prepare(folder / "bench", "", "")
    clips = tmp_path_factory.mktemp("clips")
    for split, seed in (("train", 0), ("validation", 1)):
        write_clips(str(clips / split / "clips.parquet"), [clip_row(split, seed)])
    how = Packing(stages=STAGES, crf=16, picture_step=1, variants=1, budget_bytes=10**8)
    pack(str(clips), folder / "data", how, lambda line: None)
    return folder


def gpu_run(bare: Bare, packed: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return bare.run("scripts/gpu_run", "--packed", str(packed), "--out", str(out), *arguments, timeout_s=900)


def test_check_and_bench_at_toy_size(bare: Bare, packed: Path, tmp_path: Path) -> None:
    # Far more than it takes on idle cores: busy ones fail no test.
    limits = ["--minutes", "14", "--check-minutes", "6", "--bench-minutes", "7"]
    found = gpu_run(bare, packed, tmp_path, *limits, "--only", "check", "--only", "bench")
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


@pytest.mark.parametrize("stage", [IMAGE, MIXER])
def test_training_at_toy_size(bare: Bare, packed: Path, tmp_path: Path, stage: str) -> None:
    settings = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
    settings[MIXER] = yaml.safe_load((ROOT / "configs" / "tiny_gpu.yaml").read_text())[MIXER]
    settings[MIXER]["perceptual"] = str(write_weights(tmp_path))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    told = ["--", "--autoencoder", str(tiny.tiny_checkpoint(tmp_path / "checkpoint"))] if stage == IMAGE else []
    limits = ["--minutes", "5", "--train-minutes", "0.05"]
    how = ["--only", "train", "--stage", stage, "--config", str(tmp_path / "config.yaml"), *limits]
    found = gpu_run(bare, packed, tmp_path / "out", *how, *told)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr
    assert "| train | passed |" in (tmp_path / "out" / "summary.md").read_text()
    assert (tmp_path / "out" / "brought.tar.00").stat().st_size


def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_next(bare: Bare, tmp_path: Path, packed: Path) -> None:
    limits = ["--check-minutes", "0.3"]
    found = gpu_run(bare, packed, tmp_path, *limits, "--only", "check", "--only", "train", "--stage", "no_such_stage")
    summary = (tmp_path / "summary.md").read_text()
    assert found.returncode == 1
    assert "| check | cut off after" in summary or "| check | passed" in summary
    assert "| train | failed with exit status 2 |" in summary
    assert "no_such_stage" in (tmp_path / "train.log").read_text()


def test_packages_that_are_not_there_are_named(bare: Bare, tmp_path: Path) -> None:
    found = gpu_run(bare, tmp_path / "nowhere", tmp_path / "out")
    assert found.returncode == 2
    assert f"{tmp_path / 'nowhere' / 'site.tar.xz'}: not there; make it with scripts/pack_gpu" in found.stderr


def test_a_folder_for_the_results_must_be_named(bare: Bare) -> None:
    found = bare.run("scripts/gpu_run", timeout_s=60)
    assert found.returncode == 2
    assert "--out: neither given nor set as $OUT" in found.stderr
