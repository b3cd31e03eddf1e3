"""On a machine without Ray, MediaPipe, Whisper and S3, all that works there must import, and training must run."""

import json
from pathlib import Path

import pytest

from tests.bare import ROOT, Bare, bare_environment

ABSENT = ("ray", "mediapipe", "s3fs", "aiobotocore", "botocore", "faster_whisper", "ctranslate2", "scenedetect", "moto")
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
