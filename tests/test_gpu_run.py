"""The rehearsal of a lent GPU: the same command at toy size, where there is none; and parts that fail or take long."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.gpu_stages import prepare
from dreamhead.training.dataset import write_clips
from dreamhead.training.packing import Packing, pack
from dreamhead.training.settings import MIXER, STAGES
from tests import tiny
from tests.bare import ROOT, Bare, bare_environment
from tests.perceptual_weights import write_weights
from tests.training.conftest import clip_row

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's own run is no rehearsal")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """What a lent machine has: an import of anything else fails there, and here."""
    return bare_environment(tmp_path_factory.mktemp("bare"))


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


@dataclass(frozen=True)
class Run:
    """A rehearsal in the background, and where its results come."""

    out: Path
    done: Future[subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def runs(bare: Bare, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """The long ones, two at a time: one after the other they take three minutes."""
    folder = tmp_path_factory.mktemp("runs")
    autoencoder = ["--", "--autoencoder", str(tiny.tiny_checkpoint(folder / "checkpoint"))]
    # Far more than it takes on idle cores: busy ones fail no test.
    limits = ["--minutes", "14", "--check-minutes", "6", "--bench-minutes", "7"]
    train = ["--config", str(write_config(folder)), "--train-minutes", "0.05"]
    told = {
        "all": [*limits, *train, *autoencoder],
        "mixer": ["--only", "train", *train, "--stage", MIXER],
        "fail": ["--check-minutes", "0.27", "--only", "check", "--only", "train", "--stage", "no_such_stage"],
    }
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: Run(folder / name, pool.submit(gpu_run, bare, packed, folder / name, *arguments))
            for name, arguments in told.items()
        }


def write_config(folder: Path) -> Path:
    """Of the stages that are trained, at toy size."""
    settings = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
    settings[MIXER] = yaml.safe_load((ROOT / "configs" / "tiny_gpu.yaml").read_text())[MIXER]
    settings[MIXER]["perceptual"] = str(write_weights(folder))
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_all_at_toy_size(runs: dict[str, Run]) -> None:
    out, found = runs["all"].out, runs["all"].done.result()
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr
    summary = (out / "summary.md").read_text()
    assert "**Rehearsal at toy size: no GPU here." in summary
    for part in ("check", "bench", "train"):
        assert f"| {part} | passed |" in summary
        assert (out / f"{part}.log").stat().st_size
    assert summary.strip() in found.stdout
    rows = [json.loads(line) for line in (out / "bench.jsonl").read_text().splitlines()]
    assert {key for row in rows for key in row} >= {"part", "render", "dub", "processes"}
    assert "not measured" not in (out / "bench.log").read_text()
    assert (out / "brought.tar.00").stat().st_size
    assert len(list(out.iterdir())) <= 8, "so many files come back from a lent machine"


def test_training_the_mixer_at_toy_size(runs: dict[str, Run]) -> None:
    out, found = runs["mixer"].out, runs["mixer"].done.result()
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr
    assert "| train | passed |" in (out / "summary.md").read_text()
    assert (out / "brought.tar.00").stat().st_size


def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_next(runs: dict[str, Run]) -> None:
    out, found = runs["fail"].out, runs["fail"].done.result()
    summary = (out / "summary.md").read_text()
    assert found.returncode == 1
    assert "| check | cut off after" in summary or "| check | passed" in summary
    assert "| train | failed with exit status 2 |" in summary
    assert "no_such_stage" in (out / "train.log").read_text()


def test_packages_that_are_not_there_are_named(bare: Bare, tmp_path: Path) -> None:
    found = gpu_run(bare, tmp_path / "nowhere", tmp_path / "out")
    assert found.returncode == 2
    assert f"{tmp_path / 'nowhere' / 'site.tar.xz'}: not there; make it with scripts/pack_gpu" in found.stderr


def test_a_folder_for_the_results_must_be_named(bare: Bare) -> None:
    found = bare.run("scripts/gpu_run", timeout_s=60)
    assert found.returncode == 2
    assert "--out: neither given nor set as $OUT" in found.stderr
