"""The whole way on generated videos: prepared, trained by two workers of which one is killed, judged, dubbed with."""

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray

from dreamhead import cli
from dreamhead.checkpoint import Checkpoint
from dreamhead.cluster import evaluate, prepare, train
from dreamhead.cluster.command import SUCCEEDED
from dreamhead.media.video import probe, read_frames
from dreamhead.training.dataset import list_clips
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import LANDMARKS, STAGES
from tests.cluster.test_trainer import worker_pids
from tests.stages.preparation.conftest import Talker, babble, make_talker
from tests.tiny import tiny_checkpoint

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"
JUDGED = ("real", "self", "painted", "warp")

pytestmark = [
    pytest.mark.ray,
    # Ray's own: every trainer carries settings of Ray Data, and reading them back touches what Ray will drop.
    pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning"),
    pytest.mark.usefixtures("ray_session"),
]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three people who talk; the third one's sound comes 120 ms late."""
    talker = make_talker(str(tiny_checkpoint(tmp_path / "talking")))
    folder = tmp_path / "videos"
    folder.mkdir()
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in talker.frames]
    bluish = [np.ascontiguousarray(frame[..., ::-1]) for frame in talker.frames]
    talker.write(folder / "anna.mov")
    Talker(mirrored, talker.opening, talker.samples).write(folder / "berta.mov")
    Talker(bluish, talker.opening, talker.samples).write(folder / "clara.mov", late_s=0.12)
    return folder


def prepared(videos: Path, folder: Path) -> str:
    """Make the data set; clara is for validation."""
    settings = {"speech_encoder": "log_mel", "crop_size": 64, "clip_s": 2.5, "pool": {"num_cpus": 0.5}}
    settings |= {"variants": {"count": 2, "unchanged": 1}, "filters": {"min_face_px": 32, "min_sharpness": 0.0001}}
    (folder / "prepare.yaml").write_text(yaml.safe_dump(settings))
    weights, output = str(tiny_checkpoint(folder / "tiny")), str(folder / "data")
    options = ["--config", str(folder / "prepare.yaml"), "--checkpoint", weights, "--validation-speakers", "clara"]
    assert prepare.main([str(videos), "--output", output, *options]) == 0
    return output


def kill_one_of_two(run: RunFolder, killed: list[int], over: threading.Event) -> None:
    """Once the first stage has a checkpoint, end one of its workers as no handler can refuse."""
    while not over.wait(0.05):
        if run.steps() and run.finished() is None:
            killed.append(worker_pids()[-1])
            os.kill(killed[0], signal.SIGKILL)
            return


def trained(data: str, folder: Path) -> str:
    """Train all stages with two workers, one of which doesn't live to see the end of it."""
    killed: list[int] = []
    over = threading.Event()
    run = RunFolder(str(folder / "runs/toy" / LANDMARKS))
    killer = threading.Thread(target=kill_one_of_two, args=(run, killed, over))
    killer.start()
    place = ["--data", data, "--config", str(CONFIG), "--name", "toy", "--storage", str(folder / "runs")]
    try:
        assert train.main(["--stage", "all", *place, "--num-workers", "2"]) == SUCCEEDED
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1
    assert len((folder / "runs/toy" / LANDMARKS / "restarts.jsonl").read_text().splitlines()) == 1
    return str(folder / "runs/toy/checkpoint")


def judged(videos: Path, checkpoint: str, folder: Path) -> dict[str, dict[str, float]]:
    """Figures by condition of the person that nothing was trained on."""
    (folder / "clips.jsonl").write_text(json.dumps({"video_uri": str(videos / "clara.mov"), "speech_lag_s": 0.12}))
    settings = {"conditions": list(JUDGED), "seconds": 1.0, "pool": {"num_cpus": 0.5}, "apart_s": 0.3}
    (folder / "evaluate.yaml").write_text(yaml.safe_dump(settings))
    paths = {"--clips": folder / "clips.jsonl", "--output": folder / "judged", "--config": folder / "evaluate.yaml"}
    given = [str(part) for pair in paths.items() for part in pair]
    assert evaluate.main([*given, "--checkpoint", checkpoint]) == 0
    (clip,) = json.loads((folder / "judged/results.json").read_text())["clips"]
    return {name: found["figures"] for name, found in clip["conditions"].items()}


def frames_of(path: Path) -> NDArray[np.uint8]:
    info = probe(str(path))
    return np.stack(list(read_frames(info, range(info.frame_count))))


def test_from_videos_to_weights_to_a_dub(videos: Path, tmp_path: Path) -> None:
    data = prepared(videos, tmp_path)
    assert {info.speaker for info in list_clips(data, "train")} == {"anna", "berta"}
    assert {info.speaker for info in list_clips(data, "validation")} == {"clara"}
    lags = {row["source"]: row["lag_s"] for row in pq.read_table(f"{data}/report.parquet").to_pylist() if row["lag_s"]}
    assert all(lag == pytest.approx(0.12 if "clara" in source else 0.0, abs=0.03) for source, lag in lags.items())

    checkpoint = trained(data, tmp_path)
    for stage in STAGES:
        note = RunFolder(str(tmp_path / "runs/toy" / stage)).finished()
        assert note is not None
        assert note["step"] == 60
    assert Checkpoint.load(checkpoint).config.crop_size == 64

    figures = judged(videos, checkpoint, tmp_path)
    assert set(figures) == set(JUDGED)
    assert figures["real"]["mouth_psnr_db"] > figures["warp"]["mouth_psnr_db"] > 15

    output = tmp_path / "dubbed.mp4"
    speech = str(tmp_path / "speech.wav")
    _write_speech(speech)
    options = ["--video", str(videos / "clara.mov"), "--audio", speech, "--output", str(output)]
    assert cli.main(["dub", *options, "--checkpoint", checkpoint]) == 0
    before, after = frames_of(videos / "clara.mov"), frames_of(output)
    assert after.shape == before.shape
    difference = np.abs(after.astype(int) - before).mean(axis=(0, 3))
    # The lower face is another, the rest but encoded again.
    assert difference[140:200, 90:170].mean() > 1.5 * difference[:60].mean()


def _write_speech(path: str) -> None:
    from dreamhead.media.audio import write_wav

    write_wav(Path(path), babble(4.0, seed=1), 16_000)
