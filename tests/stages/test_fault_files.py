"""The files of twenty-one real faults, where they are at hand, through all stages: each its right result.

The networks and the detector are stand-ins; what they have to do with faults is tested where they are.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamhead.media.audio import probe_audio, read_speech
from dreamhead.media.video import probe

Studio = Any  # The fixture's own class; conftest modules can't be imported.

ROWS = [
    # video, speech, suffix, frames of the output, what is said of it.
    ("face_5s.mp4", "a5_gap.mp4", ".mp4", 125, "0.99 s of the sound are missing, the first at 1.02 s"),
    ("face_5s.mp4", "a5_gap.mp4", ".mov", 125, "0.99 s of the sound are missing"),
    ("p_exif6.jpg", "speech.wav", ".mp4", 30, ""),
    ("plain_lzw.tiff", "speech.wav", ".mp4", 30, ""),
    ("v_base.mp4", "a_71.m4a", ".mp4", 31, ""),
    ("v_base.mp4", "a_71.m4a", ".mkv", 31, ""),
    ("v_base.mp4", "speech_7ch.wav", ".mp4", 31, ""),
    ("v_base.mp4", "a_8k_mulaw.wav", ".mkv", 31, ""),
    ("w_sar43_full.mp4", "speech.wav", ".mp4", 31, ""),
    ("c_interlaced_pan.mp4", "speech.wav", ".mp4", 50, "is interlaced"),
    ("v_base.mp4", "tts_chunks_cat.mp3", ".mp4", 31, ""),
    ("v_h264_bf.avi", "speech.wav", ".mp4", 30, ""),
    ("p.avif", "speech.wav", ".mp4", 30, ""),
    (
        "v_truncated.mkv",
        "speech.wav",
        ".mp4",
        14,
        "is cut short: it says that it lasts 1.26 s; the last 0.64 s of it are",
    ),
    ("p.jpg", "av_late_audio.mp4", ".mp4", 45, ""),
    ("v_base.mp4", "a_two_tracks.m4a", ".mp4", 31, ""),
    ("p_jpg_named.png", "speech.wav", ".mp4", 30, ""),
    ("v_hdr10.mp4", "speech.wav", ".mp4", 31, "is HDR (PQ)"),
    ("v_vp9_alpha.webm", "speech.wav", ".mp4", 14, "its transparency is lost"),
    ("v_120fps.mp4", "speech.wav", ".mp4", 137, ""),
    ("v.ogv", "speech.wav", ".mp4", 30, ""),
    ("t_midstart.ts", "speech.wav", ".mp4", 18, "begins in the middle of a group of pictures: 4 frames, 0.20 s"),
    ("v_late_video.mp4", "speech.wav", ".mp4", 31, ""),
    ("v_1frame.mp4", "speech.wav", ".mp4", 1, "of the speech were cut"),
]


@pytest.fixture
def faults(clips: Path) -> Path:
    """Their folder; skips the test without it."""
    folder = clips / "faults"
    if not folder.is_dir():
        pytest.skip(f"the files of real faults aren't at {folder}")
    return folder


@pytest.mark.clips
@pytest.mark.parametrize(("video", "speech", "suffix", "frames", "said"), ROWS)
def test_each_has_its_right_result(
    studio: Studio, faults: Path, video: str, speech: str, suffix: str, frames: int, said: str
) -> None:
    job = studio.job(str(faults / video), str(faults / speech))
    output_uri = str(studio.folder / f"out{suffix}")
    row = studio.dub(replace(job, output_uri=output_uri))
    assert row["status"] == "succeeded", row["error"]
    assert row["frames"] == frames
    assert said in row["warnings"]
    source, made = probe(str(faults / video)), probe(output_uri)
    if not source.is_still:
        assert made.times_s == pytest.approx(source.times_s, abs=1e-4)
        assert (made.rotation, made.sample_aspect_ratio) == (source.rotation, source.sample_aspect_ratio)
    sound = probe_audio(str(faults / speech))
    until_s = min(made.duration_s, sound.duration_s)
    told, heard = read_speech(sound, 0.0, until_s), read_speech(output_uri, 0.0, until_s)
    if told.std() > 0.01 and until_s > 0.2:
        assert abs(lag_of(heard, told)) <= 16, "more than a millisecond"


def lag_of(heard: Any, told: Any) -> int:
    """Samples by which what is heard is later than what was told."""
    part = np.correlate(np.pad(heard, 400), told)
    return int(part.argmax()) - 400


@pytest.mark.clips
@pytest.mark.parametrize(
    ("face", "error"),
    [
        ("point:5000,5@0.5", "face: point:5000,5@0.5 lies outside the picture of "),
        ("point:180,200@50", "face: point:180,200@50 is at 50 s, and "),
    ],
)
def test_a_place_outside_is_refused(studio: Studio, faults: Path, face: str, error: str) -> None:
    row = studio.dub(studio.job(str(faults / "c_two.mp4"), str(faults / "speech.wav"), face=face))
    assert (row["status"], row["error"][: len(error)]) == ("failed", error)
    assert not studio.calls.walked
