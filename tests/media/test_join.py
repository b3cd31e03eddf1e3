"""Joining chunks and speech to the output."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dreamhead.config import OutputSettings
from dreamhead.errors import MediaError
from dreamhead.media.audio import probe_audio, read_speech
from dreamhead.media.encode import encode_chunk
from dreamhead.media.join import container_of, join, verify
from dreamhead.media.speech_track import Speech
from dreamhead.media.video import probe, read_frames
from dreamhead.records import VideoInfo

SETTINGS = OutputSettings(encoder_threads=1)


def dub(
    info: VideoInfo, cuts: list[int], audio: str, output: Path, settings: OutputSettings = SETTINGS, **options: Any
) -> VideoInfo:
    """Encode the source's own frames in chunks that start at `cuts`, join them, and probe the output."""
    chunks = []
    for start, stop in zip(cuts, [*cuts[1:], info.frame_count], strict=True):
        chunks.append(output.with_name(f"chunk{start}.mp4"))
        end_pts = int(info.pts[stop]) if stop < info.frame_count else info.end_pts
        frames = read_frames(info, range(start, stop))
        encode_chunk(chunks[-1], frames, info, info.pts[start:stop], end_pts, settings)
    starts = [int(info.pts[start]) for start in cuts]
    metadata = options.pop("metadata", {})
    speech = Speech(audio=probe_audio(audio), **{"end_s": None, **options})
    join(chunks, starts, info, info, speech, output, settings, metadata)
    verify(output, info.frame_count, (info.width, info.height))
    return probe(str(output))


def numbers(make_video: Any, info: VideoInfo) -> list[int]:
    return [make_video.number(frame) for frame in read_frames(info, range(info.frame_count))]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_everything_is_the_sources(make_video: Any, make_tone: Any, tmp_path: Path, codec: Any) -> None:
    rate = Fraction(30000, 1001)
    info = probe(make_video(frames=50, rate=rate, aspect=Fraction(15, 16), color=(6, 1, 6, 1), options={"bf": "2"}))
    settings = OutputSettings(codec=codec, encoder_threads=1)
    audio = make_tone(seconds=info.duration_s, rate=48_000, layout="stereo", codec="pcm_s24le")
    # A chunk of one frame is all key frame and no order.
    joined = dub(info, [0, 20, 21, 30], audio, tmp_path / "out.mp4", settings, metadata={"title": "A", "consent": "7"})
    assert joined.pts.tolist() == info.pts.tolist()
    assert (joined.time_base, joined.end_pts, joined.average_rate) == (info.time_base, info.end_pts, rate)
    assert (joined.sample_aspect_ratio, joined.color) == (Fraction(15, 16), (6, 1, 6, 1))
    assert numbers(make_video, joined) == [*range(50)]
    sound = probe_audio(str(tmp_path / "out.mp4"))
    assert (sound.codec, sound.sample_rate, sound.channels) == ("aac", 48_000, 2)
    assert sound.duration_s == pytest.approx(joined.duration_s, abs=1 / 48_000)
    assert np.abs(read_speech(str(tmp_path / "out.mp4"), 0.2, 1.4) - read_speech(audio, 0.2, 1.4)).max() < 0.02
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "A"
        assert container.metadata["consent"] == "7"
        assert container.streams.video[0].codec_context.codec_tag == ("avc1" if codec == "libx264" else "hvc1")
        dts = [packet.dts for packet in container.demux(video=0) if packet.dts is not None]
        assert all(earlier < later for earlier, later in itertools.pairwise(dts))
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_uneven_times_and_a_late_start(make_video: Any, make_tone: Any, tmp_path: Path) -> None:
    steps = [512, 1024, 512, 512, 1536, 512, 1024, 512, 512, 512, 2048, 512]
    pts = [int(tick) for tick in 507 + np.cumsum([0, *steps])]
    info = probe(make_video(frames=13, pts=pts, time_base=Fraction(1, 15360), rate=20))
    for cuts in ([0], [0, 5, 6]):
        joined = dub(info, cuts, make_tone(seconds=0.5), tmp_path / "out.mp4")
        assert joined.pts.tolist() == (info.pts - 507).tolist()
        assert joined.end_pts == info.end_pts - 507
        assert numbers(make_video, joined) == [*range(13)]


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_rotation_is_kept(make_video: Any, make_tone: Any, tmp_path: Path, rotation: int, suffix: str) -> None:
    coded = [np.rot90(make_video.draw(index, (64, 96)), -rotation // 90) for index in range(6)]
    info = probe(make_video(frames=coded, rotation=rotation))
    joined = dub(info, [0, 3], make_tone(seconds=0.24), tmp_path / f"out{suffix}")
    assert joined.rotation == rotation
    for before, after in zip(read_frames(info, range(6)), read_frames(joined, range(6)), strict=True):
        assert np.abs(after.astype(int) - before).mean() < 4


def test_odd_size_is_kept(make_video: Any, make_tone: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=4, size=(97, 63), pixel_format="yuv444p"))
    joined = dub(info, [0, 2], make_tone(seconds=0.16), tmp_path / "out.mp4")
    assert (joined.width, joined.height) == (97, 63)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "suffix", "expected"),
    [
        ("tone.m4a", "aac", 44_100, ".mp4", "aac"),
        ("tone.aac", "aac", 44_100, ".mp4", "aac"),
        ("tone.mp3", "libmp3lame", 44_100, ".mp4", "mp3float"),
        ("tone.ogg", "libopus", 48_000, ".mp4", "opus"),
        ("tone.ogg", "libopus", 48_000, ".mkv", "opus"),
        ("tone.wav", "pcm_s24le", 48_000, ".mp4", "aac"),
        ("tone.wav", "pcm_s24le", 48_000, ".mov", "pcm_s24le"),
        ("tone.wav", "pcm_s16le", 192_000, ".mp4", "aac"),
        ("tone.wav", "pcm_u8", 16_000, ".mkv", "pcm_u8"),
    ],
)
def test_speech_is_kept_and_cut_with_the_video(
    make_video: Any, make_tone: Any, tmp_path: Path, name: str, codec: str, rate: int, suffix: str, expected: str
) -> None:
    info = probe(make_video(frames=40))
    audio = make_tone(name, 3.0, rate=rate, codec=codec)
    output = tmp_path / f"out{suffix}"
    joined = dub(info, [0, 20], audio, output, end_s=info.duration_s)
    sound = probe_audio(str(output))
    assert sound.codec == expected
    assert sound.sample_rate == (48_000 if rate == 192_000 else rate)
    assert abs(sound.duration_s - joined.duration_s) < 0.04
    after, before = read_speech(str(output), 0.0, 1.5), read_speech(audio, 0.0, 1.5)
    # Matroska rounds times to a millisecond, 16 samples.
    lags = range(-16, 17) if suffix == ".mkv" else range(1)
    errors = [np.sqrt(np.mean((after[800 + lag : 22_000 + lag] - before[800:22_000]) ** 2)) for lag in lags]
    assert min(errors) < 0.05


def test_shorter_speech_is_followed_by_silence(make_video: Any, make_tone: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=50))
    for name, codec in (("tone.wav", "pcm_s16le"), ("tone.m4a", "aac")):
        output = tmp_path / "out.mp4"
        dub(info, [0], make_tone(name, 1.0, codec=codec), output)
        assert probe_audio(str(output)).duration_s == pytest.approx(2.0, abs=1e-4)
        assert np.abs(read_speech(str(output), 1.2, 2.0)).max() < 1e-3
        assert np.abs(read_speech(str(output), 0.5, 0.9)).max() > 0.4


def test_copied_speech_is_the_same_bytes(make_video: Any, make_tone: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=25))
    audio = make_tone("tone.m4a", 1.0, codec="aac")
    dub(info, [0], audio, tmp_path / "out.mp4")

    def packets(uri: str) -> list[bytes]:
        with av.open(uri) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(str(tmp_path / "out.mp4")) == packets(audio)


def test_wrong_chunks_are_refused(make_video: Any, make_tone: Any, tmp_path: Path) -> None:
    info, audio, chunk = probe(make_video(frames=6)), make_tone(), tmp_path / "chunk.mp4"
    encode_chunk(chunk, read_frames(info, range(3)), info, info.pts[:3], int(info.pts[3]), SETTINGS)
    other = tmp_path / "other.mp4"
    worse = OutputSettings(encoder_threads=1, preset="ultrafast")
    encode_chunk(other, read_frames(info, range(3, 6)), info, info.pts[3:], info.end_pts, worse)
    half = int(info.pts[3])
    for chunks, starts, message in (
        ([chunk], [0], r"the chunks hold 3 frames; expected 6"),
        ([chunk, chunk], [0, half + 1], r"chunk\.mp4: a frame at tick .* of the output, where none is expected"),
        ([chunk, chunk], [0, 0], r"chunk\.mp4: a frame at tick 0 of the output"),
        ([chunk, other], [0, half], r"other\.mp4: was encoded with other parameters than the first chunk"),
        ([tmp_path / "none.mp4"], [0], r"none\.mp4: no such file"),
    ):
        with pytest.raises(MediaError, match=message):
            join(chunks, starts, info, info, Speech(audio=probe_audio(audio)), tmp_path / "out.mp4", SETTINGS, {})


def test_verify_and_containers(make_video: Any) -> None:
    path = Path(make_video(frames=5))
    verify(path, 5, (96, 64))
    with pytest.raises(MediaError, match=r"clip\.mp4: shows 5 frames; expected 6"):
        verify(path, 6, (96, 64))
    with pytest.raises(MediaError, match=r"clip\.mp4: is 96x64; expected 64x96"):
        verify(path, 5, (64, 96))
    assert container_of("s3://studio/out.MKV") == "matroska"
    with pytest.raises(MediaError, match=r"out\.avi: no container for the suffix '\.avi'; allowed: \['\.mp4'"):
        container_of("out.avi")


@pytest.mark.clips
def test_real_clip_with_uneven_times(clips: Path, tmp_path: Path) -> None:
    info = probe(str(clips / "clips" / "suit_22fps.mp4"))
    joined = dub(info, [0, 50, 60], info.uri, tmp_path / "out.mp4")
    assert (info.lead, joined.pts.tolist()) == (507, (info.pts - info.zero).tolist())
    assert joined.duration_s == pytest.approx(info.duration_s, abs=1e-6)
    assert joined.times_s == pytest.approx(info.times_s, abs=1e-9)
    after, before = read_speech(joined.uri, 0.0, 6.0), read_speech(info.uri, 0.0, 6.0)
    assert np.abs(after - before).max() < 5e-3
