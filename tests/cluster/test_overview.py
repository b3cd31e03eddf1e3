"""`dreamhead status` and `dreamhead clean` on a manifest, of which some jobs are done."""

import json
import os
import time
import uuid
from pathlib import Path

import pytest

from dreamhead import cli, storage
from dreamhead.cluster.manifest import read_manifest
from dreamhead.cluster.only_run import OnlyRun
from dreamhead.config import DubSettings, load_yaml
from dreamhead.stages.dub import dub
from dreamhead.stages.opening import open_work
from dreamhead.stages.prepare import prepare
from tests.cluster.farm import Farm


@pytest.fixture
def half_done(farm: Farm) -> Farm:
    """Of its three jobs the first is done, the second wasn't begun, the third has no video; a fourth row is bad."""
    farm.rows.append(farm.rows[0] | {"job_id": "odd", "seed": -1, "output_uri": "out/odd.mp4"})
    farm.write_manifest()
    job = read_manifest(str(farm.manifest)).jobs[0]
    settings = load_yaml(farm.config, DubSettings)
    assert dub(job, settings, farm.checkpoint, str(farm.folder / "work"))["status"] == "succeeded"
    work, _ = open_work(settings, farm.checkpoint, str(farm.folder / "work"))
    prepare(read_manifest(str(farm.manifest)).jobs[1], work)
    return farm


def arguments(farm: Farm, command: str, *more: str) -> list[str]:
    places = ["--config", str(farm.config), "--checkpoint", farm.checkpoint, "--work", str(farm.folder / "work")]
    return [command, str(farm.manifest), *places, *more]


def test_status_tells_what_is_done_failed_and_missing(half_done: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments(half_done, "status", "--json")) == cli.FAILED
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["job_id"], one["state"]) for one in found] == [
        ("job0", "done"),
        ("job1", "missing"),
        ("bad", "failed"),
        ("odd", "failed"),
    ]
    assert [one["chunks_done"] for one in found] == [4, 0, 0, 0]
    # The video is analysed, so that the chunks of its other language are known.
    assert (found[1]["chunks_missing"], found[1]["spans_ahead"]) == (4, 0)
    assert found[2]["error"].startswith("InputError: video_uri: ")
    assert found[3]["error"].startswith("seed: must be a whole number")

    cli.main(arguments(half_done, "status"))
    shown = capsys.readouterr().out
    assert "4 jobs: 1 done, 2 failed, 1 missing; chunks: 4 done, 0 failed, 4 missing\n" in shown
    assert "job0" not in shown
    cli.main(arguments(half_done, "status", "--all"))
    assert "job0" in capsys.readouterr().out


def test_status_is_zero_once_all_is_done(half_done: Farm) -> None:
    del half_done.rows[1:]
    half_done.write_manifest()
    assert cli.main(arguments(half_done, "status")) == cli.DONE


def test_clean_frees_what_is_done_and_nothing_else(half_done: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    farm = half_done
    analysis = files(farm.folder / "work" / "analysis")
    chunks = farm.sidecars()
    assert cli.main(arguments(farm, "clean", "--dry-run")) == cli.DONE
    assert "MB would be deleted" in capsys.readouterr().out
    assert farm.sidecars() == chunks
    assert cli.main(arguments(farm, "clean", "--analysis")) == cli.DONE
    assert farm.sidecars() == []
    # Its other language isn't done: the analysis stays.
    assert files(farm.folder / "work" / "analysis") == analysis
    assert (farm.folder / "out" / "0.mp4").exists()
    del farm.rows[1:]
    farm.write_manifest()
    cli.main(arguments(farm, "clean", "--analysis"))
    assert files(farm.folder / "work" / "analysis") == []
    assert cli.main(arguments(farm, "status")) == cli.DONE


def test_clean_frees_what_killed_processes_left_half_written(half_done: Farm) -> None:
    farm, yesterday = half_done, time.time() - 86400
    name = f".{{}}.{uuid.uuid4().hex}{storage.UNFINISHED}"
    old = [farm.folder / folder / name.format("a.mp4") for folder in ("work", "work/jobs/job1/x", "out")]
    kept = [
        farm.folder / "work" / name.format("new"),
        farm.folder / "out" / "deeper" / name.format("old"),
        farm.folder / "out" / f"somebody's{storage.UNFINISHED}",
    ]
    for path in [*old, *kept]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        if path != kept[0]:
            os.utime(path, (yesterday, yesterday))
    assert cli.main(arguments(farm, "clean", "--dry-run")) == cli.DONE
    assert all(path.exists() for path in [*old, *kept])
    assert cli.main(arguments(farm, "clean")) == cli.DONE
    assert [path for path in [*old, *kept] if path.exists()] == kept


def test_nothing_is_cleaned_while_a_run_is_at_work(half_done: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    farm, chunks = half_done, half_done.sidecars()
    running = storage.join(str(farm.folder / "work"), "running", "other.json")
    with OnlyRun(running, "there", print, beat_s=0.05):
        assert cli.main(arguments(farm, "clean")) == cli.FAILED
        assert "another run is at work there" in capsys.readouterr().err
        assert farm.sidecars() == chunks
        assert cli.main(arguments(farm, "clean", "--dry-run")) == cli.DONE
    assert cli.main(arguments(farm, "clean")) == cli.DONE
    assert farm.sidecars() == []


def test_outputs_that_share_no_directory_have_a_status(half_done: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    half_done.rows[1]["output_uri"] = "s3://elsewhere/out/1.mp4"
    half_done.write_manifest()
    assert cli.main(arguments(half_done, "status")) == cli.FAILED
    assert "1 done, 2 failed, 1 missing" in capsys.readouterr().out
    assert cli.main(arguments(half_done, "clean")) == cli.DONE
    without_work = ["status", str(half_done.manifest), "--config", str(half_done.config)]
    assert cli.main([*without_work, "--checkpoint", half_done.checkpoint]) == cli.WRONG_USAGE
    assert "the outputs share no directory" in capsys.readouterr().err


def test_a_manifest_or_weights_that_cannot_be_used_are_wrong_usage(
    half_done: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", str(half_done.folder / "gone.csv")]) == cli.WRONG_USAGE
    assert "ManifestError" in capsys.readouterr().err
    nowhere = str(half_done.folder / "nowhere")
    assert cli.main(["status", str(half_done.manifest), "--checkpoint", nowhere]) == cli.WRONG_USAGE
    assert "CheckpointError" in capsys.readouterr().err


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
