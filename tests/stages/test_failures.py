"""What can go wrong in a stage: which error, said how, tried how often, and what is left for the next run."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamhead import storage
from dreamhead.config import DubSettings
from dreamhead.errors import ClusterError, ConfigError, InputError, MediaError, StorageError
from dreamhead.records import Chunk, Route, Segment
from dreamhead.stages import analyse, opening, render
from dreamhead.stages.artefacts import load_arrays, load_json, save_json
from dreamhead.stages.attempts import attempt
from dreamhead.stages.prepare import prepare
from tests.tiny import CROP_SIZE, tiny_checkpoint

Studio = Any  # The fixture's own class; conftest modules can't be imported.


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"video_uri": "/nowhere/a.mp4"}, "InputError: video_uri: /nowhere/a.mp4: can't look up: No such file"),
        ({"audio_uri": "/nowhere/a.wav"}, "InputError: audio_uri: /nowhere/a.wav: can't look up: No such file"),
        ({"segments": (Segment(5.0, 6.0),)}, "InputError: segments: 5.0 to 6.0 s begins after the end of"),
        ({"on_longer_audio": "error"}, "InputError: on_longer_audio: "),
        ({"output_uri": "/dev/null/a.mp4"}, "InputError: output_uri: "),
        ({"output_uri": "a.avi"}, "MediaError: output_uri: a.avi: no container for the suffix '.avi'; allowed: "),
    ],
)
def test_a_job_that_cant_be_dubbed_is_a_failed_row(studio: Studio, change: dict[str, Any], error: str) -> None:
    job = replace(studio.job(studio.clip(10), studio.speech(1.0)), **change)
    row = studio.dub(job)
    assert row["status"] == "failed"
    assert f"{row['error_type']}: {row['error']}".startswith(error)
    assert not studio.calls.walked


def test_inputs_that_arent_media_name_their_column(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    job = studio.job(str(tmp_path / "text.mp4"), studio.speech(1.0))
    row = studio.dub(job)
    assert (row["error_type"], row["error"].partition(":")[0]) == ("MediaError", "video_uri")


def test_an_output_never_replaces_its_input(studio: Studio) -> None:
    job = studio.job(studio.clip(10), studio.speech(0.4))
    row = studio.dub(replace(job, output_uri=job.video_uri))
    assert "is an input of the same job; nothing is overwritten" in row["error"]


def test_a_video_without_a_face_fails_and_says_what_was_seen(studio: Studio) -> None:
    studio.calls.routes = {index: Route.NO_FACE if index < 8 else Route.FACE_TOO_SMALL for index in range(10)}
    job = studio.job(studio.clip(10), studio.speech(0.4))
    row = studio.dub(job)
    assert row["error_type"] == "NoFaceError"
    assert "no usable face in any of its 10 frames: FACE_TOO_SMALL in 2, NO_FACE in 8" in row["error"]
    assert not storage.exists(job.output_uri)


def test_a_segment_without_dubbed_frames_is_no_missing_face(studio: Studio) -> None:
    studio.calls.routes = {index: Route.NO_FACE for index in range(5)}
    job = studio.job(studio.clip(10), studio.speech(0.4), segments=(Segment(0.0, 0.16),))
    assert studio.dub(job)["status"] == "succeeded"


def broken(error: Exception, times: int, then: Callable[..., Any]) -> Callable[..., Any]:
    left = [times]

    def call(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return then(*arguments)

    return call


def test_a_chunk_that_fails_fails_its_job_with_the_reason(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "encode_chunk", broken(MediaError("frame 3 is damaged"), 1, render.encode_chunk))
    job = studio.job(studio.clip(10), studio.speech(0.4))
    row = studio.dub(job)
    assert (row["error_type"], row["error"], row["attempts"]) == ("MediaError", "frame 3 is damaged", 1)
    assert studio.dub(job)["status"] == "succeeded"


def test_storage_is_tried_again(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "encode_chunk", broken(StorageError("timed out"), 2, render.encode_chunk))
    row = studio.dub(studio.job(studio.clip(10), studio.speech(0.4)))
    assert (row["status"], row["attempts"], row["chunks_rendered"]) == ("succeeded", 3, 1)


def test_any_other_exception_is_counted_until_the_chunk_is_given_up(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "encode_chunk", broken(RuntimeError("out of memory"), 9, render.encode_chunk))
    job = prepare(studio.job(studio.clip(10), studio.speech(0.4)), studio.work()).job
    chunk = Chunk(job=job, start=0, stop=10, shot_start=0, shot_stop=10, analysis_uri="")
    (chunk,) = [chunk for span in prepare(job, studio.work()).spans for chunk in walk(studio, span)]
    chunk = replace(chunk, landmarks_uri="unread")
    monkeypatch.setattr(render, "load_arrays", lambda *arguments: ([[0]] * 10,))
    stage = render.RenderChunk(studio.settings, "", studio.work_uri)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="out of memory"):
            stage(chunk)
    error = "frames 0 to 10 of job job was given up after 3 tries, the last failed with: RuntimeError: out of memory"
    assert stage(chunk).error == f"ClusterError: {error}"
    other = replace(chunk, start=10, stop=20)
    assert stage(other).error == f"ClusterError: {error}"  # Not tried: its job has failed.
    prepare(job, studio.work())
    with pytest.raises(RuntimeError, match="out of memory"):
        stage(chunk)


def walk(studio: Studio, span: Any) -> list[Chunk]:
    with closing(analyse.AnalyseSpan(studio.settings, "", studio.work_uri)) as stage:
        return list(stage(span))


def test_a_walk_that_is_given_up_repeats_what_it_had_before_it_says_so(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.calls.cuts = (4, 8)
    (span,) = prepare(studio.job(studio.clip(12), studio.speech(0.4)), studio.work()).spans
    original = analyse.save_shot

    def save(uri: str, shot: Any) -> None:
        if shot.start == 8:
            raise RuntimeError("detector died")
        original(uri, shot)

    monkeypatch.setattr(analyse, "save_shot", save)
    with closing(analyse.AnalyseSpan(studio.settings, "", studio.work_uri)) as stage:
        for _ in range(3):
            seen: list[Chunk] = []
            with pytest.raises(RuntimeError, match="detector died"):
                seen.extend(iter_into(stage(span), seen))
            assert [(chunk.start, chunk.stop, chunk.error) for chunk in seen] == [(0, 4, ""), (4, 8, "")]
        *known, last = stage(span)
    assert [(chunk.start, chunk.stop) for chunk in known] == [(0, 4), (4, 8)]
    assert (last.start, last.stop) == (0, 12)
    assert "given up after 3 tries, the last failed with: RuntimeError: detector died" in last.error


def iter_into(chunks: Any, seen: list[Chunk]) -> list[Chunk]:
    for chunk in chunks:
        seen.append(chunk)
    return []


def test_a_death_without_words_counts_too(studio: Studio, tmp_path: Path) -> None:
    uri = str(tmp_path / "count.json")
    save_json(uri, {"tries": [{"node": "", "error": ""}] * 2})
    with (
        pytest.raises(ClusterError, match=r"frames was given up after 2 tries.*the process died"),
        attempt(uri, 2, "frames"),
    ):
        pytest.fail("the work must not start")


def test_failed_chunks_pass_through_the_stages(studio: Studio) -> None:
    job = studio.job("a.mp4", "a.wav")
    chunk = Chunk(job=job, start=0, stop=1, shot_start=0, shot_stop=1, analysis_uri="", error="MediaError: x")
    assert render.RenderChunk(studio.settings, "", studio.work_uri)(chunk) is chunk


def test_settings_that_dont_fit_the_weights_are_refused(studio: Studio) -> None:
    settings = studio.settings.model_copy(
        update={"analysis": studio.settings.analysis.model_copy(update={"crop_size": 64})}
    )
    with pytest.raises(ConfigError, match=r"analysis.crop_size is 64, but the checkpoint was trained for 32"):
        studio.dub(studio.job("a", "b"), settings)


def test_artefacts_that_were_tampered_with_are_storage_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK broken")
    with pytest.raises(StorageError, match=r"a.npz: not the .npz file with targets"):
        load_arrays(str(path), "targets")
    path.write_bytes(b"[1]")
    with pytest.raises(StorageError, match="expected a JSON object, got list"):
        load_json(str(path))


def test_prepare_refuses_in_words(studio: Studio) -> None:
    job = studio.job(studio.clip(10), studio.speech(1.0), on_longer_audio="error")
    with pytest.raises(InputError, match="set on_longer_audio to trim, freeze or pingpong"):
        prepare(job, studio.work())


def test_the_crop_is_as_large_as_the_checkpoint_wants_unless_settings_say_otherwise(tmp_path: Path) -> None:
    weights = str(tiny_checkpoint(tmp_path / "weights"))
    assert opening.fitted(DubSettings(), weights).analysis.crop_size == CROP_SIZE
    said = DubSettings.model_validate({"analysis": {"crop_size": 96}})
    assert opening.fitted(said, weights) is said
