"""A dub is looked at before it is published; what was found stays beside its result."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dreamhead import storage
from dreamhead.config import DubSettings, ReviewSettings, WeightsSettings
from dreamhead.records import Job, Route, Segment
from dreamhead.stages.artefacts import load_json
from dreamhead.stages.review import job as review_job
from dreamhead.stages.review.record import Review, load_review, passed_through, sheet_uri
from dreamhead.stages.work import settings_digest

Clip = Any  # The fixtures' own classes; conftest modules can't be imported.
Dubber = Any

LENIENT = {
    "max_lip_error": 9,
    "max_jitter": 99,
    "max_spread": 99,
    "min_spread": 0,
    "min_correlation": -1,
    "max_lag_s": 1,
}


def with_review(settings: DubSettings, **values: Any) -> DubSettings:
    return settings.model_copy(update={"review": ReviewSettings(**values)})


@pytest.fixture
def job(clip: Clip, tmp_path: Path) -> Job:
    named: Job = replace(clip.job, job_id=tmp_path.name, output_uri=str(tmp_path / "out.mp4"))
    return named


def test_a_dub_carries_its_review(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    row = dubber(with_review(settings, **LENIENT), job)
    assert (row["status"], row["error"], row["needs_look"]) == ("succeeded", "", "")
    assert row["quality"]["frames_looked_at"] == 26
    assert row["quality"]["faces_found"] == 1
    assert row["quality"]["passed_through"] == 0
    assert 0 < row["quality"]["score"] <= 1
    assert row["duration_s"] == pytest.approx(1.2)
    found = load_review(row["review_uri"])
    assert found.figures == row["quality"]
    assert found.routes == {"DUB": 30}
    assert [len(part["times_s"]) for part in found.curves] == [13, 13]
    assert all(len(part["ours"]) == len(part["wanted"]) == 13 for part in found.curves)
    assert len(found.moments_s) == 6 == len(set(found.moments_s))
    assert found.worst_s in found.moments_s
    assert 0 < found.seconds < 60
    picture = cv2.imdecode(np.frombuffer(storage.read_bytes(sheet_uri(row["review_uri"])), np.uint8), cv2.IMREAD_COLOR)
    side = review_job.SIDE_PX
    assert picture.shape == (4 * side + 2 * 4 + 8, 3 * side + 2 * 4, 3)
    # The face's upper half stays the source's.
    above, below = picture[: side // 5, :side].astype(int), picture[side + 4 :][: side // 5, :side].astype(int)
    assert np.abs(above - below).mean() < 6


def test_a_caption_over_the_chin_is_kept_and_told(
    dubber: Dubber, settings: DubSettings, job: Job, make_video: Any, clip: Clip
) -> None:
    frames = [frame.copy() for frame in clip.frames]
    chin = clip.shot.landmarks[0, 152]
    for frame in frames:
        for colour, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
            place = (int(chin[0]) - 60, int(chin[1]) - 6)
            cv2.putText(frame, "never again", place, cv2.FONT_HERSHEY_SIMPLEX, 0.7, colour, width, cv2.LINE_AA)
    row = dubber(with_review(settings, **LENIENT), replace(job, video_uri=make_video("captioned.mp4", frames)))
    assert row["status"] == "succeeded"
    told = re.fullmatch(
        r"something is burnt in over the lower face, a caption or a logo, and was kept: in (\d+) of 30 frames",
        row["needs_look"],
    )
    assert told is not None, row["needs_look"]
    assert int(told[1]) > 20
    plain = dubber(with_review(settings, **LENIENT), replace(job, job_id="plain"))
    assert plain["needs_look"] == ""


def test_a_second_run_keeps_the_columns(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    first = dubber(settings, job)
    again = dubber(settings, job)
    assert again["chunks_rendered"] == 0
    assert first["quality"]
    assert all(again[name] == first[name] for name in ("quality", "needs_look", "review_uri"))


def test_the_review_redoes_nothing(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    first = dubber(settings, job)
    strict = with_review(settings, max_lip_error=0, gate="fail")
    assert settings_digest(strict) == settings_digest(settings)
    again = dubber(strict, job)
    assert (again["status"], again["chunks_rendered"]) == ("succeeded", 0)
    assert again["quality"] == first["quality"]


def test_the_gate_keeps_a_bad_dub_back_and_says_why(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    row = dubber(with_review(settings, **LENIENT | {"max_colour_step": 0.01}, gate="fail"), job)
    assert (row["status"], row["error_type"]) == ("failed", "QualityError")
    assert "colour_step is " in row["error"]
    assert row["error"].endswith("; at most 0.01 is allowed by review.max_colour_step")
    assert not storage.exists(job.output_uri)
    assert row["quality"]["colour_step"] > 0.01
    assert row["needs_look"].startswith("the colour changes at the mask's edge by ")
    assert storage.exists(sheet_uri(row["review_uri"]))
    # The chunks are there: with another limit, the next run only joins them.
    row = dubber(with_review(settings, **LENIENT, gate="fail"), job)
    assert (row["status"], row["chunks_rendered"]) == ("succeeded", 0)
    assert storage.exists(job.output_uri)


def test_without_the_review_there_is_none(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    row = dubber(with_review(settings, gate="off"), job)
    assert (row["status"], row["quality"], row["needs_look"], row["review_uri"]) == ("succeeded", {}, "", "")


@pytest.mark.parametrize("error", [RuntimeError("graph died"), cv2.error("bad size"), ValueError("odd shape")])
def test_a_look_that_breaks_costs_no_dub(
    dubber: Dubber, settings: DubSettings, job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*arguments: Any, **values: Any) -> Any:
        raise error

    monkeypatch.setattr(review_job, "look_at", broken)
    row = dubber(with_review(settings, gate="fail"), job)
    assert row["status"] == "succeeded"
    name = type(error).__name__
    assert row["needs_look"] == f"it couldn't be looked at: {name}: {error}"
    assert row["quality"] == {"score": 1, "passed_through": 0}
    assert storage.exists(job.output_uri)
    assert load_review(row["review_uri"]).moments_s == []


def test_missing_weights_are_told(
    dubber: Dubber, settings: DubSettings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    dubber(with_review(settings, gate="off"), job)
    storage.delete(job.output_uri)
    elsewhere = settings.model_copy(update={"weights": WeightsSettings(face_landmarker="/nowhere.task")})
    row = dubber(elsewhere, job)
    assert row["status"] == "succeeded"
    assert row["needs_look"].startswith("it couldn't be looked at: WeightsUnavailableError: ")
    assert "/nowhere.task" in row["needs_look"]


def test_a_still_and_silence_are_looked_at(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    folder = job.video_uri.rpartition("/")[0]
    still = replace(job, video_uri=f"{folder}/still.png", audio_uri=f"{folder}/silence.wav")
    row = dubber(settings, still)
    assert row["status"] == "succeeded"
    assert row["quality"]["frames_looked_at"] >= 25
    assert row["quality"]["faces_found"] == 1
    assert {"lip_correlation", "lip_lag_s"}.isdisjoint(row["quality"])


def test_one_frame_is_enough(dubber: Dubber, settings: DubSettings, job: Job, make_video: Any, clip: Clip) -> None:
    single = replace(job, video_uri=make_video("one.mp4", [clip.frames[0]]))
    row = dubber(settings, single)
    assert (row["status"], row["frames"], row["quality"]["frames_looked_at"]) == ("succeeded", 1, 1)
    assert len(load_review(row["review_uri"]).moments_s) == 1


def test_where_nothing_is_dubbed_there_is_nothing_to_see(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    between = Segment(0.001, 0.002)
    row = dubber(settings, replace(job, segments=(between,)))
    assert row["status"] == "succeeded"
    assert row["needs_look"] == "no frame is dubbed: there was nothing to look at"
    assert row["quality"] == {"score": 1}


def test_a_dub_that_only_fades_has_nothing_to_look_at(dubber: Dubber, settings: DubSettings, job: Job) -> None:
    row = dubber(settings, replace(job, segments=(Segment(0.4, 0.5),)))
    assert row["dubbed_frames"] == 3
    assert row["needs_look"] == "no frame is fully dubbed: there was nothing to look at"


def test_what_passed_through_is_said_with_the_reason() -> None:
    routes = {Route.DUB.name: 60, Route.NO_FACE.name: 10, Route.TURNED_AWAY.name: 30, Route.OUTSIDE_SEGMENTS.name: 100}
    figures = review_job._routing_figures(routes)
    assert figures == {"passed_through": 0.4}
    (reason,) = review_job._reasons(figures, routes, ReviewSettings())
    assert reason.startswith("40 % of the frames to be dubbed passed through; at most 20 % (")
    assert reason.endswith("(turned away in 30, no face in 10)")
    assert passed_through({Route.DUB.name: 5}) == ""


def test_a_review_of_a_later_version_is_still_read(tmp_path: Path) -> None:
    uri = str(tmp_path / "review.json")
    (tmp_path / "review.json").write_text('{"figures": {"score": 1.5}, "reasons": ["x"], "later": 1}')
    assert load_review(uri) == Review(figures={"score": 1.5}, reasons=["x"])
    assert load_json(uri)["later"] == 1
