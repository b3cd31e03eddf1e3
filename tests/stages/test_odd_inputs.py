"""Odd media the whole way: what comes out, what is said in the row, what is refused before any work is done."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from dreamhead.media.audio import probe_audio, read_speech
from dreamhead.media.video import probe
from tests.conftest import ToneMaker, VideoMaker
from tests.media.remux import remux

Studio = Any  # The fixture's own class; conftest modules can't be imported.


def settings_of(studio: Studio, **landmarks: Any) -> Any:
    settings = studio.settings
    return settings.model_copy(update={"landmarks": settings.landmarks.model_copy(update=landmarks)})


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("speech_start", "speech_start_s"), [("file", 0.0), ("first_frame", 0.4)])
def test_pictures_that_start_after_the_sound(
    studio: Studio, make_video: VideoMaker, suffix: str, speech_start: str, speech_start_s: float
) -> None:
    late = make_video("late.mp4", 25, pts=[10 + index for index in range(25)], sound_s=1.5)
    tone = ToneMaker(studio.folder)("tone.wav", 1.4)
    output_uri = str(studio.folder / f"out{suffix}")
    job = replace(studio.job(late, tone, language="de"), output_uri=output_uri)
    row = studio.dub(job, settings_of(studio, speech_start=speech_start))
    assert row["status"] == "succeeded", row["error"]
    assert row["duration_s"] == pytest.approx(1.4)
    made = probe(output_uri)
    assert made.times_s == pytest.approx(0.4 + np.arange(25) / 25, abs=0.001)
    heard = read_speech(output_uri, speech_start_s, speech_start_s + 0.9)
    assert np.abs(heard - read_speech(tone, 0.0, 0.9)).max() < 0.06
    if speech_start_s:
        assert np.abs(read_speech(output_uri, 0.0, 0.39)).max() < 0.02
    with av.open(output_uri) as container:
        assert container.streams.audio[0].metadata["language"] in ("deu", "ger")


def test_speech_with_a_gap(studio: Studio) -> None:
    tones = ToneMaker(studio.folder)
    whole = tones("whole.mp4", 2.0, rate=48_000, codec="aac")
    gap = remux(whole, studio.folder / "gap.mp4", lambda packet: not 0.5 <= packet.pts * packet.time_base < 1.2)
    row = studio.dub(studio.job(studio.clip(50), gap))
    assert row["status"] == "succeeded", row["error"]
    assert "of the sound are missing, the first at 0.5" in row["warnings"]
    made = read_speech(row["output_uri"], 0.0, 2.0)
    assert np.abs(made - read_speech(gap, 0.0, 2.0)).max() < 0.01
    assert np.abs(made[9_000:18_500]).max() < 0.01
    assert np.abs(made[20_500:30_000] - read_speech(whole, 0.0, 2.0)[20_500:30_000]).max() < 0.1


def test_frames_without_times_keep_their_order(studio: Studio) -> None:
    path = studio.folder / "clip.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "1", "bf": "3", "x264-params": "b-adapt=0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(20):
            picture = np.full((48, 64, 3), 16 + 8 * index, dtype=np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    job = studio.job(str(path), studio.speech(0.8), segments=())
    row = studio.dub(job)
    assert row["status"] == "succeeded", row["error"]
    assert probe(row["output_uri"]).times_s == pytest.approx(np.arange(20) / 25)


def test_warnings_of_both_inputs_are_in_the_row(studio: Studio, make_video: VideoMaker) -> None:
    film = Path(make_video("film.mkv", 60, size=(64, 48), options={"bf": "0", "g": "10"}))
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with av.open(str(studio.folder / "quiet.wav"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=16_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    row = studio.dub(studio.job(str(film), str(studio.folder / "quiet.wav")))
    assert row["status"] == "succeeded", row["error"]
    assert "film.mkv: is cut short: it says that it lasts 2.40 s; the last " in row["warnings"]
    assert "quiet.wav: the speech is silent all through" in row["warnings"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(("layout", "rate", "codec"), [("6.1", 16_000, "pcm_s16le"), ("mono", 8_000, "pcm_mulaw")])
def test_any_speech_goes_into_any_output(studio: Studio, suffix: str, layout: str, rate: int, codec: str) -> None:
    speech = ToneMaker(studio.folder)("speech.wav", 0.8, rate=rate, layout=layout, codec=codec)
    job = replace(studio.job(studio.clip(20), speech), output_uri=str(studio.folder / f"out{suffix}"))
    row = studio.dub(job)
    assert row["status"] == "succeeded", row["error"]
    assert probe_audio(row["output_uri"]).channels == len(av.AudioLayout(layout).channels)


def test_what_cannot_be_used_is_refused_with_column_file_and_reason(studio: Studio, make_video: VideoMaker) -> None:
    bad = studio.folder / "nan.wav"
    with av.open(str(bad), "w") as output:
        stream = output.add_stream("pcm_f32le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), np.nan, np.float32), format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    playlist = studio.folder / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nother.ts\n")
    stamp = Path(make_video("whole.ts", 50, size=(160, 96), options={"bf": "0", "g": "10", "crf": "5"}))
    joined = studio.folder / "joined.ts"
    joined.write_bytes(stamp.read_bytes() * 2)
    clip, speech = studio.clip(20), studio.speech(0.8)
    for change, said in (
        ({"audio_uri": str(bad)}, r"audio_uri: {0}/nan.wav: the sound holds samples that are no finite numbers"),
        ({"video_uri": str(playlist)}, "video_uri: {0}/list.mp4: can't be opened as media: "),
        ({"video_uri": str(joined)}, "video_uri: {0}/joined.ts: "),
        ({"audio_uri": clip}, "audio_uri: {0}/clip.mp4: holds no audio stream"),
        (
            {"face": "point:500,5@0.1"},
            "face: point:500,5@0.1 lies outside the picture of {0}/clip.mp4; allowed: x from",
        ),
        ({"face": "point:5,5@0.8"}, "face: point:5,5@0.8 is at 0.8 s, and {0}/clip.mp4 ends at 0.80 s; allowed: from"),
    ):
        row = studio.dub(replace(studio.job(clip, speech), **change))
        assert row["status"] == "failed"
        assert row["error"].startswith(said.format(studio.folder)), row["error"]
    assert not studio.calls.walked


def test_pictures_of_every_orientation_come_out_upright(studio: Studio) -> None:
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:, 32:] = 200
    exif = Image.Exif()
    for orientation, stored in ((5, upright.transpose(1, 0, 2)), (6, np.rot90(upright)), (2, upright[:, ::-1])):
        exif[0x0112] = orientation
        path = studio.folder / f"face{orientation}.jpg"
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
        row = studio.dub(studio.job(str(path), studio.speech(0.4), job_id=f"job{orientation}", segments=()))
        assert row["status"] == "succeeded", row["error"]
        made = probe(row["output_uri"])
        assert (made.width, made.height, made.frame_count) == (64, 48, 10)
