"""What can go wrong in a stage: which error, said how, tried how often, and what is left for the next run."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamhead import storage
from dreamhead.config import DubSettings
from dreamhead.errors import ClusterError, ConfigError, DiskFullError, InputError, MediaError, StorageError
from dreamhead.records import Chunk, Route, Segment
from dreamhead.stages import analyse, finalize, opening, render
from dreamhead.stages.artefacts import load_arrays, load_json, save_json
from dreamhead.stages.attempts import attempt, publish_failure
from dreamhead.stages.clean import free_job
from dreamhead.stages.prepare import prepare
from dreamhead.stages.results import Tally
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


def test_a_place_without_a_face_is_told_in_the_failed_row(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "face: there is no face at (5, 5) at 0.2 s; faces are at (30, 20)"

    class Nobody:
        def __call__(self, frames: Any, first: int, times_s: Any, face: str, pixel_aspect: float) -> Any:
            raise InputError(text)

        def close(self) -> None:
            pass

    monkeypatch.setattr(analyse, "VideoAnalyser", lambda *arguments: Nobody())
    job = studio.job(studio.clip(10), studio.speech(0.4), face="point:5,5@0.2")
    row = studio.dub(job)
    assert (row["status"], row["error_type"], row["error"]) == ("failed", "InputError", text)
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


class Languages:
    """One video in two languages, walked by one actor; its rows are streamed as Ray streams them."""

    def __init__(self, studio: Studio, frames: int = 20) -> None:
        self.studio = studio
        clip, speech = studio.clip(frames), studio.speech(frames / 25)
        self.jobs = [studio.job(clip, speech, job_id=name, seed=seed) for seed, name in enumerate(("en", "de"))]
        self.spans = [span for job in self.jobs for span in prepare(job, studio.work()).spans]
        self.job = self.spans[0].job
        self.seen: list[tuple[str, int, int, bool]] = []

    def stream(self, most: int = 99, before: Callable[[int], None] = lambda count: None) -> None:
        """A try; whoever streams takes what it hasn't seen yet, `most` in all, and then the process dies."""
        with closing(analyse.AnalyseSpan(self.studio.settings, "", self.studio.work_uri)) as stage:
            rows = (chunk for span in self.spans for chunk in stage(span))
            for index, chunk in enumerate(rows):
                if index >= len(self.seen):
                    self.seen.append((chunk.job.job_id, chunk.start, chunk.stop, bool(chunk.error)))
                before(len(self.seen))
                if len(self.seen) == most:
                    return

    def fail(self) -> None:
        """Another stage gives the first language up."""
        publish_failure(self.studio.work().failed_uri(self.job), MediaError("frame 3 is damaged"))

    def german(self) -> list[tuple[int, int]]:
        """The second language's chunks that were handed on, all of them good."""
        assert not any(failed for job, _, _, failed in self.seen if job == "de")
        return [(start, stop) for job, start, stop, _ in self.seen if job == "de"]


WHOLE = [(0, 4), (4, 10), (10, 20)]


@pytest.mark.parametrize("most", range(1, 6))
def test_a_failed_language_takes_no_chunk_from_the_others_when_their_walk_is_repeated(
    studio: Studio, most: int
) -> None:
    studio.calls.cuts = (4, 10)
    two = Languages(studio)
    two.stream(most)
    two.fail()
    for _ in range(2):
        two.stream()
        assert two.german() == WHOLE
        assert [row for row in two.seen if row[0] == "en"][:most] == [
            ("en", start, stop, index >= most) for index, (start, stop) in enumerate(WHOLE)
        ][:most]
    # Each row was handed on once. A failure ends the first language, unless all of it was there before.
    english = [row for row in two.seen if row[0] == "en"]
    assert len(english) <= len(WHOLE) + 1
    assert most >= len(WHOLE) or english[-1][3]


def test_a_language_that_failed_before_its_walk_is_not_walked(studio: Studio) -> None:
    studio.calls.cuts = (4, 10)
    two = Languages(studio)
    two.fail()
    two.stream(3)
    two.stream()
    assert two.seen[0] == ("en", 0, 20, True)
    assert two.german() == WHOLE
    assert len(two.seen) == 4


def test_a_walk_that_breaks_ends_the_same_though_another_language_got_further(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.calls.cuts = (4, 10)
    two = Languages(studio)
    monkeypatch.setattr(analyse, "save_shot", broken_at(10, MediaError("frame 12 is damaged"), 1))
    two.stream(4)
    assert two.seen == [("en", 0, 4, False), ("en", 4, 10, False), ("en", 0, 20, True), ("de", 0, 4, False)]
    two.stream()
    assert two.german() == WHOLE
    assert len(two.seen) == 6


def test_storage_that_fails_in_a_walk_is_tried_again_and_no_chunk_comes_twice(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.calls.cuts = (4, 10)
    two = Languages(studio)
    monkeypatch.setattr(analyse, "save_shot", broken_at(10, StorageError("timed out"), 2))
    two.stream()
    assert two.seen == [(job, start, stop, False) for job in ("en", "de") for start, stop in WHOLE]


def test_storage_that_stays_away_fails_the_job_for_this_run(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyse, "save_shot", broken_at(0, StorageError("timed out"), 3))
    job = studio.job(studio.clip(10), studio.speech(0.4))
    row = studio.dub(job)
    assert (row["status"], row["error_type"], row["error"]) == ("failed", "StorageError", "timed out")
    assert studio.dub(job)["status"] == "succeeded"


def test_a_folder_that_cannot_be_written_fails_its_job_alone(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_below(monkeypatch, "/attempts/", StorageError("attempts: permission denied"))
    row = studio.dub(studio.job(studio.clip(10), studio.speech(0.4)))
    assert (row["status"], row["error"]) == ("failed", "attempts: permission denied")


@pytest.mark.parametrize("most", range(1, 6))
def test_a_full_disk_is_told_when_a_walk_is_repeated(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    studio.calls.cuts = (4, 10)
    two = Languages(studio)
    two.stream(most)
    refuse_below(monkeypatch, "/attempts/", DiskFullError("no space left"))
    two.stream()
    assert any(failed for _, _, _, failed in two.seen[most:])


def refuse_below(monkeypatch: pytest.MonkeyPatch, part: str, error: Exception) -> None:
    write = storage.write_bytes

    def refuse_or_write(uri: str, data: bytes) -> None:
        if part in uri:
            raise error
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", refuse_or_write)


def broken_at(start: int, error: Exception, times: int) -> Callable[[str, Any], None]:
    """`save_shot`, but that it fails so many times for the shot that begins there."""
    save, left = analyse.save_shot, [times]

    def call(uri: str, shot: Any) -> None:
        if shot.start == start and left[0]:
            left[0] -= 1
            raise error
        save(uri, shot)

    return call


def test_storage_is_tried_again_when_the_output_is_published(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finalize, "join", broken(StorageError("timed out"), 2, finalize.join))
    assert studio.dub(studio.job(studio.clip(10), studio.speech(0.4)))["status"] == "succeeded"


def test_what_a_process_published_before_it_died_is_not_published_again(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = studio.job(studio.clip(10), studio.speech(0.4))
    prepared = prepare(job, studio.work())
    studio.dub(job)
    free_job(prepared.job, studio.work())
    monkeypatch.setattr(finalize, "join", broken(AssertionError("joined again"), 1, finalize.join))
    row = finalize.finalize(prepared, studio.work(), "all", Tally(chunks=1, rendered=1, attempts=2))
    assert (row["status"], row["frames"], row["chunks_rendered"], row["attempts"]) == ("succeeded", 10, 1, 2)


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
