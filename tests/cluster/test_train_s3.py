"""A training whose data, state and checkpoint lie on an S3 endpoint over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.cluster import train
from dreamhead.cluster.command import SUCCEEDED
from dreamhead.training.dataset import write_clips
from dreamhead.training.journal import read_log
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import LANDMARKS
from tests import tiny
from tests.s3 import s3_bucket
from tests.training.conftest import clip_row

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Uri of a bucket with a data set."""
    with s3_bucket("lab") as uri:
        write_clips(f"{uri}/data/train/a.parquet", [clip_row("first", 0), clip_row("second", 1, frames=70)])
        write_clips(f"{uri}/data/validation/a.parquet", [clip_row("third", 2, frames=70)])
        yield uri


def test_a_run_in_object_storage_goes_on_and_ends_in_a_checkpoint(bucket: str, tmp_path: Path) -> None:
    given = tiny.tiny_checkpoint(tmp_path / "given")
    for steps in (4, 6):
        settings = yaml.safe_load(CONFIG.read_text())
        del settings[LANDMARKS]["model"]
        loop = {"steps": steps, "save_every": 2, "keep": 1, "validate_every": 2, "log_every": 2, "data_workers": 1}
        settings[LANDMARKS]["loop"] |= loop
        (tmp_path / "few.yaml").write_text(yaml.safe_dump(settings))
        where = ["--data", f"{bucket}/data", "--storage", f"{bucket}/runs", "--init-from", str(given)]
        command = ["--stage", LANDMARKS, "--config", str(tmp_path / "few.yaml"), "--name", "far", *where]
        assert train.main(command) == SUCCEEDED
    folder = RunFolder(f"{bucket}/runs/far/{LANDMARKS}")
    best = folder.best()
    assert best is not None
    assert set(folder.steps()) == {6, best.step}
    assert [line["step"] for line in read_log(folder.uri) if "loss" in line] == [2, 4, 6]
    assert len(storage.list_files(storage.join(folder.uri, "tensorboard"))) == 2
    made = Checkpoint.load(f"{bucket}/runs/far/checkpoint").landmark_denoiser(torch.device("cpu"))
    kept = folder.load(best.step)["average"]["out.1.weight"]
    torch.testing.assert_close(made.out[1].weight, kept.half().float())
