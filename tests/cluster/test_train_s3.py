"""A training whose data, state and checkpoint lie on an S3 endpoint over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
import yaml
from moto.server import ThreadedMotoServer

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.cluster import train
from dreamhead.training.dataset import write_clips
from dreamhead.training.journal import read_log
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import LANDMARKS
from tests import tiny
from tests.training.conftest import clip_row

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Uri of a bucket with a data set."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("s3://lab")
        write_clips("s3://lab/data/train/a.parquet", [clip_row("first", 0), clip_row("second", 1, frames=70)])
        write_clips("s3://lab/data/validation/a.parquet", [clip_row("third", 2, frames=70)])
        yield "s3://lab"
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


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
        assert train.main(command) == train.SUCCEEDED
    folder = RunFolder(f"{bucket}/runs/far/{LANDMARKS}")
    best = folder.best()
    assert best is not None
    assert set(folder.steps()) == {6, best.step}
    assert [line["step"] for line in read_log(folder.uri) if "loss" in line] == [2, 4, 6]
    assert len(storage.list_files(storage.join(folder.uri, "tensorboard"))) == 2
    made = Checkpoint.load(f"{bucket}/runs/far/checkpoint").landmark_denoiser(torch.device("cpu"))
    kept = folder.load(best.step)["average"]["out.1.weight"]
    torch.testing.assert_close(made.out[1].weight, kept.half().float())
