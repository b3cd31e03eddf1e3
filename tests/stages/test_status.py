"""How far a job is, and what of it can be freed, as the work directory tells."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamhead import storage
from dreamhead.errors import MediaError, StorageError
from dreamhead.records import Job
from dreamhead.stages import render, source
from dreamhead.stages.clean import free_analysis, free_job, free_other_settings
from dreamhead.stages.prepare import prepare, with_digests
from dreamhead.stages.status import JobStatus, job_status

Studio = Any  # The fixture's own class; conftest modules can't be imported.


@pytest.fixture
def job(studio: Studio) -> Job:
    """Of 30 frames: two spans, three chunks."""
    wanted: Job = studio.job(studio.clip(30), studio.speech(1.2))
    return wanted


def counts(status: JobStatus) -> tuple[str, int, int, int, int]:
    return status.state, status.chunks_done, status.chunks_failed, status.chunks_missing, status.spans_ahead


def test_a_job_that_was_only_checked_is_missing(studio: Studio, job: Job) -> None:
    prepare(job, studio.work())
    status = job_status(job, studio.work())
    assert counts(status) == ("missing", 0, 0, 0, 2)
    assert status.is_checked


def test_inputs_are_not_read(studio: Studio, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Any:
        raise AssertionError("an input was read")

    monkeypatch.setattr(storage, "content_digest", refuse)
    monkeypatch.setattr(source, "probe", refuse)
    monkeypatch.setattr(source, "probe_audio", refuse)
    status = job_status(job, studio.work())
    assert counts(status) == ("missing", 0, 0, 0, 0)
    assert not status.is_checked


def test_an_input_that_a_run_could_not_use_is_a_failure(studio: Studio, job: Job, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    odd = replace(job, video_uri=str(text))
    assert studio.dub(odd)["status"] == "failed"
    status = job_status(odd, studio.work())
    assert (status.state, status.is_checked) == ("failed", True)
    assert status.error.startswith(f"MediaError: video_uri: {text}")
    # It is looked at anew in the next run, and another file at that place is another input.
    assert studio.dub(odd)["warnings"] == ""
    shutil.copy(job.video_uri, text)
    assert studio.dub(odd)["status"] == "succeeded"


def test_a_job_is_failed_once_a_chunk_of_it_is(studio: Studio, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = render.encode_chunk

    def fail_at_15(path: Any, frames: Any, video: Any, pts: Any, *more: Any) -> int:
        if pts[0] > 0 and video.pts.tolist().index(pts[0]) >= 15:
            raise MediaError("the encoder broke")
        return encode(path, frames, video, pts, *more)

    monkeypatch.setattr(render, "encode_chunk", fail_at_15)
    assert studio.dub(job)["status"] == "failed"
    status = job_status(job, studio.work())
    assert (status.state, status.error) == ("failed", "MediaError: the encoder broke")
    assert (status.chunks_done, status.chunks_failed) == (2, 1)


def test_a_job_whose_output_is_there_is_done_and_one_whose_output_is_gone_is_not(studio: Studio, job: Job) -> None:
    chunks = studio.dub(job)["chunks"]
    assert counts(job_status(job, studio.work())) == ("done", chunks, 0, 0, 0)
    storage.delete(job.output_uri)
    assert counts(job_status(job, studio.work())) == ("missing", chunks, 0, 0, 0)


def test_an_input_that_is_not_there_is_a_failure(studio: Studio, job: Job) -> None:
    status = job_status(replace(job, audio_uri="/nowhere.wav"), studio.work())
    assert status.state == "failed"
    assert status.error.startswith("InputError: audio_uri: /nowhere.wav")


def test_other_settings_are_another_job(studio: Studio, job: Job) -> None:
    studio.dub(job)
    settings = studio.settings.model_copy(update={"output": studio.settings.output.model_copy(update={"quality": 9})})
    status = job_status(job, studio.work(settings))
    # The analysis is shared, so the chunks are known; none of them is there.
    assert (status.state, status.chunks_done, status.spans_ahead) == ("missing", 0, 0)
    assert status.chunks_missing == job_status(job, studio.work()).chunks_done


def test_what_is_freed_is_not_done_again(studio: Studio, job: Job) -> None:
    studio.dub(job)
    work, known = studio.work(), with_digests(job, studio.work())
    before = storage.list_sizes(studio.work_uri)
    would = free_job(known, work, dry_run=True)
    assert storage.list_sizes(studio.work_uri) == before
    freed = free_job(known, work)
    after = storage.list_sizes(studio.work_uri)
    assert freed == would
    assert (freed.files, freed.size) == (len(before) - len(after), sum(before.values()) - sum(after.values()))
    assert not [uri for uri in after if "/chunk-" in uri or "/landmarks-" in uri or "/attempts/" in uri]
    assert [uri for uri in after if uri.endswith("result.json")]
    painted = len(studio.calls.painted)
    row = studio.dub(job)
    assert (row["status"], row["chunks_rendered"], len(studio.calls.painted)) == ("succeeded", 0, painted)


def test_other_settings_and_analysis_are_freed_when_asked(studio: Studio, job: Job) -> None:
    studio.dub(job)
    settings = studio.settings.model_copy(update={"output": studio.settings.output.model_copy(update={"quality": 9})})
    studio.dub(job, settings)
    work, known = studio.work(settings), with_digests(job, studio.work())
    own = work.render_dir(known).rstrip("/")
    assert free_other_settings(known, work).files > 0
    left = [uri for uri in storage.list_files(work.job_dir(known)) if not uri.startswith(own)]
    assert {uri.rpartition("/")[2][:9] for uri in left} == {"landmarks"}
    assert free_analysis([known, known], work).files == len({"span-0", "span-1", "shot-0", "shot-1"})
    assert storage.list_files(work.analysis_dir(known)) == []


def test_half_a_deletion_leaves_no_chunk_that_looks_done(
    studio: Studio, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.dub(job)
    work, known = studio.work(), with_digests(job, studio.work())
    calls = []
    delete_many = storage.delete_many

    def break_off(uris: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise StorageError("reset by peer")
        delete_many(uris)

    monkeypatch.setattr(storage, "delete_many", break_off)
    with pytest.raises(StorageError):
        free_job(known, work)
    assert work.finished_ranges(known) == set()
