"""The curves of a dub's lips: what the review measured, over all frames, also those that the source doesn't have."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamhead import storage
from dreamhead.config import DubSettings
from dreamhead.errors import StorageError
from dreamhead.faces import geometry
from dreamhead.media.audio import write_wav
from dreamhead.records import Job, Segment
from dreamhead.stages.opening import open_work
from dreamhead.stages.prepare import with_digests
from dreamhead.stages.review.lips import LipCurves, lip_curves, save_lips
from dreamhead.stages.review.record import load_review
from dreamhead.stages.work import Work

Clip = Any  # The fixtures' own classes; conftest modules can't be imported.
Dubber = Any

FRAMES = 30


@pytest.fixture
def job(clip: Clip, tmp_path: Path) -> Job:
    named: Job = replace(clip.job, job_id=tmp_path.name, output_uri=str(tmp_path / "out.mp4"))
    return named


def dubbed(dubber: Dubber, settings: DubSettings, job: Job) -> tuple[dict[str, Any], Job, Work]:
    """The results row, and what the curves are made from."""
    row = dubber(settings, job)
    assert (row["status"], row["error"]) == ("succeeded", "")
    work, _ = open_work(settings, dubber.weights, dubber.work_uri)
    return row, with_digests(job, work), work


def test_the_curves_are_the_reviews_over_all_frames(
    dubber: Dubber, settings: DubSettings, job: Job, clip: Clip
) -> None:
    row, job, work = dubbed(dubber, settings, job)
    curves = lip_curves(job, work)
    assert curves.times_s == pytest.approx(np.arange(FRAMES) / 25)
    assert curves.source_times_s == curves.times_s
    assert curves.duration_s == FRAMES / 25
    # The clip's own analysis is that of its frames before they were encoded.
    own = geometry.lip_opening(geometry.fit_pose(clip.shot.landmarks).to_canonical(clip.shot.landmarks))
    assert np.abs(curves.source - own).max() < 0.02
    seen = 0
    for stretch in load_review(row["review_uri"]).curves:
        first = round(25 * stretch["times_s"][0])
        part = slice(first, first + len(stretch["times_s"]))
        assert curves.found[part] == stretch["ours"]
        assert curves.new[part] == pytest.approx(stretch["wanted"], abs=1e-4)
        seen += len(stretch["times_s"])
    assert (seen, sum(value is not None for value in curves.found)) == (26, 26)
    assert np.ptp(curves.new) > 0.01


def test_the_level_is_the_speechs(dubber: Dubber, settings: DubSettings, job: Job, tmp_path: Path) -> None:
    samples = np.zeros(round(1.2 * 16_000), np.float32)
    samples[8_000:] = 0.1 * np.sign(np.sin(np.arange(len(samples) - 8_000) / 5))
    write_wav(tmp_path / "late.wav", samples, 16_000)
    _, job, work = dubbed(dubber, settings, replace(job, audio_uri=str(tmp_path / "late.wav")))
    level = lip_curves(job, work).level_db
    assert len(level) == FRAMES
    assert max(level[:11]) == -120
    assert level[15:28] == pytest.approx([-20.0] * 13, abs=0.2)


def test_frames_outside_the_segments_have_the_sources_lips(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    _, job, work = dubbed(dubber, settings, replace(job, segments=(Segment(0.6, 1.2),)))
    curves = lip_curves(job, work)
    assert curves.new[:15] == curves.source[:15]
    assert curves.new[20:] != curves.source[20:]


@pytest.mark.parametrize(
    ("policy", "shown"), [("freeze", [*range(30), *[29] * 5]), ("pingpong", [*range(30), 28, 27, 26, 25, 24])]
)
def test_longer_speech_says_which_source_frame_is_shown(
    dubber: Dubber, settings: DubSettings, job: Job, tmp_path: Path, policy: Any, shown: list[int]
) -> None:
    write_wav(tmp_path / "long.wav", np.full(round(1.4 * 16_000), 0.1, np.float32), 16_000)
    longer = replace(job, audio_uri=str(tmp_path / "long.wav"), on_longer_audio=policy)
    _, job, work = dubbed(dubber, settings, longer)
    curves = lip_curves(job, work)
    assert curves.source_times_s == pytest.approx(np.array(shown) / 25)
    assert curves.times_s == pytest.approx(np.arange(35) / 25)
    assert [curves.source[frame] for frame in shown] == curves.source


def test_what_is_published_is_read_back(dubber: Dubber, settings: DubSettings, job: Job, tmp_path: Path) -> None:
    _, job, work = dubbed(dubber, settings, job)
    uri = str(tmp_path / "curve.json")
    save_lips(uri, job, work)
    assert LipCurves(**json.loads(storage.read_bytes(uri))) == lip_curves(job, work)


def test_without_its_artefacts_there_are_no_curves(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    _, job, work = dubbed(dubber, settings, job)
    for chunk in work.finished_chunks(job):
        storage.delete(chunk.landmarks_uri)
    with pytest.raises(StorageError, match="landmarks-"):
        lip_curves(job, work)
