"""The folder for a lent machine: what it holds, what it refuses; packages from wheels, without a download."""

import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from dreamhead.errors import ConfigError
from dreamhead.training.dataset import list_clips
from scripts import kit
from scripts.bare_site import PACKAGES, archive_tree, pinned, unpack_wheels
from tests.training.conftest import shards as shards  # the fixture


@pytest.fixture
def quick_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of a thousand bytes instead of packages."""

    def make(versions: Mapping[str, str], python: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x" * 1000)

    monkeypatch.setattr(kit, "make_site", make)


@pytest.mark.usefixtures("quick_site")
def test_the_folder_says_what_it_holds(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(shards), "--out", str(tmp_path / "gpu"), "--stage", "audio_to_landmark", "--variants", "1"]
    for _ in range(2):
        assert kit.main(words) == 0
    manifest = json.loads((tmp_path / "gpu/manifest.json").read_text())
    data = manifest["data"]
    assert (data["clips"], data["frames"], data["speakers"], data["left_out"]) == (3, 150, 3, [])
    assert data["stages"] == ["audio_to_landmark"]
    assert data["bytes"] == kit.folder_bytes(tmp_path / "gpu/data")
    assert len(manifest["commit"]) == 40
    assert manifest["site"]["bytes"] == 1000
    assert manifest["site"]["versions"]["pydantic"].startswith("2.")
    assert len(list_clips(str(tmp_path / "gpu/data"), "train")) == 2
    assert sorted(path.name for path in (tmp_path / "gpu").iterdir()) == ["data", "manifest.json", "site.tar.xz"]
    said = capsys.readouterr().out
    assert "room left" in said
    assert "3 clips, 150 frames of 3 speakers" in said


@pytest.mark.usefixtures("quick_site")
def test_what_has_no_room_is_left_out(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(shards), "--out", str(tmp_path / "gpu"), "--stage", "audio_to_landmark"]
    assert kit.main(words) == 0
    budget_mb = 0.7 * kit.folder_bytes(tmp_path / "gpu") / 2**20
    assert kit.main([*words, "--budget-mb", str(budget_mb)]) == 0
    manifest = json.loads((tmp_path / "gpu/manifest.json").read_text())
    assert 0 < len(manifest["data"]["left_out"]) < 3
    assert kit.folder_bytes(tmp_path / "gpu") <= budget_mb * 2**20
    assert "left out, soft or no room:" in capsys.readouterr().out


@pytest.mark.usefixtures("quick_site")
def test_others_folders_are_left_alone(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    assert kit.main([str(shards), "--out", str(tmp_path)]) == 2
    assert "holds no packed.json, so it wasn't packed here" in capsys.readouterr().err
    assert (tmp_path / "data" / "mine.txt").read_text() == "mine"


def test_unknown_values_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert kit.main(["--without", "torch"]) == 2
    assert "--without torch: not among what is packed; allowed: pydantic" in capsys.readouterr().err
    assert kit.main(["--picture-step", "0"]) == 2
    assert "--picture-step 0: allowed: 1 or more" in capsys.readouterr().err


def test_versions_are_those_of_the_python_that_is_asked_for() -> None:
    constraints = kit.ROOT / "constraints.txt"
    found = pinned(constraints, "3.12", ["av"])
    assert [*found] == [name for name in PACKAGES if name != "av"]
    assert pinned(constraints, "3.12", [])["av"] != pinned(constraints, "3.10", [])["av"]


def test_a_package_without_a_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("av==18.1.0\n")
    with pytest.raises(ConfigError, match=r"pins no version of pydantic for Python 3\.12"):
        pinned(tmp_path / "constraints.txt", "3.12", [])


def test_wheels_become_one_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "toy-1-py3-none-any.whl", "w") as wheel:
        for name in ("toy/__init__.py", "toy/fast.pyx", "toy/fast.pyi", "toy-1.dist-info/METADATA"):
            wheel.writestr(name, "x = 1\n")
    unpack_wheels([tmp_path / "toy-1-py3-none-any.whl"], tmp_path / "site")
    for name in ("a", "b"):
        archive_tree(tmp_path / "site", tmp_path / f"{name}.tar.xz")
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    with tarfile.open(tmp_path / "a.tar.xz") as archive:
        assert archive.getnames() == ["toy/__init__.py", "toy-1.dist-info/METADATA"]
