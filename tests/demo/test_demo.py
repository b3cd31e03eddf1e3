"""The demonstration's samples: real speech, a smoothly moving clip, a manifest of which exactly one row is bad."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from dreamhead.cluster.manifest import read_manifest
from dreamhead.cluster.table import ResultsTable
from dreamhead.demo import run, samples
from dreamhead.demo.speech import speak
from dreamhead.errors import InputError
from dreamhead.media.audio import probe_audio, read_speech
from dreamhead.media.video import probe, read_frames
from dreamhead.stages import results


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.make_samples(tmp_path_factory.mktemp("demo") / "samples")


def test_one_row_is_bad_on_purpose(manifest: Path) -> None:
    read = read_manifest(str(manifest))
    assert not read.failed
    assert [job.job_id for job in read.jobs if not Path(job.video_uri).exists()] == [samples.BAD_JOB]
    assert all(Path(job.audio_uri).exists() for job in read.jobs)
    assert {Path(job.output_uri).parent for job in read.jobs} == {manifest.parents[1]}


def test_speech_is_spoken_within_the_clip(manifest: Path) -> None:
    for sample in samples.SAMPLES:
        sound = probe_audio(str(manifest.parent / f"{sample.job_id}.wav"))
        assert (sound.sample_rate, sound.channels) == (22_050, 1)
        assert 2 < sound.duration_s < samples.CLIP_S
        speech = read_speech(sound.uri, 0, sound.duration_s)
        assert 0.3 < np.abs(speech).max() <= 1


def test_languages_sound_different(tmp_path: Path) -> None:
    for voice in ("en-us", "es"):
        speak("Madrid", voice, tmp_path / f"{voice}.wav")
    assert (tmp_path / "en-us.wav").read_bytes() != (tmp_path / "es.wav").read_bytes()


def test_an_unknown_voice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no voice 'xx-nowhere'; allowed are the files of"):
        speak("hello", "xx-nowhere", tmp_path / "speech.wav")
    assert list(tmp_path.iterdir()) == []


def test_the_clip_moves_slowly_and_smoothly(manifest: Path) -> None:
    clip = probe(str(manifest.parent / "clip.mp4"))
    assert (clip.width, clip.height, clip.frame_count) == (512, 512, 150)
    assert clip.duration_s == samples.CLIP_S
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64) for frame in read_frames(clip, range(60))]
    window = cv2.createHanningWindow((512, 512), cv2.CV_64F)
    steps = np.array([cv2.phaseCorrelate(a, b, window)[0] for a, b in pairwise(grey)])
    assert 0.02 < np.hypot(*steps.T).mean() < 1
    assert np.abs(np.diff(steps, axis=0)).max() < 0.3


def test_the_picture_is_the_clip_s_first_frame(manifest: Path) -> None:
    picture = probe(str(manifest.parent / "portrait.png"))
    assert picture.is_still
    (still,) = read_frames(picture, [0])
    (first,) = read_frames(probe(str(manifest.parent / "clip.mp4")), [0])
    assert np.abs(still.astype(int) - first).mean() < 3


def row(index: int, status: str) -> dict[str, object]:
    return {
        "row": index,
        "job_id": f"job {index}",
        "status": status,
        "frames": 100,
        "dubbed_frames": 90,
        "seconds": [("render", 2.0), ("analyse", 0.5)],
        "output_uri": "out.mp4",
        "error_type": "MediaError",
        "error": "no such file",
    }


def test_the_table_says_where_or_why(tmp_path: Path) -> None:
    console = Console(record=True, width=120, file=(tmp_path / "table.txt").open("w"))
    with console.file:
        console.print(run.results_table([row(1, "failed"), row(0, "succeeded")]))
        lines = console.export_text().splitlines()
    (good,) = (line for line in lines if "job 0" in line)
    (bad,) = (line for line in lines if "job 1" in line)
    assert [part.strip() for part in good.split("│")[1:-1]] == ["job 0", "succeeded", "100", "90", "2.5", "out.mp4"]
    assert "MediaError: no such file" in bad
    assert lines.index(good) < lines.index(bad)


@pytest.mark.parametrize(
    ("failed", "batch_status", "expected"),
    [
        ({samples.BAD_JOB}, 1, 0),
        ({samples.BAD_JOB, "spanish"}, 1, 1),
        (set(), 0, 1),
        (set(), 2, 2),
        (set(), 130, 130),
    ],
)
def test_only_the_bad_row_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: set[str], batch_status: int, expected: int
) -> None:
    def dubbed(argv: list[str]) -> int:
        """How a batch ends: a row a job."""
        manifest, uri = argv[0], argv[argv.index("--results") + 1]
        table = ResultsTable(uri)
        for job in read_manifest(manifest).jobs:
            row = results.failed(job, "InputError: refused")
            table.add(row if job.job_id in failed else row | {"status": "succeeded", "seconds": {"render": 1.0}})
        table.write()
        return batch_status

    monkeypatch.setattr(run.batch, "main", dubbed)
    monkeypatch.setattr(samples, "CLIP_S", 0.2)
    with (tmp_path / "said.txt").open("w") as said:
        assert run.run_demo(tmp_path, Console(file=said, width=160)) == expected
    assert (tmp_path / "samples" / "manifest.parquet").exists()
    assert ("InputError: refused" in (tmp_path / "said.txt").read_text()) == bool(failed)
