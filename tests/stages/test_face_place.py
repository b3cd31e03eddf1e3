"""A chosen face's place and time are held against the video."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamhead.errors import InputError
from dreamhead.media.audio import AudioInfo
from dreamhead.records import Job, VideoInfo
from dreamhead.stages.face_place import check_face
from dreamhead.stages.source import Source
from dreamhead.stages.timeline import build_timeline

Studio = Any  # The fixture's own class; conftest modules can't be imported.

VIDEO = VideoInfo(
    uri="a.mp4",
    width=640,
    height=360,
    rotation=0,
    sample_aspect_ratio=Fraction(1),
    average_rate=Fraction(25),
    time_base=Fraction(1, 25),
    # The times of a file may begin anywhere; those of a face begin with the first frame.
    pts=np.arange(1000, 1100),
    end_pts=1100,
    color=(1, 1, 1, 1),
    has_audio=False,
)
AUDIO = AudioInfo(uri="a.wav", sample_rate=16_000, channels=1, codec="pcm_s16le", duration_s=6.0)


def check(face: str, video: VideoInfo = VIDEO) -> None:
    job = Job(job_id="job", row=0, video_uri="a.mp4", audio_uri="a.wav", output_uri="o.mp4", face=face)
    timeline = build_timeline(video, AUDIO.duration_s, "freeze")
    check_face(job, Source(video=video, audio=AUDIO, timeline=timeline))


@pytest.mark.parametrize(
    "face",
    [
        "largest",
        "point:0,0@0",
        "point:640,360@3.99",
        "point:320.5,180@0.5",
        "box:0,0,640,360@1",
        "box:600,300,640,360@0",
    ],
)
def test_what_lies_in_the_video_is_taken(face: str) -> None:
    check(face)


@pytest.mark.parametrize("face", ["point:5000,5@0.5", "point:5,361@0.5", "box:600,300,700,350@0", "box:0,0,10,400@0"])
def test_a_place_outside_the_picture_is_refused_with_what_is_allowed(face: str) -> None:
    with pytest.raises(InputError) as caught:
        check(face)
    assert str(caught.value) == (
        f"face: {face} lies outside the picture of a.mp4; allowed: x from 0 to 640, y from 0 to 360, in pixels as shown"
    )


@pytest.mark.parametrize("face", ["point:5,5@4", "point:180,200@50", "box:1,1,9,9@4.5"])
def test_a_time_after_the_end_is_refused_though_the_output_is_longer(face: str) -> None:
    with pytest.raises(InputError, match=rf"^face: {face} is at .* s, and a\.mp4 ends at 4\.00 s; allowed: from 0 to"):
        check(face)


@pytest.mark.parametrize(
    ("changes", "width", "height"),
    [
        ({"rotation": 90}, 360, 640),
        ({"rotation": 270}, 360, 640),
        ({"rotation": 180}, 640, 360),
        ({"sample_aspect_ratio": Fraction(4, 3)}, 853, 360),
        ({"sample_aspect_ratio": Fraction(1, 2)}, 320, 360),
        # Of a picture that lies on its side, a coded pixel's width is what stands upright.
        ({"sample_aspect_ratio": Fraction(4, 3), "rotation": 90}, 270, 640),
    ],
)
def test_the_picture_is_the_one_that_is_shown(changes: dict[str, Any], width: int, height: int) -> None:
    video = replace(VIDEO, **changes)
    check(f"point:{width},{height}@0", video)
    for x, y in ((width + 1, height), (width, height + 1)):
        with pytest.raises(
            InputError, match=rf"allowed: x from 0 to {width}, y from 0 to {height}, in pixels as shown"
        ):
            check(f"point:{x},{y}@0", video)


def test_a_picture_lasts_as_long_as_the_output() -> None:
    still = replace(VIDEO, pts=np.array([0]), end_pts=1, is_still=True)
    check("point:5,5@5.9", still)
    with pytest.raises(InputError, match=r"ends at 6\.00 s"):
        check("point:5,5@6", still)


@pytest.mark.parametrize(
    "face", ["point:5,5", "point:-5,5@0", "box:5,5,5,9@0", "box:5,9,8,9@0", "box:8,1,5,9@0", "left"]
)
def test_what_cant_be_read_is_refused(face: str) -> None:
    with pytest.raises(InputError, match=f"^face: '{face}' is (not allowed|an empty box)"):
        check(face)


@pytest.mark.parametrize("face", ["point:5000,5@0.1", "point:5,5@9"])
def test_a_job_is_refused_before_any_work(studio: Studio, tmp_path: Path, face: str) -> None:
    row = studio.dub(replace(studio.job(studio.clip(10), studio.speech(0.4)), face=face))
    assert (row["status"], row["error_type"]) == ("failed", "InputError")
    assert row["error"].startswith(f"face: {face} ")
    assert not studio.calls.walked
