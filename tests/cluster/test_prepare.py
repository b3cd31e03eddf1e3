"""The preparation command on Ray: shards and a report, exact resume, failures that stay alone, whole speakers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray

from dreamhead.cluster import prepare
from dreamhead.cluster.command import INTERRUPTED, REFUSED, SOME_FAILED, SUCCEEDED
from dreamhead.cluster.pools import Node
from dreamhead.cluster.preparation import plan_pool, refuse_other_splits
from dreamhead.config import PoolSettings, PreparationSettings, load_yaml
from dreamhead.errors import ClusterError, ManifestError
from dreamhead.stages.preparation.source import Source
from dreamhead.training.dataset import list_clips, read_clip
from tests.tiny import CROP_SIZE, tiny_checkpoint


class Room:
    """Videos, toy weights and settings in one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.videos, self.output = path / "videos", path / "data"
        self.checkpoint = str(tiny_checkpoint(path / "checkpoint"))
        self.config = path / "config.yaml"
        self.configure()

    def configure(self, **values: Any) -> None:
        """Write the settings."""
        settings = {
            "speech_encoder": "log_mel",
            "crop_size": CROP_SIZE,
            "min_clip_s": 0.5,
            "variants": {"count": 2, "unchanged": 1},
            "pool": {"min_size": 1, "max_size": 1, "num_cpus": 0.5},
        }
        self.config.write_text(yaml.safe_dump(settings | values))

    def run(self, *more: str) -> int:
        """The command's exit status."""
        fixed = [str(self.videos), "--output", str(self.output), "--config", str(self.config)]
        return prepare.main([*fixed, "--checkpoint", self.checkpoint, *more])

    def report(self) -> list[dict[str, Any]]:
        """Rows of the report."""
        rows: list[dict[str, Any]] = pq.read_table(self.output / "report.parquet").to_pylist()
        return rows

    def shards(self) -> dict[str, int]:
        """When each shard was written."""
        return {
            str(path.relative_to(self.output)): path.stat().st_mtime_ns
            for path in self.output.rglob("*.parquet")
            if path.parent.name in ("train", "validation")
        }


@pytest.fixture
def room(tmp_path: Path, make_video: Callable[..., str], face_frames: list[NDArray[np.uint8]]) -> Room:
    room = Room(tmp_path)
    room.videos.mkdir()
    shutil.move(make_video("anna.mp4", face_frames, sound_s=0.96), room.videos)
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in face_frames]
    shutil.move(make_video("bert.mp4", mirrored), room.videos)
    (room.videos / "broken.mp4").write_bytes(b"no video")
    return room


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning")
def test_videos_become_shards_and_are_not_done_again(
    room: Room, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert room.run("--validation-speakers", "bert") == SOME_FAILED
    said = capsys.readouterr().err
    assert "3 of 3 sources to prepare" in said
    assert "broken.mp4 failed: MediaError: " in said
    (train,), (validation,) = (list_clips(str(room.output), split) for split in ("train", "validation"))
    assert (train.speaker, validation.speaker) == ("anna", "bert")
    assert read_clip(validation).crop(23).shape == (CROP_SIZE, CROP_SIZE, 3)
    rows = room.report()
    assert {row["source_uri"].rpartition("/")[2]: row["status"] for row in rows if row["kind"] == "source"} == {
        "anna.mp4": "prepared",
        "bert.mp4": "prepared",
        "broken.mp4": "failed",
    }
    (mute,) = (row for row in rows if row["kind"] == "clip" and row["speaker"] == "bert")
    assert (mute["status"], mute["reasons"]) == ("pictures", ["no sound"])
    facts = json.loads((room.output / "dataset.json").read_text())
    assert (facts["splits"]["train"]["clips"], facts["splits"]["validation"]["clips"]) == (1, 1)
    assert "<html" in (room.output / "report.html").read_text()

    # A copy of what is there is no new source, and what is done is not done again.
    written = room.shards()
    (room.videos / "broken.mp4").unlink()
    shutil.copy(room.videos / "anna.mp4", room.videos / "copy.mp4")
    assert room.run("--validation-speakers", "bert") == SOME_FAILED
    said = capsys.readouterr().err
    assert "0 of 3 sources to prepare" in said
    assert "copy.mp4: its content is that of " in said
    assert room.shards() == written


def test_a_dry_run_shows_settings_and_sources(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    assert room.run("--dry-run", "--speech-encoder", "hubert_base") == SUCCEEDED
    shown = capsys.readouterr().out
    settings = load_yaml(room.config, PreparationSettings)
    expected = settings.model_copy(update={"speech_encoder": "hubert_base"})
    assert PreparationSettings.model_validate(yaml.safe_load(shown)) == expected
    assert f"# train: anna: {room.videos}/anna.mp4" in shown
    assert not room.output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--validation-share", "1.5"), "ConfigError: --validation-share: must be at least 0 and below 1, got 1.5"),
        (("--validation-speakers", "carl"), "no clip of the validation speakers carl"),
        (("--speakers", "gone.csv"), "ManifestError: the speakers can't be read: gone.csv"),
    ],
)
def test_wrong_usage_is_one_line(
    room: Room, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert room.run(*arguments) == REFUSED
    assert message in capsys.readouterr().err


def test_an_interrupted_run_writes_what_there_is(
    room: Room, ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare.PreparationRun, "__call__", interrupt)
    assert room.run() == INTERRUPTED
    assert "interrupted; the same command goes on where this one stopped" in capsys.readouterr().err
    assert (room.output / "report.html").exists()


def test_a_pool_is_sized_by_the_cluster_or_checked() -> None:
    nodes = [Node(cpus=4, gpus=0), Node(cpus=2.5, gpus=0)]
    assert plan_pool(None, nodes) == PoolSettings(min_size=6, max_size=6, num_cpus=1)
    assert plan_pool(None, [Node(cpus=0.5, gpus=0)]).num_cpus == 0.5
    given = PoolSettings(min_size=3, max_size=5, num_cpus=2)
    assert plan_pool(given, nodes) == given
    with pytest.raises(ClusterError, match=r"room for 1 actors of 3 CPUs and 0 GPUs, pool\.min_size is 2"):
        plan_pool(PoolSettings(min_size=2, max_size=2, num_cpus=3), nodes)


def test_a_speaker_of_earlier_runs_stays_in_the_split() -> None:
    anna = Source(uri="/new/a.mp4", speaker="anna", split="validation")
    earlier = {"kind": "source", "source": "old-12345678", "speaker": "anna", "split": "train"}
    with pytest.raises(ManifestError, match="speaker anna is to be in validation, but clips that earlier runs"):
        refuse_other_splits([anna], [earlier])
    refuse_other_splits([anna], [earlier | {"split": "validation"}])
    # Its own earlier row doesn't bind a source: it is prepared anew.
    refuse_other_splits([anna], [earlier | {"source": anna.name}])
