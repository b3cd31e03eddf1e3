"""The training command in one process: all stages, exit statuses, killed and gone on with, and training on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from dreamhead.checkpoint import Checkpoint
from dreamhead.cluster import train
from dreamhead.cluster.command import INTERRUPTED, REFUSED, SUCCEEDED
from dreamhead.training.dataset import write_clips
from dreamhead.training.journal import read_log
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import AUTOENCODER, IMAGE, LANDMARKS, STAGES
from tests import tiny
from tests.training.conftest import clip_row

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a checkpoint, and settings of a few steps."""
    folder = tmp_path_factory.mktemp("training")
    write_clips(str(folder / "data/train/a.parquet"), [clip_row("first", 0), clip_row("second", 1, frames=70)])
    write_clips(str(folder / "data/validation/a.parquet"), [clip_row("third", 2, frames=70)])
    tiny.tiny_checkpoint(folder / "given")
    (folder / "few.yaml").write_text(yaml.safe_dump(values(4)))
    return folder


def values(steps: int) -> dict[str, object]:
    """configs/tiny.yaml with other steps, saved at every other one."""
    found: dict[str, dict[str, dict[str, object]]] = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
    for stage in STAGES:
        found[stage]["loop"] |= {"steps": steps, "save_every": 2, "validate_every": 2, "log_every": 2}
    return found  # type: ignore[return-value]


def command(home: Path, name: str, *more: str, stage: str = "all", config: str = "few.yaml") -> list[str]:
    where = ["--data", str(home / "data"), "--config", str(home / config), "--storage", str(home / "runs")]
    return ["--stage", stage, "--name", name, *where, *more]


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    """The run of all stages."""
    assert train.main(command(home, "all")) == SUCCEEDED
    return home / "runs" / "all"


def test_all_stages_make_a_checkpoint(trained: Path, home: Path) -> None:
    opened = Checkpoint.load(str(trained / "checkpoint"))
    assert opened.config.model_dump() == {
        "speech_encoder": "log_mel",
        "crop_size": 64,
        "autoencoder": "FaceAutoencoder",
    }
    for stage, network in ((AUTOENCODER, opened.autoencoder), (IMAGE, opened.latent_denoiser)):
        kept = RunFolder(str(trained / stage))
        best = kept.best()
        assert best is not None
        average = kept.load(best.step)["average"]
        for name, part in network(CPU).state_dict().items():
            if not name.startswith("latent_"):
                torch.testing.assert_close(part, average[name].half().float())
    assert not torch.equal(opened.autoencoder(CPU).latent_std, torch.ones(4, 1, 1))
    assert opened.landmark_denoiser(CPU).basis.square().sum() > 0


def test_the_card_says_how_it_came_about(trained: Path, home: Path) -> None:
    card = (trained / "checkpoint" / "README.md").read_text()
    assert all(f"## {stage}" in card for stage in STAGES)
    assert f"`{home / 'data'}`: 2 clips of 2 speakers" in card
    assert "| validation: psnr |" in card
    assert "learning_rate: 0.002" in card


def test_what_is_done_is_not_done_again(trained: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (trained / AUTOENCODER).rglob("*.pt")}
    assert train.main(command(home, "all")) == SUCCEEDED
    said = capsys.readouterr().err
    assert "autoencoder: all 4 steps are done" in said
    assert f"checkpoint: {trained / 'checkpoint'}" in said
    assert {path: path.stat().st_mtime_ns for path in (trained / AUTOENCODER).rglob("*.pt")} == before


def test_a_stage_can_be_trained_on_from_a_checkpoint(home: Path) -> None:
    settings = values(2)
    del settings[LANDMARKS]["model"]  # type: ignore[attr-defined]
    (home / "on.yaml").write_text(yaml.safe_dump(settings))
    given = Checkpoint.load(str(home / "given"))
    more = ("--init-from", str(home / "given"))
    assert train.main(command(home, "on", *more, stage=LANDMARKS, config="on.yaml")) == SUCCEEDED
    made = Checkpoint.load(str(home / "runs/on/checkpoint"))
    assert made.render_digest("diffusion") == given.render_digest("diffusion")
    assert made.landmarks_digest != given.landmarks_digest
    before, after = given.landmark_denoiser(CPU), made.landmark_denoiser(CPU)
    assert torch.equal(before.basis, after.basis)
    assert 0 < (before.out[1].weight - after.out[1].weight).abs().max() < 0.1
    assert str(home / "given") in (home / "runs/on/checkpoint/README.md").read_text()


def test_a_given_autoencoder_is_neither_trained_nor_changed(home: Path) -> None:
    assert train.main(command(home, "given-ae", "--autoencoder", str(home / "given"))) == SUCCEEDED
    assert not (home / "runs/given-ae" / AUTOENCODER).exists()
    given, made = (Checkpoint.load(str(home / name)) for name in ("given", "runs/given-ae/checkpoint"))
    for one, other in zip(
        given.autoencoder(CPU).state_dict().values(), made.autoencoder(CPU).state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def started(arguments: list[str]) -> subprocess.Popen[bytes]:
    """The command in another process, with as many threads as this one has: sums depend on them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "ray_jobs" / "train.py"), *arguments], stderr=subprocess.PIPE, env=environment
    )


def wait_for_step(process: subprocess.Popen[bytes], folder: RunFolder, step: int) -> None:
    while not [done for done in folder.steps() if done >= step]:
        assert process.poll() is None
        time.sleep(0.01)


def test_killed_at_once_and_gone_on_with_by_the_same_command(home: Path) -> None:
    (home / "more.yaml").write_text(yaml.safe_dump(values(60)))
    arguments = command(home, "killed", stage=AUTOENCODER, config="more.yaml")
    folder = RunFolder(str(home / "runs/killed" / AUTOENCODER))
    process = started(arguments)
    wait_for_step(process, folder, 4)
    process.kill()
    process.communicate()
    assert folder.finished() is None
    assert 4 <= folder.steps()[-1] < 60
    assert train.main(arguments) == SUCCEEDED
    assert [line["step"] for line in read_log(folder.uri) if "loss" in line] == list(range(2, 61, 2))
    straight = command(home, "straight", stage=AUTOENCODER, config="more.yaml")
    assert train.main(straight) == SUCCEEDED
    ours, theirs = (RunFolder(str(home / "runs" / name / AUTOENCODER)).load(60) for name in ("killed", "straight"))
    for name, part in theirs["network"].items():
        torch.testing.assert_close(ours["network"][name], part, rtol=1e-3, atol=1e-4)


def test_a_polite_end_saves_first(home: Path) -> None:
    (home / "long.yaml").write_text(yaml.safe_dump(values(100_000)))
    folder = RunFolder(str(home / "runs/polite" / AUTOENCODER))
    process = started(command(home, "polite", stage=AUTOENCODER, config="long.yaml"))
    wait_for_step(process, folder, 2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == INTERRUPTED
    assert "interrupted; the same command goes on where this one stopped" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--name", "a/../.."], "ConfigError: --name: 'a/../..' is no name for a directory"),
        (["--num-workers", "four"], "ConfigError: --num-workers: workers.num_workers"),
        (["--num-workers", "40"], "batch_size 8 is below workers x accumulate, 40"),
        (["--config", "nowhere.yaml"], "ConfigError: nowhere.yaml: No such file or directory"),
        (["--data", "/nowhere"], "InputError: /nowhere/train: no *.parquet shards"),
        (["--init-from", "/nowhere"], "CheckpointError: /nowhere: not a checkpoint directory"),
    ],
)
def test_what_is_refused_is_said_in_one_line(
    home: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*command(home, "refused"), *more]) == REFUSED
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_gpu_that_is_not_there_is_not_waited_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    settings = values(2) | {"workers": {"use_gpu": True}}
    (home / "gpu.yaml").write_text(yaml.safe_dump(settings))
    assert train.main(command(home, "gpu", stage=AUTOENCODER, config="gpu.yaml")) == REFUSED
    assert "workers.use_gpu: true, but this machine has no GPU" in capsys.readouterr().err
