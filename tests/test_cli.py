"""The command line: exit statuses, one line for an error, and what a table says."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dreamhead import __version__, cli
from dreamhead.config import DubSettings
from dreamhead.errors import CheckpointError
from dreamhead.media import probing
from dreamhead.media.audio import write_wav
from dreamhead.records import Job
from dreamhead.stages import dub as dub_stage
from dreamhead.stages import results
from tests.tiny import CROP_SIZE, tiny_checkpoint


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture and a second of sound in the working directory; wide lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    cv2.imwrite(str(tmp_path / "face.png"), np.full((48, 64, 3), 90, np.uint8))
    write_wav(tmp_path / "speech.wav", np.zeros(16_000, np.float32), 16_000)
    return tmp_path


def dub(*more: str) -> int:
    return cli.main(["dub", "--video", "face.png", "--audio", "speech.wav", "--output", "out/dubbed.mp4", *more])


def stand_in(monkeypatch: pytest.MonkeyPatch, **outcome: object) -> list[tuple[Job, DubSettings, str, str]]:
    """Replace the dub itself; returns the calls."""
    calls: list[tuple[Job, DubSettings, str, str]] = []

    def dubbed(job: Job, settings: DubSettings, checkpoint: str, work: str, progress: object) -> dict[str, object]:
        calls.append((job, settings, checkpoint, work))
        return results.failed(job, "MediaError: face.png: cut short") | outcome

    monkeypatch.setattr(dub_stage, "dub", dubbed)
    return calls


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert cli.main(["--version"]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in ("dub", "demo", "inspect", "judge"))
    assert said.endswith(f"dreamhead {__version__}\n")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from dreamhead import cli; print({'torch', 'ray', 'mediapipe'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("argv", [["dub", "--video", "a.mp4"], ["paint"], ["inspect"]])
def test_wrong_usage_exits_with_2(argv: list[str]) -> None:
    assert cli.main(argv) == 2


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--face", "huge"],
            "wrong usage: face: 'huge' is not allowed; use largest, point:x,y@seconds or box:x0,y0,x1,y1@seconds, "
            "in pixels as shown, no number below 0\n",
        ),
        (["--config", "absent.yaml"], "ConfigError: absent.yaml: No such file or directory\n"),
    ],
)
def test_wrong_values_are_one_line(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dub(*more) == 2
    assert capsys.readouterr().err == said


def test_an_unknown_setting_names_file_and_key(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "dub.yaml").write_text("render: {renderer: magic}\n")
    assert dub("--config", "dub.yaml") == 2
    assert capsys.readouterr().err.startswith("ConfigError: dub.yaml: render.renderer: ")


def test_a_dub_gets_what_was_asked(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = {"status": "succeeded", "frames": 25, "dubbed_frames": 20, "passed_through": {"NO_FACE": 5}}
    calls = stand_in(monkeypatch, **outcome, seconds={"render": 1.26, "analyse": 2}, warnings="")
    (files / "dub.yaml").write_text("render: {renderer: warp}\n")
    tiny_checkpoint(files / "weights")
    more = ["--seed", "7", "--face", "point:3,4@0.5", "--on-longer-audio", "pingpong", "--config", "dub.yaml"]
    assert dub(*more, "--checkpoint", "weights") == 0
    ((job, settings, checkpoint, work),) = calls
    assert (job.seed, job.face, job.on_longer_audio) == (7, "point:3,4@0.5", "pingpong")
    assert (job.video_uri, job.output_uri) == (str(files / "face.png"), str(files / "out" / "dubbed.mp4"))
    assert settings.render.renderer == "warp"
    assert settings.analysis.crop_size == CROP_SIZE
    assert (checkpoint, work) == (str(files / "weights"), str(files / "out" / "dreamhead-work"))
    assert capsys.readouterr().out.splitlines() == [
        str(files / "out" / "dubbed.mp4"),
        "20 of 25 frames dubbed in 3.3 s",
        "passed through: 5 no face",
    ]


@pytest.mark.usefixtures("files")
def test_the_bundled_weights_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch)
    dub("--work", "s3://bucket/work")
    assert calls[0][2:] == ("", "s3://bucket/work")


@pytest.mark.usefixtures("files")
def test_a_failed_dub_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(monkeypatch)
    assert dub() == 1
    assert capsys.readouterr().err == "MediaError: face.png: cut short\n"


@pytest.mark.usefixtures("files")
def test_weights_that_fail_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*arguments: object) -> None:
        raise CheckpointError("weights: config.json is missing")

    monkeypatch.setattr(dub_stage, "dub", refuse)
    assert dub() == cli.WRONG_USAGE
    assert capsys.readouterr().err == "CheckpointError: weights: config.json is missing\n"


@pytest.mark.usefixtures("files")
def test_inspect_tells_pictures_and_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "face.png"]) == 0
    told = capsys.readouterr().out
    assert "64 x 48, turned by 0 degrees" in told
    assert "64 x 48 square pixels" in told
    assert cli.main(["inspect", "speech.wav"]) == 0
    assert "pcm_s16le, 16000 Hz, 1 channels, 1.000 s" in capsys.readouterr().out


def test_inspect_says_what_to_know_of_a_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(files / "silent.wav", np.zeros(16_000, np.float32), 16_000)
    assert cli.main(["inspect", "silent.wav"]) == 0
    assert "warnings" in (said := capsys.readouterr().out)
    assert "silent all" in said


def test_inspect_refuses_what_is_neither(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "notes.txt").write_text(json.dumps({}))
    assert cli.main(["inspect", "notes.txt"]) == 1
    assert capsys.readouterr().err.startswith("MediaError: notes.txt: ")
    assert cli.main(["inspect", "absent"]) == cli.WRONG_USAGE
    assert capsys.readouterr().err.startswith("CheckpointError: ")


def test_inspect_survives_a_crash_of_the_decoder_and_names_the_file(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deadly = "probing.probe_audio = lambda uri: os.kill(os.getpid(), signal.SIGSEGV)"
    script = f"import os, signal, sys; from dreamhead.media import probing; {deadly}; probing.main(*sys.argv[1:])"
    monkeypatch.setattr(probing, "PROBE", (sys.executable, "-c", script))
    assert cli.main(["inspect", "speech.wav"]) == cli.FAILED
    assert capsys.readouterr().err.startswith("MediaError: speech.wav: the decoder crashed over it (SIGSEGV)")
