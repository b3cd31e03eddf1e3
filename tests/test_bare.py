"""On a machine without Ray, MediaPipe, Whisper and S3, all that works there must import, and training must run."""

import json
from pathlib import Path

import pytest
import yaml

from dreamhead.training.packing import Packing, pack
from dreamhead.training.settings import STAGES
from tests.bare import ROOT, Bare, bare_environment
from tests.training.conftest import shards as shards  # the fixture

ABSENT = (
    *("ray", "mediapipe", "s3fs", "aiobotocore", "botocore", "faster_whisper", "ctranslate2", "scenedetect", "moto"),
    "espeakng_loader",
)
ROOMS = ("training", "pipelines", "models", "diffusion")
SINGLE = (
    *("checkpoint", "stages.render", "stages.landmarks", "stages.finalize", "stages.work"),
    *("evaluation.metrics", "evaluation.plot", "cluster.train"),
)
DECODES = ("training.packing", "training.picture_video")
"""What writes video needs PyAV."""
IMPORT = """
import importlib, importlib.util, json, sys
names, absent = json.loads(sys.argv[1])
found = [name for name in absent if importlib.util.find_spec(name)]
assert not found, f"{found} are there"
for name in names:
    importlib.import_module("dreamhead." + name)
print(sorted(set(absent) & {name.partition(".")[0] for name in sys.modules}))
"""


def modules(*rooms: str) -> list[str]:
    """Names below the package of all modules of some rooms."""
    paths = [path for room in rooms for path in sorted((ROOT / "dreamhead" / room).glob("*.py"))]
    return [f"{path.parent.name}.{path.stem}" for path in paths if path.stem != "__init__"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return bare_environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def barer(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Without PyAV either."""
    return bare_environment(tmp_path_factory.mktemp("barer"), without=["av"])


def imported(machine: Bare, names: list[str], absent: tuple[str, ...]) -> None:
    done = machine.run("-c", IMPORT, json.dumps([names, absent]))
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_all_that_works_there_imports(bare: Bare) -> None:
    imported(bare, [*modules(*ROOMS), *SINGLE], ABSENT)


def test_training_imports_without_pyav(barer: Bare) -> None:
    names = [name for name in modules("training") if name not in DECODES]
    imported(barer, [*names, "cluster.train"], (*ABSENT, "av"))


def test_training_on_packed_data_needs_neither_ray_nor_pyav(barer: Bare, shards: Path, tmp_path: Path) -> None:
    how = Packing(stages=STAGES, crf=16, picture_step=2, variants=1, budget_bytes=10**8)
    pack(str(shards), tmp_path / "data", how, lambda line: None)
    settings = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
    for stage in STAGES:
        settings[stage]["loop"] |= {"steps": 2, "save_every": 2, "validate_every": 2, "log_every": 2}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(settings))
    where = ["--data", "data", "--config", "few.yaml", "--storage", "runs", "--name", "toy", "--num-workers", "0"]
    barer.environment["TMPDIR"] = str(tmp_path)
    done = barer.run(str(ROOT / "ray_jobs" / "train.py"), "--stage", "all", *where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/toy/checkpoint/digests.json").exists()
    assert len(list(tmp_path.glob("dreamhead-pictures-*/*.raw"))) == 1
