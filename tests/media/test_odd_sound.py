"""Sound that real tools write and simple readers get wrong: gaps, junk, many channels, several tracks, cut files."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import OutputSettings
from dreamhead.errors import MediaError
from dreamhead.media.audio import probe_audio, read_speech
from dreamhead.media.encode import encode_chunk
from dreamhead.media.join import join
from dreamhead.media.speech_track import Speech, speech_codec
from dreamhead.media.video import probe, read_frames
from tests.media.remux import remux

SETTINGS = OutputSettings(encoder_threads=1)


def muxed(make_video: Any, speech: str, output: Path, seconds: float = 3.0, **placed: Any) -> str:
    """A plain video with the speech."""
    info = probe(make_video("silent.mp4", round(25 * seconds)))
    chunk = output.with_name("chunk.mp4")
    encode_chunk(chunk, read_frames(info, range(info.frame_count)), info, info.pts, info.end_pts, SETTINGS)
    join([chunk], [0], info, info, Speech(audio=probe_audio(speech), **placed), output, SETTINGS, {})
    return str(output)


def noise(seconds: float, rate: int) -> NDArray[np.float32]:
    """(N,) noise without much above 2 kHz, which codecs keep: every moment is unlike the others."""
    values = np.random.default_rng(3).normal(size=round(seconds * 8_000))
    grid = np.arange(round(seconds * rate)) / rate
    smooth = np.convolve(values, np.hanning(7) / 3.0, "same")
    return (0.25 * np.interp(grid, np.arange(len(values)) / 8_000, smooth)).astype(np.float32)


def shift_of(heard: NDArray[np.float32], told: NDArray[np.float32], start_s: float, stop_s: float) -> float:
    """Seconds by which a stretch of what is heard is later than what was told; NaN where it isn't there."""
    first, last, reach = round(start_s * 16_000), round(stop_s * 16_000), 1600
    part, around = told[first:last], np.pad(heard, reach)[first : last + 2 * reach]
    found = np.correlate(around, part)
    best = int(found.argmax())
    likeness = found[best] / (np.linalg.norm(part) * np.linalg.norm(around[best : best + len(part)]) + 1e-9)
    return (best - reach) / 16_000 if likeness > 0.6 else float("nan")


def error_of(heard: NDArray[np.float32], told: NDArray[np.float32]) -> float:
    """Greatest difference away from the ends."""
    return float(np.abs(heard - told)[400:-400].max())


def write_sound(path: Path, samples: NDArray[Any], rate: int, layout: str, codec: str, kind: str = "flt") -> str:
    """(channels, N) samples as a file."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        for start in range(0, samples.shape[1], 960):
            part = samples[:, start : start + 960].T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format=kind, layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return str(path)


GAPS = [
    ("gap.mp4", "aac", 44_100),
    ("gap.mkv", "aac", 48_000),
    ("gap.mkv", "libopus", 48_000),
    ("gap.webm", "libopus", 48_000),
    ("gap.ts", "libmp3lame", 48_000),
    ("gap.mkv", "pcm_s16le", 16_000),
    ("gap.nut", "flac", 48_000),
]


@pytest.mark.parametrize(("name", "codec", "rate"), GAPS)
def test_a_gap_is_silence_in_the_lips_the_length_and_the_output(
    make_video: Any, tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    whole = write_sound(tmp_path / f"whole{Path(name).suffix}", noise(3.0, rate)[None], rate, "mono", codec)
    with av.open(whole) as opened:
        stream = opened.streams.audio[0]
        start = float((stream.start_time or 0) * (stream.time_base or 0))
    uri = remux(whole, tmp_path / name, lambda packet: not 1.0 <= packet.pts * packet.time_base - start < 2.0)
    info, before = probe_audio(uri), probe_audio(whole)
    assert info.duration_s == pytest.approx(before.duration_s, abs=0.03)
    assert "of the sound are missing, the first at 1.0" in "".join(info.warnings)
    told = read_speech(whole, 0.0, 3.0)
    for heard in (
        read_speech(uri, 0.0, 3.0),
        np.concatenate([read_speech(info, 0.0, 1.5), read_speech(info, 1.5, 3.0)]),
        read_speech(muxed(make_video, uri, tmp_path / "out.mkv"), 0.0, 3.0),
        read_speech(muxed(make_video, uri, tmp_path / "out.mp4"), 0.0, 3.0),
        read_speech(muxed(make_video, uri, tmp_path / "late.mov", start_s=Fraction(1, 10)), 0.1, 3.1),
    ):
        assert abs(shift_of(heard, told, 0.1, 0.9)) <= 0.001
        assert abs(shift_of(heard, told, 2.1, 2.9)) <= 0.001
        assert np.abs(heard[18_500:30_000]).max() < 0.01


@pytest.mark.parametrize(("name", "codec"), [("lost.mkv", "libopus"), ("lost.mp4", "aac"), ("lost.webm", "libopus")])
def test_lost_packets_move_nothing(tmp_path: Path, name: str, codec: str) -> None:
    count = itertools.count()
    whole = write_sound(tmp_path / f"whole{Path(name).suffix}", noise(3.0, 48_000)[None], 48_000, "mono", codec)
    uri = remux(whole, tmp_path / name, lambda packet: next(count) % 5 != 2)
    assert probe_audio(uri).duration_s == pytest.approx(3.0, abs=0.05)
    heard, told = read_speech(uri, 0.0, 3.0), read_speech(whole, 0.0, 3.0)
    for start_s in (0.1, 0.9, 1.6, 2.3):
        assert abs(shift_of(heard, told, start_s, start_s + 0.6)) <= 0.001


def test_files_that_were_joined_are_heard_one_after_the_other(tmp_path: Path) -> None:
    for name, codec in (("part.mp3", "libmp3lame"), ("part.aac", "aac"), ("part.ts", "libmp3lame")):
        part = Path(write_sound(tmp_path / name, noise(1.0, 24_000)[None], 24_000, "mono", codec))
        tag = b"ID3\x04\x00\x00\x00\x00\x00\x23TSSE" + bytes(31) if name.endswith("mp3") else b""
        joined = tmp_path / f"joined{part.suffix}"
        joined.write_bytes(part.read_bytes() + tag + part.read_bytes())
        info, one = probe_audio(str(joined)), probe_audio(str(part))
        assert info.duration_s == pytest.approx(2 * one.duration_s, abs=0.12), name
        told = read_speech(str(part), 0.0, 1.0)
        heard = read_speech(info, 1.0, 2.2)
        assert 0 <= shift_of(heard, told, 0.1, 0.8) < 0.1, name


def test_a_cover_in_the_middle_of_joined_files_is_no_sound(tmp_path: Path) -> None:
    part = Path(write_sound(tmp_path / "part.mp3", noise(1.0, 24_000)[None], 24_000, "mono", "libmp3lame")).read_bytes()
    cover = np.random.default_rng(0).integers(0, 256, 60_000, dtype=np.uint8).tobytes()
    size = bytes(len(cover) >> shift & 127 for shift in (21, 14, 7, 0))
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(part + b"ID3\x04\x00\x00" + size + cover + part)
    info = probe_audio(str(joined))
    assert info.duration_s == pytest.approx(2.0, abs=0.1)
    told, heard = read_speech(str(tmp_path / "part.mp3"), 0.0, 1.0), read_speech(info, 1.0, 2.2)
    assert 0 <= shift_of(heard, told, 0.1, 0.8) < 0.1


@pytest.mark.parametrize(("name", "codec"), [("clip.tta", "tta"), ("clip.wv", "wavpack"), ("clip.au", "pcm_s16be")])
def test_more_formats(tmp_path: Path, name: str, codec: str) -> None:
    uri = write_sound(tmp_path / name, noise(1.0, 48_000)[None], 48_000, "mono", codec)
    assert probe_audio(uri).duration_s == pytest.approx(1.0, abs=1e-6)
    assert abs(shift_of(read_speech(uri, 0.0, 1.0), noise(1.0, 16_000), 0.1, 0.9)) <= 0.001


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("many.m4a", "aac", "7.1"),
        ("many.ogg", "libopus", "7.1"),
        ("many.flac", "flac", "7.1"),
        ("many.wav", "pcm_s16le", "7.1"),
        ("many.wav", "pcm_f32le", "6.1"),
        ("many.mkv", "libopus", "7.1"),
        ("many.wav", "pcm_s24le", "hexadecagonal"),
        ("many.mka", "flac", "5.1(side)"),
        ("many.wav", "pcm_s16le", "quad"),
        ("many.wav", "pcm_mulaw", "mono"),
        ("many.au", "pcm_alaw", "stereo"),
        ("many.mp3", "libmp3lame", "mono"),
    ],
)
def test_any_layout_and_codec_goes_into_any_container(
    make_video: Any, tmp_path: Path, name: str, codec: str, layout: str
) -> None:
    rate = 8_000 if codec in ("pcm_mulaw", "libmp3lame") else 48_000
    count = len(av.AudioLayout(layout).channels)
    uri = write_sound(tmp_path / name, np.tile(noise(1.0, rate), (count, 1)), rate, layout, codec)
    info = probe_audio(uri)
    assert info.channels == count
    told = read_speech(uri, 0.0, 1.0)
    assert abs(shift_of(told, noise(1.0, 16_000), 0.1, 0.9)) <= 0.001
    for suffix in (".mp4", ".mov", ".mkv"):
        output = muxed(make_video, uri, tmp_path / f"out{suffix}", 1.0)
        after = probe_audio(output)
        assert after.channels == (count if info.layout else 1)
        assert after.duration_s == pytest.approx(1.0, abs=0.05)
        assert abs(shift_of(read_speech(output, 0.0, 1.0), told, 0.1, 0.9)) <= 0.001


def test_channels_without_places(tmp_path: Path, make_tone: Any, make_video: Any) -> None:
    sine = make_tone.sine(1.0, 16_000)
    path = tmp_path / "stems.wav"
    write_sound(path, np.tile(sine, (16, 1)), 16_000, "hexadecagonal", "pcm_s16le")
    data = bytearray(path.read_bytes())
    mask = data.index(b"fmt ") + 8 + 20
    data[mask : mask + 4] = bytes(4)
    path.write_bytes(data)
    info = probe_audio(str(path))
    assert (info.channels, info.layout) == (16, "")
    assert "16 channels without known places; they are mixed to one" in info.warnings[0]
    output = muxed(make_video, str(path), tmp_path / "out.mp4", 1.0)
    assert probe_audio(output).channels == 1
    assert error_of(read_speech(output, 0.0, 1.0), sine) < 0.1


def test_the_speech_codec_is_one_that_the_container_takes(make_tone: Any) -> None:
    mulaw = probe_audio(make_tone("law.wav", rate=8_000, codec="pcm_mulaw"))
    assert speech_codec(mulaw, "mov").name == "pcm_mulaw"
    assert speech_codec(mulaw, "matroska") == ("pcm_s16le", 8_000, "mono")
    assert speech_codec(mulaw, "mp4") == ("aac", 8_000, "mono")


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, codec: str, bad: float) -> None:
    samples = np.zeros((1, 16_000), np.float32 if codec == "pcm_f32le" else np.float64)
    samples[0, 12_000] = bad
    uri = write_sound(tmp_path / "bad.wav", samples, 16_000, "mono", codec, "flt" if codec == "pcm_f32le" else "dbl")
    with pytest.raises(
        MediaError, match=r"bad\.wav: the sound holds samples that are no finite numbers, the first at 0\.75 s"
    ):
        probe_audio(uri)


def two_tracks(path: Path, first: NDArray[np.float32], second: NDArray[np.float32], default: int) -> str:
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("aac", rate=48_000, layout="mono") for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
        for stream, samples in zip(streams, (first, second), strict=True):
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return str(path)


@pytest.mark.parametrize("name", ["tracks.m4a", "tracks.mkv"])
def test_the_default_track_is_the_speech(make_tone: Any, make_video: Any, tmp_path: Path, name: str) -> None:
    tone, silence = make_tone.sine(1.0, 48_000), np.zeros(48_000, np.float32)
    for default in (0, 1):
        pair = (tone, silence) if default == 0 else (silence, tone)
        uri = two_tracks(tmp_path / name, *pair, default=default)
        info = probe_audio(uri)
        assert not info.warnings
        assert error_of(read_speech(info, 0.0, 1.0), make_tone.sine(1.0, 16_000)) < 0.05
        for suffix in (".mp4", ".mov"):
            output = muxed(make_video, uri, tmp_path / f"out{suffix}", 1.0)
            assert error_of(read_speech(output, 0.0, 1.0), make_tone.sine(1.0, 16_000)) < 0.05


def test_silence_is_said(tmp_path: Path) -> None:
    quiet = 0.0001 * np.random.default_rng(0).normal(size=(2, 16_000)).astype(np.float32)
    info = probe_audio(write_sound(tmp_path / "quiet.wav", quiet, 16_000, "stereo", "pcm_s16le"))
    assert "silent all through" in info.warnings[0]


def test_channels_that_cancel_are_not_summed(tmp_path: Path) -> None:
    speech = noise(2.0, 16_000)
    hum = 0.1 * np.sin(2 * np.pi * 50 * np.arange(32_000) / 16_000).astype(np.float32)
    half = np.where(np.arange(32_000) < 16_000, speech, -speech)
    for name, left, right in (
        ("reversed", speech, -speech),
        ("nearly", speech, -0.8 * speech),
        ("for a while", speech, half),
        ("over hum", speech + hum, hum - speech),
    ):
        uri = write_sound(tmp_path / "out_of_phase.wav", np.stack([left, right]), 16_000, "stereo", "pcm_s16le")
        info = probe_audio(uri)
        assert info.listened_to == 0, name
        assert "channels cancel each other; the lips follow channel 1 alone" in info.warnings[0]
        assert error_of(read_speech(info, 0.0, 2.0), left) < 0.001, name
        assert np.array_equal(read_speech(info, 0.3, 0.6), read_speech(info, 0.0, 1.0)[4800:9600])
    other = np.random.default_rng(0).normal(size=32_000).astype(np.float32) * 0.1
    for right in (speech, 0 * speech, other, -0.3 * speech, 0.9 * speech + other):
        uri = write_sound(tmp_path / "plain.wav", np.stack([speech, right]), 16_000, "stereo", "pcm_s16le")
        assert probe_audio(uri).listened_to == -1
        assert not probe_audio(uri).warnings


def test_a_film_speaks_in_its_centre_whatever_its_music_does(tmp_path: Path) -> None:
    speech, music = noise(1.0, 16_000), 3 * np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.1
    film = np.stack([music, -music, speech, 0 * music, 0 * music, 0 * music])
    info = probe_audio(write_sound(tmp_path / "film.wav", film, 16_000, "5.1", "pcm_s16le"))
    assert info.listened_to == 2
    assert error_of(read_speech(info, 0.0, 1.0), speech) < 0.001


@pytest.mark.parametrize("rate", [900, 1_073_757_824])
def test_absurd_rates_are_refused(make_tone: Any, rate: int) -> None:
    path = Path(make_tone())
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(MediaError, match=rf"tone\.wav: its sample rate is {rate:,} Hz; allowed: 1,000 to 768,000"):
        probe_audio(str(path))


def test_absurd_levels_are_refused(tmp_path: Path) -> None:
    samples = np.zeros((1, 16_000), np.float32)
    samples[0, 8_000] = 1e30
    with pytest.raises(
        MediaError, match=r"holds samples of 1e\+30 at 0\.50 s, where 1 is full scale; allowed: up to 1000"
    ):
        probe_audio(write_sound(tmp_path / "loud.wav", samples, 16_000, "mono", "pcm_f32le"))


@pytest.mark.parametrize(("codec", "kind"), [("pcm_s64le", "s32"), ("pcm_f64le", "dbl"), ("pcm_s32be", "s32")])
def test_wide_samples(tmp_path: Path, make_video: Any, codec: str, kind: str) -> None:
    values = noise(1.0, 16_000)[None]
    samples = values.astype(np.float64) if kind == "dbl" else np.round(values * 2.0**31).astype(np.int32)
    source = write_sound(tmp_path / "s.nut", samples, 16_000, "mono", codec, kind)
    for suffix in (".mp4", ".mov", ".mkv"):
        output = muxed(make_video, source, tmp_path / f"out{suffix}", 1.0)
        assert abs(shift_of(read_speech(output, 0.0, 1.0), values[0], 0.1, 0.9)) <= 0.001


@pytest.mark.parametrize(
    ("name", "codec"), [("joined.ts", "aac"), ("joined.flac", "flac"), ("joined.mp3", "libmp3lame")]
)
def test_joined_speech_is_delivered_where_the_lips_are(make_video: Any, tmp_path: Path, name: str, codec: str) -> None:
    part = Path(write_sound(tmp_path / f"part_{name}", noise(1.0, 24_000)[None], 24_000, "mono", codec)).read_bytes()
    joined = tmp_path / name
    joined.write_bytes((part + b"TAG" + bytes(125)) * 2 + part if name.endswith("mp3") else part * 3)
    info = probe_audio(str(joined))
    assert info.duration_s == pytest.approx(3.0, abs=0.25)
    told = read_speech(info, 0.0, 3.0)
    for suffix in (".mp4", ".mkv"):
        heard = read_speech(muxed(make_video, str(joined), tmp_path / f"out{suffix}"), 0.0, 3.0)
        for start_s in (0.1, 1.2, 2.2):
            assert abs(shift_of(heard, told, start_s, start_s + 0.6)) <= 0.001


def test_a_layout_that_changes_is_mixed(tmp_path: Path) -> None:
    parts = []
    for layout, channels in (("5.1", 6), ("stereo", 2)):
        samples = np.tile(noise(1.0, 48_000), (channels, 1))
        parts.append(Path(write_sound(tmp_path / f"{layout}.ac3", samples, 48_000, layout, "ac3")).read_bytes())
    (tmp_path / "joined.ac3").write_bytes(b"".join(parts))
    info = probe_audio(str(tmp_path / "joined.ac3"))
    assert info.channels in (2, 6)
    heard, told = read_speech(info, 0.0, 2.0), noise(1.0, 16_000)
    assert abs(shift_of(heard[:16_000], told, 0.1, 0.9)) < 0.01
    assert abs(shift_of(heard[16_000:], told, 0.1, 0.9)) < 0.06


def test_sound_that_is_cut_short_is_said(make_tone: Any, tmp_path: Path) -> None:
    for name, codec in (
        ("cut.wav", "pcm_s16le"),
        ("cut.w64", "pcm_s16le"),
        ("cut.flac", "flac"),
        ("cut.aiff", "pcm_s16be"),
        ("cut.mp3", "libmp3lame"),
        ("cut.mka", "flac"),
    ):
        whole = Path(make_tone(name, 3.0, codec=codec))
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        info = probe_audio(str(whole))
        assert 0.5 < info.duration_s < 2.5
        assert "is cut short: it says that it lasts 3.00 s; the last " in "".join(info.warnings), name


def test_sound_after_a_still_picture_is_in_time(make_tone: Any, make_video: Any, tmp_path: Path) -> None:
    late = remux(make_tone("speech.m4a", 1.0, rate=48_000, codec="aac"), tmp_path / "plain.m4a")
    with av.open(late) as source, av.open(str(tmp_path / "late.mp4"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.codec_context.width, video.codec_context.height, video.codec_context.pix_fmt = 64, 64, "yuv420p"
        sound = output.add_stream_from_template(source.streams.audio[0])
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts + 27_744, packet.dts + 27_744, sound
                output.mux(packet)
    told = read_speech(str(tmp_path / "late.mp4"), 0.0, 1.5, 48_000)
    assert np.abs(told[:27_000]).max() < 0.01
    for name in ("clip.mp4", "clip.mov", "clip.mkv"):
        output = muxed(make_video, str(tmp_path / "late.mp4"), tmp_path / f"out_{name}", 1.5)
        heard = read_speech(output, 0.0, 1.5, 48_000)
        shift = int(np.argmax(np.correlate(told[28_000:60_000], heard[29_000:59_000]))) - 1000
        assert abs(shift) <= 48, name
