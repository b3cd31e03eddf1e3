"""The evaluation command on Ray: a report with a bad clip in it, resume, an end by hand, pools."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from numpy.typing import NDArray

from dreamhead.cluster import evaluate
from dreamhead.cluster.command import INTERRUPTED, REFUSED, SOME_FAILED
from dreamhead.cluster.evaluation import plan_pool
from dreamhead.cluster.pools import Node
from dreamhead.config import PoolSettings
from dreamhead.errors import ClusterError
from dreamhead.evaluation.records import Task, Verdict
from dreamhead.evaluation.settings import EvaluationSettings
from tests.evaluation.conftest import SETTINGS
from tests.tiny import tiny_checkpoint

pytestmark = [
    pytest.mark.ray,
    # Ray Data warns of its own settings when it makes its own context.
    pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning"),
]


class Bench:
    """A list of a clip and a bad row, settings and tiny weights, all in one folder."""

    def __init__(self, folder: Path, video_uri: str, audio_uri: str) -> None:
        self.folder = folder
        self.checkpoint = str(tiny_checkpoint(folder / "checkpoint"))
        rows = [{"video_uri": video_uri, "audio_uri": audio_uri}, {"video_uri": "gone.mp4"}]
        self.clips = folder / "clips.jsonl"
        self.clips.write_text("\n".join(map(json.dumps, rows)))
        self.config = folder / "config.yaml"
        self.output = folder / "out"

    def run(self, *more: str, **changes: Any) -> int:
        """The command's exit status."""
        values = SETTINGS.model_dump(mode="json", exclude_unset=True) | {"pool": {"num_cpus": 0.5}} | changes
        self.config.write_text(yaml.safe_dump(values))
        paths = {"--clips": self.clips, "--output": self.output, "--config": self.config}
        given = [str(part) for pair in paths.items() for part in pair]
        return evaluate.main([*given, "--checkpoint", self.checkpoint, *more])

    def results(self) -> dict[str, Any]:
        """results.json."""
        found: dict[str, Any] = json.loads((self.output / "results.json").read_text())
        return found


@pytest.fixture
def bench(
    tmp_path: Path, make_video: Callable[..., str], make_tone: Callable[..., str], face_frames: list[NDArray[Any]]
) -> Bench:
    video_uri = make_video("clip.mp4", [*face_frames, *face_frames[:6]])
    return Bench(tmp_path, video_uri, make_tone("en.wav", 1.2))


def test_a_report_of_a_good_and_a_bad_clip_and_nothing_is_judged_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"conditions": ["real", "silent", "warp"]}
    assert bench.run("--markdown", str(bench.folder / "docs" / "e.md"), **few) == SOME_FAILED
    told = capsys.readouterr().err
    assert "2 clips, 6 conditions in all: 6 to judge, 0 are there" in told
    assert "gone real: failed: MediaError: " in told
    values = bench.results()
    assert [clip["clip_id"] for clip in values["clips"]] == ["gone", "clip"]
    assert values["clips"][1]["conditions"]["silent"]["figures"]["shut"] >= 0
    assert values["clips"][1]["conditions"]["warp"]["figures"]["mouth_psnr_db"] > 15
    page = (bench.output / "report.html").read_text()
    assert page.index('id="gone"') < page.index('id="clip"')
    assert "weights not given: judges.syncnet" in page
    assert (bench.folder / "docs" / "e" / "clip-self.jpg").exists() is False
    assert "gone failed (real, silent, warp): MediaError" in (bench.folder / "docs" / "e.md").read_text()

    asked = given(monkeypatch)
    bench.run(**few)
    assert [task.clip.clip_id for task in asked] == ["gone"] * 3
    assert "6 conditions in all: 3 to judge, 3 are there" in capsys.readouterr().err
    # Another measure judges again, another target only reads the verdicts differently.
    assert len(given(monkeypatch, lambda: bench.run(**few, shut_share=0.5))) == 6
    assert len(given(monkeypatch, lambda: bench.run(**few, targets={"shut": 0.1}))) == 3


def given(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object] = lambda: None) -> list[Task]:
    """The tasks that runs from now on would give to Ray."""
    asked: list[Task] = []

    def judge_all(tasks: Sequence[Task], *more: Any) -> list[Verdict]:
        asked.extend(tasks)
        return []

    monkeypatch.setattr(evaluate, "judge_all", judge_all)
    run()
    return asked


def test_an_end_by_hand_leaves_what_was_judged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "judge_all", interrupted)
    assert bench.run() == INTERRUPTED
    told = capsys.readouterr().err
    assert "interrupted; the same command goes on where this one stopped" in told
    assert "20 not judged yet" in told
    assert bench.results()["unfinished"] == 20


def test_what_cant_be_used_is_refused_before_any_work(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("--seconds", "-1") == REFUSED
    assert "ConfigError: --seconds: seconds: Input should be greater than 0" in capsys.readouterr().err
    assert bench.run(judges={"recognition": "gone.onnx"}) == REFUSED
    assert "setting judges.recognition: gone.onnx is not a file" in capsys.readouterr().err
    bench.clips = bench.folder / "gone.csv"
    assert bench.run() == REFUSED
    assert "ManifestError: " in capsys.readouterr().err
    assert not bench.output.exists()


def test_the_pool_fits_the_cluster() -> None:
    settings = EvaluationSettings()
    assert plan_pool(settings, [Node(2, 0)]).max_size == 1
    assert plan_pool(settings, [Node(8, 0), Node(8, 0)]).max_size == 8
    gpu = plan_pool(settings, [Node(16, 1)])
    assert (gpu.max_size, gpu.num_gpus) == (4, 0.25)
    large = settings.model_copy(update={"pool": PoolSettings(min_size=3, max_size=3, num_cpus=4)})
    with pytest.raises(ClusterError, match=r"room for 2 actors of 4 CPUs .* pool.min_size is 3"):
        plan_pool(large, [Node(8, 0)])
    with pytest.raises(ClusterError, match=r"dub.device: cuda was asked for"):
        plan_pool(EvaluationSettings.model_validate({"dub": {"device": "cuda"}}), [Node(8, 0)])
