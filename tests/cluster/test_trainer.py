"""Training on Ray: workers that fit, a worker that is killed, a run that was begun in one process."""

import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamhead.cluster import train
from dreamhead.cluster.command import SUCCEEDED
from dreamhead.cluster.pools import Node
from dreamhead.cluster.trainer import check_workers_fit
from dreamhead.config import load_yaml
from dreamhead.errors import ClusterError
from dreamhead.training.dataset import write_clips
from dreamhead.training.journal import read_log
from dreamhead.training.loop import Watcher
from dreamhead.training.plan import Plan, Request, plan
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import LANDMARKS, TrainingSettings, WorkersSettings
from dreamhead.training.stage import train_stage
from tests.training.conftest import clip_row
from tests.training.pair import run_pair

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.mark.parametrize(
    ("workers", "nodes", "use_gpu"),
    [
        (WorkersSettings(num_workers=2), [Node(2, 0)], False),
        (WorkersSettings(num_workers=(2, 9)), [Node(1, 0), Node(1.5, 0)], False),
        (WorkersSettings(num_workers=3, cpus_per_worker=0.1), [Node(0.3, 0)], False),
        (WorkersSettings(num_workers=4, cpus_per_worker=2), [Node(0, 0), Node(8, 4)], True),
    ],
)
def test_workers_that_fit_are_let_in(workers: WorkersSettings, nodes: list[Node], use_gpu: bool) -> None:
    check_workers_fit(workers, nodes, use_gpu)


def test_workers_that_would_wait_for_ever_are_refused() -> None:
    with pytest.raises(ClusterError) as caught:
        check_workers_fit(WorkersSettings(num_workers=4, cpus_per_worker=2), [Node(8, 1), Node(3, 2)], use_gpu=True)
    assert str(caught.value) == (
        "workers: 4 with 2 CPUs and a GPU each don't fit: the cluster has 11 CPUs and 3 GPUs on 2 machines, "
        "room for 2; lower num_workers or cpus_per_worker, or set use_gpu to false"
    )
    with pytest.raises(ClusterError, match="3 with 1 CPUs each don't fit"):
        check_workers_fit(WorkersSettings(num_workers=3), [Node(1.9, 0)], use_gpu=False)


class StopAt(Watcher):
    """Stops a run after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def wants_stop(self, step: int) -> bool:
        return step == self._step


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with a data set, and a run that this process took 20 of 60 steps of."""
    write_clips(str(tmp_path / "data/train/a.parquet"), [clip_row("first", 0), clip_row("second", 1)])
    write_clips(str(tmp_path / "data/validation/a.parquet"), [clip_row("third", 2, frames=70)])
    with pytest.raises(KeyboardInterrupt):
        train_stage(planned(tmp_path, "runs"), torch.device("cpu"), StopAt(20))
    return tmp_path


def planned(folder: Path, runs: str) -> Plan:
    settings = load_yaml(CONFIG, TrainingSettings)
    request = Request(settings=settings, data_uri=str(folder / "data"), run_uri=str(folder / runs / "toy"))
    return plan(request, LANDMARKS)


def go_on(folder: Path) -> None:
    """In each of two processes, without Ray."""
    train_stage(planned(folder, "alone"), torch.device("cpu"), Watcher())


def kill_a_worker(run: RunFolder, killed: list[int], over: threading.Event) -> None:
    """Once there is a checkpoint of the two workers, end one of them as no handler can refuse."""
    while not over.wait(0.01):
        if run.steps()[-1] >= 40:
            killed.append(worker_pids()[-1])
            os.kill(killed[0], signal.SIGKILL)
            return


def worker_pids() -> list[int]:
    """Processes of Ray Train that this process's own Ray has started."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                names[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue

    def is_ours(pid: int) -> bool:
        while pid in parents:
            if pid == os.getpid():
                return True
            pid = parents[pid]
        return False

    return sorted(pid for pid, name in names.items() if name.startswith("ray::") and "Train" in name and is_ours(pid))


@pytest.mark.ray
# Ray's own: every trainer carries settings of Ray Data, and reading them back touches what Ray will drop.
@pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning")
@pytest.mark.usefixtures("ray_session")
def test_a_killed_worker_changes_nothing(
    begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Begun in one process, gone on with by the command with two workers, one of which is killed, against two alone."""
    shutil.copytree(begun / "runs", begun / "alone")
    run_pair(go_on, begun)
    monkeypatch.chdir(begun)
    folder, killed = RunFolder(str(begun / "runs" / "toy" / LANDMARKS)), list[int]()
    over = threading.Event()
    killer = threading.Thread(target=kill_a_worker, args=(folder, killed, over))
    killer.start()
    command = ["--stage", LANDMARKS, "--data", "data", "--config", str(CONFIG), "--name", "toy", "--storage", "runs"]
    try:
        status = train.main([*command, "--num-workers", "2"])
    finally:
        over.set()
        killer.join()
    assert status == SUCCEEDED
    assert len(killed) == 1
    assert len((begun / "runs" / "toy" / LANDMARKS / "restarts.jsonl").read_text().splitlines()) == 1
    alone = RunFolder(str(begun / "alone" / "toy" / LANDMARKS))
    ours, theirs = folder.load(60), alone.load(60)
    for part in ("network", "average"):
        for name, value in theirs[part].items():
            torch.testing.assert_close(ours[part][name], value, rtol=1e-5, atol=1e-6)
    lines, others = read_log(folder.uri), read_log(alone.uri)
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    losses = [[line["loss"] for line in log if "loss" in line] for log in (lines, others)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert folder.finished() is not None
    capsys.readouterr()
    assert train.main([*command, "--num-workers", "2"]) == SUCCEEDED
    assert capsys.readouterr().err == "audio_to_landmark: all 60 steps are done\n"
