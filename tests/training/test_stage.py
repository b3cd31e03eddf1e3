"""The real networks learn the same in two processes, copied or cut into pieces."""

import json
from pathlib import Path

import pytest
import torch

from dreamhead.config import load_yaml, parse
from dreamhead.errors import StorageError
from dreamhead.training.dataset import write_clips
from dreamhead.training.journal import read_log
from dreamhead.training.loop import Watcher
from dreamhead.training.plan import Plan, Request, plan
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import AUTOENCODER, IMAGE, LANDMARKS, STAGES, TrainingSettings
from dreamhead.training.stage import train_stage
from tests import tiny
from tests.training.conftest import clip_row
from tests.training.pair import run_pair

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"
PARALLEL = ("ddp", "fsdp2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train_all` left."""
    folder = tmp_path_factory.mktemp("stages")
    write_clips(str(folder / "data/train/a.parquet"), [clip_row("first", 0), clip_row("second", 1, frames=70)])
    write_clips(str(folder / "data/validation/a.parquet"), [clip_row("third", 2, frames=70)])
    tiny.tiny_checkpoint(folder / "given")
    for kind in PARALLEL:
        for stage in STAGES:
            planned(folder, kind, stage)
    run_pair(train_all, folder)
    return folder


def planned(folder: Path, kind: str, stage: str) -> Plan:
    values = load_yaml(CONFIG, TrainingSettings).model_dump(exclude_unset=True)
    values["workers"] = {"num_workers": 2, "parallel": kind}
    for name in STAGES:
        values[name]["loop"] |= {"steps": 4, "save_every": 2, "validate_every": 4, "log_every": 1, "warmup_steps": 0}
    return plan(
        Request(
            settings=parse(values, TrainingSettings, "here"),
            data_uri=str(folder / "data"),
            run_uri=str(folder / kind),
            autoencoder=str(folder / "given") if stage == IMAGE else "",
        ),
        stage,
    )


def train_all(folder: Path) -> None:
    """In each of the two processes."""
    for kind in PARALLEL:
        for stage in STAGES:
            train_stage(planned(folder, kind, stage), torch.device("cpu"), Watcher())


@pytest.mark.parametrize("stage", STAGES)
def test_pieces_of_the_real_networks_learn_what_copies_learn(trained: Path, stage: str) -> None:
    copies, pieces = (RunFolder(str(trained / kind / stage)) for kind in PARALLEL)
    first, second = ([line["loss"] for line in read_log(folder.uri) if "loss" in line] for folder in (copies, pieces))
    assert len(first) == 4
    assert first == pytest.approx(second, rel=1e-3)
    for name, part in copies.load(4)["average"].items():
        torch.testing.assert_close(pieces.load(4)["average"][name], part, rtol=1e-2, atol=2e-4)


@pytest.mark.parametrize("kind", PARALLEL)
@pytest.mark.parametrize("stage", STAGES)
def test_the_network_is_kept_with_a_note(trained: Path, kind: str, stage: str) -> None:
    folder = trained / kind / stage
    note = json.loads((folder / "finished.json").read_text())
    assert (note["step"], note["best_step"], note["clips"], note["speakers"]) == (4, 4, 2, 2)
    assert note["seconds_of_video"] == pytest.approx(4.8)
    assert (folder / "network" / "diffusion_pytorch_model.safetensors").stat().st_size > 10_000
    classes = {AUTOENCODER: "FaceAutoencoder", LANDMARKS: "LandmarkDenoiser", IMAGE: "LatentDenoiser"}
    config = json.loads((folder / "network" / "config.json").read_text())
    assert config["_class_name"] == classes[stage]
    assert "_name_or_path" not in config


def test_a_machine_that_does_not_see_the_run_is_named(trained: Path) -> None:
    values = vars(planned(trained, "ddp", LANDMARKS)) | {"folder_uri": str(trained / "elsewhere")}
    with pytest.raises(StorageError, match=r"elsewhere/settings.json: not seen on this machine"):
        train_stage(Plan(**values), torch.device("cpu"), Watcher())
