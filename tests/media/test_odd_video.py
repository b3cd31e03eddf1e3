"""Videos that real tools write and simple readers get wrong: no times, a late start, a cut, fields, HDR, odd names."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type as SideDataType

from dreamhead.config import OutputSettings
from dreamhead.errors import MediaError
from dreamhead.media import video
from dreamhead.media.audio import probe_audio, read_speech
from dreamhead.media.encode import encode_chunk
from dreamhead.media.join import join
from dreamhead.media.speech_track import Speech
from dreamhead.media.video import probe, read_frames
from dreamhead.records import VideoInfo
from tests.media.remux import remux

B_FRAMES = {"bf": "3", "g": "12", "x264-params": "b-adapt=0"}


def numbers(make_video: Any, info: VideoInfo, wanted: Any = None) -> list[int]:
    return [
        make_video.number(frame) for frame in read_frames(info, range(info.frame_count) if wanted is None else wanted)
    ]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.avi", "libx264", B_FRAMES),
        ("clip.avi", "libx264", {**B_FRAMES, "x264-params": "b-adapt=0:open-gop=1:scenecut=0"}),
        ("clip.avi", "mpeg4", {"bf": "2", "g": "12"}),
        ("clip.h264", "libx264", B_FRAMES),
        ("clip.hevc", "libx265", {"x265-params": "keyint=12:bframes=3:log-level=none"}),
        ("clip.m2v", "mpeg2video", {"bf": "2", "g": "12", "b:v": "4M"}),
        ("clip.mpg", "mpeg2video", {"bf": "2", "g": "12", "b:v": "9M", "qmax": "2"}),
        ("clip.mxf", "mpeg2video", {"g": "12", "b:v": "4M"}),
        ("clip.nut", "libx264", B_FRAMES),
        ("clip.flv", "libx264", B_FRAMES),
        ("clip.wmv", "wmv2", {"b:v": "4M"}),
        ("clip.mjpg", "mjpeg", {"q:v": "2"}),
    ],
)
def test_frames_come_in_order_and_at_an_even_rate_also_without_times(
    make_video: Any, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, options: dict[str, str]
) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    info = probe(make_video(name, 60, size=(320, 192), codec=codec, options=options, pixel_format=pixel_format))
    assert info.frame_count == 60
    assert info.times_s == pytest.approx(np.arange(60) / 25, abs=1e-6)
    assert info.duration_s == pytest.approx(60 / 25, abs=1e-6)
    assert info.average_rate == 25
    assert numbers(make_video, info) == [*range(60)]
    monkeypatch.setattr(video, "SEEK_GAP", 2)
    wanted = [50, 3, 3, 30, 31, 11, 59, 0, *range(40, 20, -1)]
    assert numbers(make_video, info, wanted) == wanted


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.h264", "libx264"), ("clip.hevc", "libx265"), ("clip.m2v", "mpeg2video")]
)
@pytest.mark.parametrize("rate", [Fraction(30_000, 1001), Fraction(50)])
def test_streams_without_a_container_have_the_rate_that_they_say(
    make_video: Any, name: str, codec: str, rate: Fraction
) -> None:
    options = {"b:v": "4M", "bf": "2", "x265-params": "log-level=none"}
    info = probe(make_video(name, 30, rate=rate, codec=codec, options=options))
    assert info.average_rate == rate
    assert info.times_s == pytest.approx([float(index / rate) for index in range(30)])


def test_a_tape_file_that_counts_frames_as_they_are_stored(make_video: Any) -> None:
    info = probe(make_video("clip.mxf", 20, codec="libx264", options=B_FRAMES))
    assert info.times_s == pytest.approx(np.arange(20) / 25)
    assert numbers(make_video, info, [*range(20), 3, 11]) == [*range(20), 3, 11]


@pytest.mark.parametrize("share", [0.3, 0.55, 0.77, 0.9])
@pytest.mark.parametrize(("name", "codec"), [("cut.ts", "mpeg2video"), ("cut.ts", "libx264"), ("cut.flv", "libx264")])
def test_what_is_accepted_of_a_cut_file_can_be_read(make_video: Any, name: str, codec: str, share: float) -> None:
    options = {"bf": "2", "g": "10", "b:v": "3M", "x264-params": "b-adapt=0"}
    path = Path(make_video(name, 75, size=(160, 96), codec=codec, options=options))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    info = probe(str(path))
    assert 70 * share - 8 < info.frame_count < 80 * share + 3
    # Of the last frames, those that are shown first may have come last.
    assert np.array(numbers(make_video, info)) / 25 == pytest.approx(info.times_s, abs=0.001)


def test_a_fragmented_file_that_is_cut_is_refused(make_video: Any, tmp_path: Path) -> None:
    whole = make_video(frames=75, size=(160, 96), options={"bf": "0", "g": "10"}, sound_s=3.0)
    path = Path(remux(whole, tmp_path / "fragmented.mp4", movflags="frag_keyframe+empty_moov+default_base_moof"))
    assert probe(str(path)).frame_count == 75
    data = path.read_bytes()
    for share in (0.2, 0.5, 0.7):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(MediaError, match=r"fragmented\.mp4: is cut short"):
            probe(str(path))


@pytest.mark.parametrize("name", ["late.mkv", "late.nut", "late.mp4", "late.ts"])
def test_a_file_that_begins_at_another_time_is_whole(make_video: Any, name: str) -> None:
    pts = [75 + index for index in range(50)]
    info = probe(make_video(name, 50, pts=pts, options=B_FRAMES))
    assert (info.lead, info.warnings) == (0, ())


def test_raw_pictures_and_tapes(make_video: Any) -> None:
    frames = [make_video.draw(index, (96, 64)) for index in range(10)]
    planes = [av.VideoFrame.from_ndarray(one, format="rgb24").reformat(format="yuv420p").to_ndarray() for one in frames]
    raw = make_video.folder / "clip.y4m"
    header = b"YUV4MPEG2 W96 H64 F25:1 Ip A1:1 C420jpeg\n"
    raw.write_bytes(header + b"".join(b"FRAME\n" + one.tobytes() for one in planes))
    info = probe(str(raw))
    assert info.times_s == pytest.approx(np.arange(10) / 25)
    assert numbers(make_video, info, [*range(10), 3]) == [*range(10), 3]
    tape = make_video("clip.dv", [make_video.draw(index, (720, 576)) for index in range(5)], codec="dvvideo")
    info = probe(tape)
    assert (info.sample_aspect_ratio, "is interlaced" in info.warnings[0]) == (Fraction(16, 15), True)
    assert numbers(make_video, info) == [*range(5)]


def test_side_data_newer_than_pyav_is_no_error() -> None:
    assert SideDataType(31).value == 31


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts", "late.mov", "late.nut"])
def test_pictures_that_start_after_the_sound_keep_their_time(make_video: Any, tmp_path: Path, name: str) -> None:
    late = make_video(name, 25, pts=[10 + index for index in range(25)], options=B_FRAMES, sound_s=1.5)
    info = probe(late)
    # What AAC starts with isn't told apart from sound in MPEG-TS and NUT.
    priming_s = 1024 / 16_000 if name.endswith(("ts", "nut")) else 0.0
    assert info.times_s[0] == pytest.approx(0.4 + priming_s, abs=0.001)
    speech = Speech(audio=probe_audio(late))
    chunk = tmp_path / "chunk.mp4"
    encode_chunk(chunk, read_frames(info, range(25)), info, info.pts, info.end_pts, OutputSettings())
    for suffix in (".mp4", ".mov", ".mkv"):
        output = tmp_path / f"out{suffix}"
        join([chunk], [int(info.pts[0])], info, info, speech, output, OutputSettings(), {})
        joined = probe(str(output))
        assert joined.times_s == pytest.approx(info.times_s, abs=0.0011 if suffix == ".mkv" else 1e-4)
        assert numbers(make_video, joined) == [*range(25)]
        heard, told = read_speech(str(output), 0.1, 1.0), read_speech(late, 0.1, 1.0)
        assert np.abs(heard - told).max() < 0.1


def test_a_coarse_time_base_holds_the_start(make_video: Any, tmp_path: Path) -> None:
    """AVI counts frames; its video starts in the middle of one."""
    with av.open(str(tmp_path / "late.nut"), "w") as output:
        pictures = output.add_stream("mpeg4", rate=25)
        pictures.codec_context.width, pictures.codec_context.height = 96, 64
        pictures.codec_context.pix_fmt, pictures.codec_context.time_base = "yuv420p", Fraction(1, 25)
        sound = output.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(make_video.draw(index, (96, 64)), format="rgb24")
            frame.pts, frame.time_base = 10 + index, Fraction(1, 25)
            output.mux(pictures.encode(frame))
        output.mux(pictures.encode(None))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), format="s16", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 48_000, 1_001, Fraction(1, 48_000)
        output.mux(sound.encode(samples))
        output.mux(sound.encode(None))
    info = probe(str(tmp_path / "late.nut"))
    assert info.times_s[0] == pytest.approx(0.4 - 1_001 / 48_000, abs=1e-4)
    assert np.diff(info.times_s) == pytest.approx(0.04, abs=1e-9)
    assert numbers(make_video, info, [24, 3]) == [24, 3]


@pytest.mark.parametrize("name", ["clip.mkv", "clip.flv"])
@pytest.mark.parametrize("rate", [Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(60), Fraction(15)])
def test_times_that_milliseconds_rounded_are_those_of_the_rate(
    make_video: Any, make_tone: Any, tmp_path: Path, name: str, rate: Fraction
) -> None:
    info = probe(make_video(name, 40, rate=rate, options=B_FRAMES, time_base=1 / rate))
    assert info.average_rate == rate
    assert info.times_s == pytest.approx([float(index / rate) for index in range(40)], abs=1e-9)
    assert info.duration_s == pytest.approx(float(40 / rate), abs=1e-9)
    assert numbers(make_video, info, [39, 0, 20]) == [39, 0, 20]
    chunk, output = tmp_path / "chunk.mp4", tmp_path / "out.mp4"
    encode_chunk(chunk, read_frames(info, range(40)), info, info.pts, info.end_pts, OutputSettings())
    join([chunk], [int(info.pts[0])], info, info, Speech(audio=probe_audio(make_tone())), output, OutputSettings(), {})
    with av.open(str(output)) as joined:
        assert joined.streams.video[0].average_rate == rate


def test_uneven_milliseconds_stay_as_they_are(make_video: Any) -> None:
    pts = [0, 33, 67, 100, 133, 167, 233, 267]
    info = probe(make_video("clip.mkv", 8, rate=30, pts=pts, time_base=Fraction(1, 1000)))
    assert (info.pts.tolist(), info.time_base) == (pts, Fraction(1, 1000))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_recording_that_begins_inside_a_group_starts_with_its_first_key_frame(
    make_video: Any, tmp_path: Path, codec: str
) -> None:
    whole = make_video("whole.ts", 50, codec=codec, options={"bf": "2", "g": "12", "b:v": "4M"}, sound_s=2.0)
    count = itertools.count()
    with av.open(whole) as opened:
        is_picture = [packet.stream.type == "video" for packet in opened.demux() if packet.size]
    skipped = [number for number, one in enumerate(is_picture) if one][:5]
    uri = remux(whole, tmp_path / "mid.ts", lambda packet: next(count) not in skipped)
    info = probe(uri)
    assert "begins in the middle of a group of pictures: " in info.warnings[0]
    first = numbers(make_video, info)[0]
    assert 2 < first < 14
    assert numbers(make_video, info) == [*range(first, 50)]
    assert numbers(make_video, info, [20, 0]) == [first + 20, first]
    # The sound and the pictures that can be shown keep their distance.
    before = probe(whole)
    assert info.times_s[0] - before.times_s[first] == pytest.approx(0.0, abs=1e-4)


def test_damage_and_joined_recordings_are_named_by_time(make_video: Any, tmp_path: Path) -> None:
    whole = Path(make_video("whole.ts", 50, size=(160, 96), options={"bf": "0", "g": "10", "crf": "5"}))
    data = whole.read_bytes()
    lost = tmp_path / "lost.ts"
    middle = len(data) // 188 // 2 * 188
    lost.write_bytes(data[:middle] + data[middle + 188 :])
    with pytest.raises(MediaError, match=r"lost\.ts: is (cut short or )?damaged at (0|1)\.\d\d s"):
        probe(str(lost))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(data + data)
    with pytest.raises(MediaError, match=r"joined\.ts: (its times go back|is cut short or damaged) at (1\.9|2\.)\d+ s"):
        probe(str(joined))


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi", "clip.mxf"])
def test_a_file_that_is_cut_short_says_how_much_is_missing(make_video: Any, name: str) -> None:
    codec = "mpeg2video" if name.endswith("mxf") else "libx264"
    path = Path(make_video(name, 60, size=(160, 96), codec=codec, options={"bf": "0", "g": "10", "b:v": "4M"}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    info = probe(str(path))
    assert 10 < info.frame_count < 50
    told = next(text for text in info.warnings if "is cut short: it says that it lasts 2.40 s" in text)
    missing_s = float(told.split("the last ")[1].split(" s")[0])
    assert missing_s == pytest.approx(2.4 - info.duration_s, abs=0.05)
    assert numbers(make_video, info, range(info.frame_count - 2)) == [*range(info.frame_count - 2)]


def test_whole_files_are_not_called_cut(make_video: Any) -> None:
    for name in ("clip.mkv", "clip.avi", "clip.mp4", "clip.flv", "clip.nut", "clip.mov"):
        for sound_s in (0.0, 0.5, 3.0):
            assert not probe(make_video(name, 50, options=B_FRAMES, sound_s=sound_s)).warnings, name


def test_fields_hdr_depth_and_transparency_are_said(make_video: Any) -> None:
    fields = make_video("fields.mp4", 10, options={"flags": "+ilme+ildct", "x264-params": "tff=1"})
    assert "is interlaced" in probe(fields).warnings[0]
    hlg = make_video(
        "hlg.mp4",
        5,
        codec="libx265",
        pixel_format="yuv420p10le",
        color=(9, 18, 9, 1),
        options={"x265-params": "log-level=none"},
    )
    assert "is HDR (HLG)" in probe(hlg).warnings[0]
    deep = make_video("deep.mp4", 5, pixel_format="yuv422p10le")
    assert "has 10 bits a sample; it is delivered with 8" in probe(deep).warnings[0]
    clear = make_video("clear.mov", 5, codec="qtrle", pixel_format="argb")
    assert "its transparency is lost" in probe(clear).warnings[0]
    assert not probe(make_video("plain.mp4", 5)).warnings


def test_vp8_has_the_colour_that_its_container_says(make_video: Any) -> None:
    options = {"b:v": "2M", "deadline": "realtime"}
    info = probe(make_video("clip.webm", 5, codec="libvpx", color=(1, 1, 1, 1), options=options))
    assert info.color == (1, 1, 1, 1)
    frame = next(read_frames(info, [2]))
    assert np.abs(frame.astype(int) - make_video.draw(2, (96, 64))).mean() < 6


def test_the_title_is_known_and_the_language_is_written(make_video: Any, make_tone: Any, tmp_path: Path) -> None:
    titled = remux(make_video(frames=5), tmp_path / "plain.mp4")
    with av.open(titled) as source, av.open(str(tmp_path / "titled.mp4"), "w") as output:
        output.metadata["title"] = "Der Film"
        copy = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    info = probe(str(tmp_path / "titled.mp4"))
    assert info.title == "Der Film"
    chunk = tmp_path / "chunk.mp4"
    encode_chunk(chunk, read_frames(info, range(5)), info, info.pts, info.end_pts, OutputSettings())
    for suffix, german in ((".mp4", "deu"), (".mov", "ger"), (".mkv", "ger")):
        for language, expected in (("de-DE", german), ("no tag", ""), ("", "")):
            speech = Speech(audio=probe_audio(make_tone()), language=language)
            path = tmp_path / f"out{suffix}"
            join([chunk], [0], info, info, speech, path, OutputSettings(), {"title": info.title})
            with av.open(str(path)) as joined:
                tag = joined.streams.audio[0].metadata.get("language", "und")
                assert (joined.metadata["title"], tag) == ("Der Film", expected or "und")


def test_a_track_keeps_its_language_where_the_row_names_none(make_video: Any, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "speech.mka"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        stream.metadata["language"] = "fre"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 16_000, 0, Fraction(1, 16_000)
        output.mux(stream.encode(samples))
        output.mux(stream.encode(None))
    info, audio = probe(make_video(frames=5)), probe_audio(str(tmp_path / "speech.mka"))
    chunk = tmp_path / "chunk.mp4"
    encode_chunk(chunk, read_frames(info, range(5)), info, info.pts, info.end_pts, OutputSettings())
    for language, expected in (("", "fra"), ("Franz\u00f6sisch, bitte", "fra"), ("pt-BR", "por"), ("zh-Hant", "zho")):
        path = tmp_path / "out.mp4"
        join([chunk], [0], info, info, Speech(audio=audio, language=language), path, OutputSettings(), {})
        with av.open(str(path)) as joined:
            assert joined.streams.audio[0].metadata["language"] == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "it is an HLS playlist"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><MPD/>", "it is XML"),
        (b"PK\x03\x04" + bytes(60), "it is a ZIP archive, or an office document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer instead of the file"),
        (b"", "it is empty"),
        (bytes(range(256)) * 4, "allowed: MP4 and MOV, Matroska and WebM, AVI"),
    ],
)
def test_what_is_no_media_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"clip\.mp4: can't be opened as media: ") as caught:
        probe(str(path))
    assert said in str(caught.value)
    assert "allowed: MP4 and MOV" in str(caught.value)
