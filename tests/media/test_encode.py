"""Encoding frames to chunks."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dreamhead.config import OutputSettings
from dreamhead.errors import ConfigError, MediaError
from dreamhead.media.encode import available_codecs, encode_chunk
from dreamhead.media.video import probe, read_frames
from dreamhead.records import VideoInfo

FINE = OutputSettings(quality=10, encoder_threads=1)


def encode(info: VideoInfo, path: Path, settings: OutputSettings = FINE, start: int = 0, stop: int = -1) -> VideoInfo:
    stop = info.frame_count if stop < 0 else stop
    end_pts = int(info.pts[stop]) if stop < info.frame_count else info.end_pts
    frames = read_frames(info, range(start, stop))
    assert encode_chunk(path, frames, info, info.pts[start:stop], end_pts, settings) == stop - start
    return probe(str(path))


@pytest.mark.parametrize("color", [(1, 1, 1, 1), (6, 6, 6, 1), (2, 2, 2, 0), (1, 1, 1, 2)])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_colours_do_not_shift(make_video: Any, tmp_path: Path, color: tuple[int, int, int, int], codec: Any) -> None:
    info = probe(make_video(frames=12, size=(160, 128), color=color))
    settings = OutputSettings(codec=codec, quality=10, encoder_threads=1)
    chunk = encode(info, tmp_path / "chunk.mp4", settings)
    errors = [
        after.astype(int) - before
        for before, after in zip(read_frames(info, range(12)), read_frames(chunk, range(12)), strict=True)
    ]
    assert chunk.color[:3] == color[:3]
    assert chunk.color[3] in (color[3], color[3] or 1)
    assert np.abs(errors).mean() < 1.5
    # swscale rounds full-range chroma down.
    assert np.abs(np.mean(errors, axis=(0, 1, 2))).max() < (1.5 if color[3] == 2 else 0.75)


def test_uneven_times_are_kept_from_zero(make_video: Any, tmp_path: Path) -> None:
    pts = [507 + step for step in (0, 512, 1536, 2048, 2560, 3584, 4096, 5120)]
    info = probe(make_video(frames=8, pts=pts, time_base=Fraction(1, 15360), rate=Fraction(1350, 61)))
    chunk = encode(info, tmp_path / "chunk.mp4", start=2, stop=7)
    assert chunk.time_base == Fraction(1, 15360)
    assert chunk.pts.tolist() == [0, 512, 1024, 2048, 2560]
    assert [make_video.number(frame) for frame in read_frames(chunk, range(5))] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("time_base", [Fraction(1, 1000), Fraction(1, 90000), Fraction(1001, 30000)])
def test_any_time_base_is_exact(make_video: Any, tmp_path: Path, time_base: Fraction) -> None:
    source = probe(make_video(frames=6))
    pts = np.arange(6, dtype=np.int64) * max(1, round(Fraction(1, 25) / time_base)) + 3
    info = VideoInfo(**{**vars(source), "time_base": time_base, "pts": pts, "end_pts": int(2 * pts[-1] - pts[-2])})
    encode_chunk(tmp_path / "chunk.mp4", read_frames(source, range(6)), info, pts, info.end_pts, FINE)
    chunk = probe(str(tmp_path / "chunk.mp4"))
    assert [tick * chunk.time_base for tick in chunk.pts.tolist()] == [(int(p) - 3) * time_base for p in pts]


def test_rotated_frames_go_back_to_coded_orientation(make_video: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=[np.rot90(make_video.draw(7, (64, 96)), -1)] * 3, rotation=90))
    chunk = encode(info, tmp_path / "chunk.mp4")
    assert (chunk.width, chunk.height, chunk.rotation) == (info.width, info.height, 0)
    shown, coded = next(read_frames(info, [0])), next(read_frames(chunk, [0]))
    assert np.abs(np.rot90(coded).astype(int) - shown).mean() < 1.5


def test_odd_sizes_keep_their_size(make_video: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=3, size=(97, 63), pixel_format="yuv444p"))
    chunk = encode(info, tmp_path / "chunk.mp4")
    assert (chunk.width, chunk.height) == (97, 63)
    assert make_video.number(next(read_frames(chunk, [2]))) == 2


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_key_frames_are_no_further_apart_than_asked(make_video: Any, tmp_path: Path, codec: Any) -> None:
    info = probe(make_video(frames=30))
    encode(info, tmp_path / "chunk.mp4", OutputSettings(codec=codec, keyframe_s=0.4, encoder_threads=1))
    with av.open(str(tmp_path / "chunk.mp4")) as container:
        shown = sorted((packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size)
    keys = [index for index, (_, is_key) in enumerate(shown) if is_key]
    assert keys[0] == 0
    assert max(np.diff([*keys, 30])) in (9, 10)


def test_same_frames_give_the_same_bytes(make_video: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=30, size=(160, 128)))
    two = OutputSettings(encoder_threads=2)
    written = set()
    for name in ("one.mp4", "two.mp4", "six.mp4"):
        encode(info, tmp_path / name, two)
        written.add((tmp_path / name).read_bytes())
    assert len(written) == 1


def test_wrong_frames_are_refused(make_video: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=3))
    path = tmp_path / "chunk.mp4"
    with pytest.raises(MediaError, match=r"more frames than the 2 times"):
        encode_chunk(path, read_frames(info, range(3)), info, info.pts[:2], int(info.pts[2]), FINE)
    with pytest.raises(MediaError, match=r"clip\.mp4: a frame to encode is \(4, 4, 3\).*expected \(64, 96, 3\)"):
        encode_chunk(path, [np.zeros((4, 4, 3), np.uint8)], info, info.pts[:1], int(info.pts[1]), FINE)


def test_fewer_frames_are_counted(make_video: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=3))
    assert encode_chunk(tmp_path / "a.mp4", read_frames(info, [0]), info, info.pts, info.end_pts, FINE) == 1


def test_unknown_preset_and_missing_encoder(make_video: Any, tmp_path: Path) -> None:
    info = probe(make_video(frames=2))
    with pytest.raises(ConfigError, match=r"output\.preset 'p4' is unknown to libx264; allowed: \['ultrafast'"):
        encode(info, tmp_path / "chunk.mp4", OutputSettings(preset="p4"))
    working = available_codecs()
    assert {"libx264", "libx265"} <= set(working)
    if "h264_nvenc" not in working:
        with pytest.raises(MediaError, match=r"h264_nvenc can't be opened for 96x64: .*; .*\['libx264', 'libx265'\]"):
            encode(info, tmp_path / "chunk.mp4", OutputSettings(codec="h264_nvenc", preset="p4"))
