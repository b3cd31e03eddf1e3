"""Probing video files, and reading their frames by number."""

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from dreamhead.errors import MediaError
from dreamhead.media import video
from dreamhead.media.video import probe, read_frames

B_FRAMES = {"bf": "3", "g": "12", "x264-params": "b-adapt=0"}
OPEN_GOPS = {"bf": "3", "g": "12", "x264-params": "b-adapt=0:open-gop=1:scenecut=0"}


def digests(uri: str, numbers: Any) -> list[str]:
    return [hashlib.sha256(frame.tobytes()).hexdigest() for frame in read_frames(probe(uri), numbers)]


def test_probe_tells_what_the_file_holds(make_video: Any) -> None:
    uri = make_video(rate=Fraction(30000, 1001), aspect=Fraction(4, 3), color=(1, 1, 1, 1), options=B_FRAMES, sound_s=1)
    info = probe(uri)
    assert (info.uri, info.width, info.height, info.rotation) == (uri, 96, 64, 0)
    assert (info.sample_aspect_ratio, info.average_rate) == (Fraction(4, 3), Fraction(30000, 1001))
    assert info.color == (1, 1, 1, 1)
    assert info.has_audio
    assert not info.is_still
    assert info.pts.tolist() == [index * 1001 for index in range(25)]
    assert (info.time_base, info.end_pts) == (Fraction(1, 30000), 25 * 1001)
    assert info.duration_s == pytest.approx(25 * 1001 / 30000)


def test_probe_keeps_uneven_times(make_video: Any) -> None:
    pts = [0, 40, 100, 120, 200, 280, 300, 380]
    info = probe(make_video(frames=8, pts=pts, time_base=Fraction(1, 1000), options=B_FRAMES))
    assert info.pts.tolist() == pts
    assert not info.has_audio


def test_probe_keeps_a_late_start(make_video: Any) -> None:
    info = probe(make_video(frames=5, pts=[507 + 512 * index for index in range(5)], time_base=Fraction(1, 12800)))
    assert info.pts[0] == 507
    assert info.times_s[0] == 0.0


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_frames_are_upright(make_video: Any, rotation: int) -> None:
    upright = make_video.draw(5, (64, 96))
    uri = make_video(frames=[np.rot90(upright, -rotation // 90)] * 3, rotation=rotation)
    info = probe(uri)
    assert info.rotation == rotation
    frame = next(read_frames(info, [2]))
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 3


def test_mirrored_picture_is_refused(make_video: Any) -> None:
    with pytest.raises(MediaError, match=r"clip\.mp4: its picture is shown mirrored.*allowed: turned by 0, 90"):
        probe(make_video(frames=2, mirrored=True))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mp4", "libx264", B_FRAMES),
        ("clip.mp4", "libx264", OPEN_GOPS),
        ("clip.mp4", "libx265", {"x265-params": "keyint=12:bframes=3:log-level=none"}),
        ("clip.mkv", "libx264", B_FRAMES),
        ("clip.ts", "libx264", OPEN_GOPS),
        ("clip.avi", "mpeg4", {"g": "12", "b:v": "2M"}),
        ("clip.webm", "libvpx-vp9", {"g": "12", "b:v": "2M", "deadline": "realtime"}),
    ],
)
def test_any_order_equals_decoding_from_the_start(
    make_video: Any, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, options: dict[str, str]
) -> None:
    uri = make_video(name, 90, size=(160, 64), codec=codec, options=options)
    numbers = [make_video.number(frame) for frame in read_frames(probe(uri), range(90))]
    assert numbers == [*range(90)]
    straight = digests(uri, range(90))
    monkeypatch.setattr(video, "SEEK_GAP", 2)
    wanted = [70, 3, 3, 3, 40, 41, 42, 89, 0, *range(60, 30, -1), 30, 31, 11, 23, 35]
    assert digests(uri, wanted) == [straight[index] for index in wanted]


def test_descending_frames_need_bounded_memory(make_video: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "BACKWARD_BYTES", 4 * 96 * 64 * 3)
    uri = make_video(frames=30, options=B_FRAMES)
    assert [make_video.number(frame) for frame in read_frames(probe(uri), range(29, -1, -1))] == [*range(29, -1, -1)]
    blocks = list(video._descending_blocks([5, 4, 4, 3, 2, 1, 0, 7, 8, 8], 4))
    assert blocks == [[5, 4, 4, 3, 2], [1, 0], [7], [8, 8]]


def test_repeated_frames_are_separate_arrays(make_video: Any) -> None:
    first, second = read_frames(probe(make_video(frames=3)), [1, 1])
    first[:] = 0
    assert make_video.number(second) == 1


def test_frames_outside_are_refused_at_once(make_video: Any) -> None:
    info = probe(make_video(frames=3))
    with pytest.raises(ValueError, match=r"frame 3 is outside the video; allowed: 0 to 2"):
        read_frames(info, range(4))


def test_frames_that_an_edit_list_hides_are_not_counted(make_video: Any, tmp_path: Path) -> None:
    whole = make_video(frames=24, options={"bf": "0", "g": "24"})
    trimmed = str(tmp_path / "trimmed.mp4")
    with av.open(whole) as source, av.open(trimmed, "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                # Times before zero end up before the edit list's start.
                packet.pts -= 5
                packet.dts -= 5
                packet.stream = copy
                output.mux(packet)
    info = probe(trimmed)
    assert [make_video.number(frame) for frame in read_frames(info, range(info.frame_count))] == [*range(5, 24)]
    assert info.pts[0] == 0


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_still_picture_is_one_frame(make_video: Any, tmp_path: Path, suffix: str) -> None:
    picture = cv2.GaussianBlur(make_video.draw(9, (96, 64)), (5, 5), 0)
    path = tmp_path / f"face%03d.{suffix}"
    cv2.imwrite(str(path), picture[..., ::-1])
    info = probe(str(path))
    assert info.is_still
    assert (info.pts.tolist(), info.end_pts, info.time_base) == ([0], 1, Fraction(1, 25))
    frame, again = read_frames(info, [0, 0])
    assert np.array_equal(frame, again)
    assert np.abs(frame.astype(int) - picture).mean() < (0.001 if suffix == "png" else 3)


def test_unusable_files_are_named(make_video: Any, make_tone: Any, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video" * 100)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{make_video()}\n#EXT-X-ENDLIST\n")
    for uri, message in {
        str(tmp_path / "none.mp4"): r"none\.mp4: no such file",
        str(tmp_path): "can't be opened as media: Is a directory",
        str(text): r"notes\.mp4: can't be opened as media: Invalid data",
        str(playlist): r"list\.m3u8: can't be opened as media",
        make_tone(): r"tone\.wav: holds no video stream",
    }.items():
        with pytest.raises(MediaError, match=message):
            probe(uri)


def test_file_that_is_cut_short_is_refused(make_video: Any) -> None:
    whole = Path(make_video(frames=50, options={"movflags": "faststart"}))
    data = whole.read_bytes()
    moov_first = whole.with_name("short.mp4")
    with av.open(str(whole)) as source, av.open(str(moov_first), "w", options={"movflags": "faststart"}) as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    moov_first.write_bytes(moov_first.read_bytes()[:-2000])
    with pytest.raises(MediaError, match=r"short\.mp4: is cut short: \d+ bytes, of \d+ at least"):
        probe(str(moov_first))
    whole.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=r"clip\.mp4: can't be opened as media"):
        probe(str(whole))


def test_damaged_frame_is_named(make_video: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SEEK_GAP", 2)
    path = Path(make_video(frames=40, options={"bf": "0", "g": "10"}))
    info = probe(str(path))
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][25]
        position, size = packet.pos or 0, packet.size
    data = bytearray(path.read_bytes())
    data[position + 6 : position + size] = bytes(255 - value for value in data[position + 6 : position + size])
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"clip\.mp4: frame 2\d, at (1\.00|0\.9\d) s, can't be decoded"):
        list(read_frames(info, range(20, 35)))
    for index in (3, 35):
        assert make_video.number(next(read_frames(info, [index]))) == index


@pytest.mark.clips
def test_real_clips(clips: Path) -> None:
    late = probe(str(clips / "clips" / "suit_22fps.mp4"))
    assert (late.frame_count, int(late.pts[0]), late.average_rate) == (135, 507, Fraction(1350, 61))
    hidden = probe(str(clips / "clips" / "hdtf_radio10.mp4"))
    assert hidden.frame_count == 61
    assert len(list(read_frames(hidden, range(61)))) == 61
