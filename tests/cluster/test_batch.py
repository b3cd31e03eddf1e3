"""A manifest on Ray: the same frames as without Ray whatever the pools, exact resume, failures that stay alone."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from dreamhead.cluster import batch
from dreamhead.cluster.command import REFUSED, SOME_FAILED
from dreamhead.cluster.manifest import read_manifest
from dreamhead.cluster.only_run import OnlyRun
from dreamhead.cluster.places import find_places
from dreamhead.config import DubSettings, load_yaml
from dreamhead.stages.dub import dub
from tests.cluster.farm import ONE, TWO, Farm, decode

pytestmark = [
    pytest.mark.ray,
    # Ray Data warns of its own settings when it makes its own context.
    pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning"),
]


def test_frames_depend_neither_on_ray_nor_on_the_pools(
    farm: Farm, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    farm.configure(ONE)
    status, rows = farm.run("work-one")
    one = farm.frames()
    assert status == SOME_FAILED
    assert [row["status"] for row in rows] == ["succeeded", "succeeded", "failed"]
    assert rows[2]["error"].startswith("video_uri: ")
    assert [(row["frames"], row["dubbed_frames"], row["chunks"]) for row in rows[:2]] == [(24, 24, 4)] * 2
    assert [row["chunks_rendered"] for row in rows[:2]] == [4, 4]
    assert "2 jobs succeeded, 1 failed; results in" in capsys.readouterr().err

    farm.configure(TWO)
    farm.run("work-two")
    two = farm.frames()
    settings = load_yaml(farm.config, DubSettings)
    for job in read_manifest(str(farm.manifest)).jobs[:2]:
        assert dub(job, settings, farm.checkpoint, str(farm.folder / "work-none"))["status"] == "succeeded"
    none = farm.frames()
    for index in range(2):
        np.testing.assert_array_equal(one[index], two[index])
        np.testing.assert_array_equal(one[index], none[index])
    assert (one[0] != one[1]).any()
    source = decode(farm.folder / "clip.mp4")
    assert (np.abs(one[0].astype(int) - source).max(axis=(1, 2, 3)) > 20).all()


def test_a_second_run_renders_nothing_and_a_render_setting_only_renders(farm: Farm, ray_session: None) -> None:
    farm.configure(ONE)
    farm.run("work")
    landmarks = sorted((farm.folder / "work").rglob("landmarks-*.npz"))
    written = [path.stat().st_mtime_ns for path in landmarks]
    status, rows = farm.run("work")
    assert (status, [row["chunks_rendered"] for row in rows]) == (SOME_FAILED, [0, 0, 0])
    farm.configure(ONE, renderer="warp")
    _, rows = farm.run("work")
    assert [row["chunks_rendered"] for row in rows] == [4, 4, 0]
    assert sorted((farm.folder / "work").rglob("landmarks-*.npz")) == landmarks
    assert [path.stat().st_mtime_ns for path in landmarks] == written
    assert len(list((farm.folder / "work" / "analysis").rglob("span-*.json"))) == 2


def test_pools_that_dont_fit_are_refused_at_once(
    farm: Farm, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    farm.configure(TWO | {"num_cpus": 3.0})
    assert batch.main([str(farm.manifest), "--config", str(farm.config), "--checkpoint", farm.checkpoint]) == 2
    assert "ClusterError: the pools need 12.75 CPUs" in capsys.readouterr().err


def test_results_that_another_run_writes_are_left_alone(farm: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    places = find_places(
        str(farm.manifest),
        config=farm.config,
        checkpoint=farm.checkpoint,
        work=str(farm.folder / "work"),
        results=str(farm.results),
    )
    farm.results.write_bytes(b"of the other run")
    with OnlyRun(places.running_uri, "there", print, beat_s=0.1):
        assert batch.main(farm.arguments()) == REFUSED
    assert farm.results.read_bytes() == b"of the other run"
    assert f"ClusterError: {farm.results}: another run is at work there" in capsys.readouterr().err
    assert list((farm.folder / "work" / "running").iterdir()) == [farm.folder / "work" / "running" / ".lock"]


def test_a_dry_run_shows_settings_and_bad_rows(farm: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    farm.configure(ONE)
    farm.manifest.write_text(farm.manifest.read_text().replace('"job_id": "bad"', '"seed": -1'))
    assert batch.main([str(farm.manifest), "--config", str(farm.config), "--dry-run"]) == SOME_FAILED
    shown = capsys.readouterr().out
    assert DubSettings.model_validate(yaml.safe_load(shown)) == load_yaml(farm.config, DubSettings)
    assert "# row 2: InputError: seed: must be a whole number" in shown
    assert not (farm.folder / "out").exists()


def test_a_manifest_that_isnt_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch.main([str(tmp_path / "gone.csv")]) == REFUSED
    assert "ManifestError: the manifest can't be read" in capsys.readouterr().err


def test_a_manifest_of_bad_rows_only_gets_its_results_beside_it(farm: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    farm.rows = [farm.rows[0] | {"seed": -1}]
    farm.write_manifest()
    assert batch.main([str(farm.manifest), "--checkpoint", farm.checkpoint]) == SOME_FAILED
    (row,) = farm.rows_of_results()
    assert row["error"].startswith("seed: must be a whole number")


def test_results_that_cannot_be_written_are_refused_before_any_work(
    farm: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*farm.arguments()[:-1], "/dev/null/results"]
    assert batch.main(arguments) == REFUSED
    assert "StorageError: /dev/null/results/" in capsys.readouterr().err
    assert not (farm.folder / "work" / "jobs").exists()
