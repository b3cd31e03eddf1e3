"""MIME types of MP4 files, by which players tell what they can play."""

from pathlib import Path

import av
import pytest

from dreamhead.errors import MediaError
from dreamhead.media.mime import mp4_header, mp4_mime_type


def written(path: Path, *streams: tuple[str, dict[str, str]]) -> bytes:
    """A file with a second of each codec, the header first."""
    with av.open(str(path), "w", container_options={"movflags": "faststart"}) as output:
        added = [add(output, codec, options) for codec, options in streams]
        for stream in added:
            output.mux(packet for frame in frames_for(stream) for packet in stream.encode(frame))
            output.mux(stream.encode(None))
    return path.read_bytes()


def add(output: av.container.OutputContainer, codec: str, options: dict[str, str]) -> "av.stream.Stream":
    if codec.startswith("libx26") or codec == "mpeg4":
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, options.get("pix_fmt", "yuv420p")
        return stream
    return output.add_stream(codec, rate=48000, options=options, layout="stereo")


def frames_for(stream: "av.stream.Stream") -> list[av.VideoFrame | av.AudioFrame]:
    if stream.type == "video":
        return [av.VideoFrame(128, 96, stream.pix_fmt) for _ in range(3)]
    frame = av.AudioFrame(format=stream.format.name, layout="stereo", samples=stream.frame_size or 1024)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate = 48000
    return [frame]


X265_QUIET = {"x265-params": "log-level=none"}


@pytest.mark.parametrize(
    ("streams", "codecs"),
    [
        # 42 C0 1E: constrained baseline, level 3.0; 64 00 28: high, 4.0. HEVC: Main and Main 10, level 1, progressive.
        ([("libx264", {"profile": "baseline", "level": "3.0"})], "avc1.42C01E"),
        ([("libx264", {"profile": "high", "level": "4.0"}), ("aac", {})], "avc1.640028, mp4a.40.2"),
        ([("libx265", X265_QUIET)], "hvc1.1.6.L30.90"),
        ([("libx265", X265_QUIET | {"pix_fmt": "yuv420p10le"})], "hvc1.2.4.L30.90"),
        ([("libmp3lame", {})], "mp4a.6B"),
        ([("ac3", {})], "ac-3"),
        ([("eac3", {})], "ec-3"),
        ([("alac", {})], "alac"),
        ([("libopus", {})], "opus"),
        ([("flac", {})], "fLaC"),
    ],
)
def test_the_type_names_what_a_file_holds(
    tmp_path: Path, streams: list[tuple[str, dict[str, str]]], codecs: str
) -> None:
    data = written(tmp_path / "some.mp4", *streams)
    header = mp4_header(data)
    assert header is not None
    assert len(header) < len(data)
    assert mp4_mime_type(header) == f'video/mp4; codecs="{codecs}"'


def test_what_has_no_name_there_leaves_the_plain_type(tmp_path: Path) -> None:
    assert mp4_mime_type(written(tmp_path / "some.mp4", ("mpeg4", {}))) == "video/mp4"


def test_a_header_is_known_once_it_is_whole(tmp_path: Path) -> None:
    data = written(tmp_path / "some.mp4", ("libx264", {}))
    header = mp4_header(data)
    assert header is not None
    assert [mp4_header(data[:count]) for count in (0, 7, 40, len(header) - 1)] == [None] * 4
    assert mp4_header(data[: len(header)]) == header


def test_what_is_no_mp4_is_refused() -> None:
    with pytest.raises(MediaError, match="the header"):
        mp4_mime_type(b"no header at all" * 10)
    with pytest.raises(MediaError, match="box b'abcd' at byte 0 is 3 bytes long"):
        mp4_header(b"\0\0\0\3abcd")
