"""One job through all stages: frames, routes, resume, and what is redone when a setting changes."""

from typing import Any

import numpy as np
import pytest

from dreamhead import storage
from dreamhead.config import DubSettings
from dreamhead.records import Route, Segment
from dreamhead.stages.artefacts import load_arrays

Studio = Any  # The fixture's own class; conftest modules can't be imported.


def changed(settings: DubSettings, section: str, **values: Any) -> DubSettings:
    part = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: part})


def test_every_frame_comes_out_dubbed_or_as_it_was(studio: Studio) -> None:
    studio.calls.cuts = (12, 30)
    studio.calls.routes = {index: Route.NO_FACE for index in range(20, 25)}
    video = studio.clip(45)
    job = studio.job(video, studio.speech(1.8))
    row = studio.dub(job, changed(studio.settings, "render", fade_s=0.0))
    assert (row["status"], row["error"], row["warnings"]) == ("succeeded", "", "")
    before, after = studio.brightness(video), studio.brightness(job.output_uri)
    assert len(after) == len(before) == 45
    for index, (source, shown) in enumerate(zip(before, after, strict=True)):
        assert abs(shown - (source if 20 <= index < 25 else 255)) <= 2, index
    assert (row["frames"], row["dubbed_frames"], row["passed_through"]) == (45, 40, {"NO_FACE": 5})
    assert row["chunks"] == row["chunks_rendered"] == row["attempts"] == len(studio.calls.painted)
    assert set(row["seconds"]) == {"analyse", "landmarks", "render", "finalize"}
    assert row["real_time_factor"] > 0
    assert (row["weights_digest"], len(row["settings_digest"])) == ("all", 16)


def test_the_mouth_fades_in_and_out(studio: Studio) -> None:
    studio.calls.routes = {5: Route.TURNED_AWAY}
    job = studio.job(studio.clip(10), studio.speech(0.4))
    row = studio.dub(job)
    after = studio.brightness(job.output_uri)
    expected = [16 + 4 * index for index in range(10)]
    shares = [1, 1, 1, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 1, 1]
    painted = [value + share * (255 - value) for value, share in zip(expected, shares, strict=True)]
    assert np.abs(np.array(after) - painted).max() <= 2
    assert (row["dubbed_frames"], row["passed_through"]) == (9, {"TURNED_AWAY": 1})


def test_only_segments_are_dubbed(studio: Studio) -> None:
    job = studio.job(studio.clip(25), studio.speech(1.0), segments=(Segment(0.4, 0.6),))
    row = studio.dub(job, changed(studio.settings, "render", fade_s=0.0))
    assert (row["dubbed_frames"], row["passed_through"]) == (5, {"OUTSIDE_SEGMENTS": 20})
    assert [index for index, value in enumerate(studio.brightness(job.output_uri)) if value > 250] == [*range(10, 15)]


def test_what_is_passed_through_needs_no_landmarks(studio: Studio) -> None:
    job = studio.job(studio.clip(25), studio.speech(1.0), segments=(Segment(0.4, 0.6),))
    row = studio.dub(job)
    tracks = [uri for uri in storage.list_files(studio.work_uri) if "/landmarks-" in uri and uri.endswith(".npz")]
    # Frames 10 to 15, in chunks of eight.
    assert [track.rpartition("landmarks-")[2] for track in tracks] == ["00000008-00000016.npz"]
    assert (row["chunks"], row["frames"]) == (3, 25)


def test_targets_follow_the_speech(studio: Studio) -> None:
    job = studio.job(studio.clip(25), studio.speech(0.5))
    studio.dub(job)
    tracks = [uri for uri in storage.list_files(studio.work_uri) if uri.endswith(".npz") and "landmarks-" in uri]
    targets = np.concatenate([load_arrays(uri, "targets")[0] for uri in tracks])
    assert targets[:, 0, 0].tolist() == pytest.approx([index / 25 for index in range(25)])
    level_db = targets[:, 0, 1]
    assert (level_db[:11] > -20).all()
    assert (level_db[15:] < -100).all()


def test_longer_speech_is_cut_with_a_warning(studio: Studio) -> None:
    job = studio.job(studio.clip(10), studio.speech(1.0))
    row = studio.dub(job)
    assert row["warnings"] == "the last 0.60 s of the speech were cut: it is longer than the video"
    assert row["frames"] == 10


def test_pingpong_shows_the_source_back_and_forth(studio: Studio) -> None:
    studio.calls.routes = {index: Route.NO_FACE for index in range(1, 6)}
    job = studio.job(studio.clip(6), studio.speech(0.56), on_longer_audio="pingpong")
    settings = changed(studio.settings, "render", fade_s=0.0)
    assert studio.dub(job, settings)["frames"] == 14
    shown = [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 1, 2, 3]
    expected = [255 if frame == 0 else 16 + 4 * frame for frame in shown]
    assert np.abs(np.array(studio.brightness(job.output_uri)) - expected).max() <= 2


def test_a_second_run_does_nothing(studio: Studio) -> None:
    job = studio.job(studio.clip(30), studio.speech(1.2))
    first = studio.dub(job)
    published = storage.content_digest(job.output_uri)
    done = len(studio.calls.painted)
    second = studio.dub(job)
    assert len(studio.calls.painted) == done
    assert (second["chunks"], second["chunks_rendered"], second["attempts"]) == (first["chunks"], 0, 0)
    assert second | {"chunks_rendered": 0, "attempts": 0} == first | {"chunks_rendered": 0, "attempts": 0}
    assert storage.content_digest(job.output_uri) == published


def test_an_output_that_is_gone_is_joined_again_from_its_chunks(studio: Studio) -> None:
    job = studio.job(studio.clip(30), studio.speech(1.2))
    studio.dub(job)
    calls = (len(studio.calls.walked), len(studio.calls.painted))
    storage.delete(job.output_uri)
    row = studio.dub(job)
    assert (len(studio.calls.walked), len(studio.calls.painted)) == calls
    assert (row["status"], row["chunks_rendered"]) == ("succeeded", 0)
    assert storage.exists(job.output_uri)


def test_only_missing_chunks_are_rendered_again(studio: Studio) -> None:
    job = studio.job(studio.clip(30), studio.speech(1.2))
    studio.dub(job)
    storage.delete(job.output_uri)
    sidecars = [uri for uri in storage.list_files(studio.work_uri) if "/chunk-" in uri and uri.endswith(".json")]
    storage.delete(sidecars[1])
    row = studio.dub(job)
    assert (row["chunks"], row["chunks_rendered"]) == (len(sidecars), 1)
    assert len(studio.calls.walked) == 2  # Two spans, walked once.


def test_a_change_redoes_only_what_depends_on_it(studio: Studio) -> None:
    job = studio.job(studio.clip(20), studio.speech(0.8))
    calls = studio.calls

    def counts() -> tuple[int, int, int]:
        return len(calls.walked), len(calls.spoken), len(calls.painted)

    studio.dub(job)
    assert counts() == (1, 2, 2)
    studio.dub(job, changed(studio.settings, "render", num_inference_steps=2))
    assert counts() == (1, 2, 4)
    studio.dub(job, changed(studio.settings, "landmarks", articulation=0.5))
    assert counts() == (1, 4, 6)
    studio.dub(job, changed(studio.settings, "analysis", min_face_px=20.0))
    assert counts() == (2, 6, 8)


def test_another_language_reuses_the_walk_of_the_video(studio: Studio) -> None:
    video = studio.clip(20)
    studio.dub(studio.job(video, studio.speech(0.8, "en.wav"), job_id="en"))
    studio.dub(studio.job(video, studio.speech(0.7, "de.wav"), job_id="de"))
    assert (len(studio.calls.walked), len(studio.calls.painted)) == (1, 4)


def test_progress_reaches_the_end(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamhead.stages.dub import dub

    seen: list[tuple[int, int]] = []
    job = studio.job(studio.clip(20), studio.speech(0.8))
    dub(job, studio.settings, "", studio.work_uri, lambda done, frames: seen.append((done, frames)))
    assert seen == [(10, 20), (20, 20)]
