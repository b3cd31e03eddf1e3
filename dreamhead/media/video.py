"""Read video files: the times at which their frames are shown, then those frames as RGB arrays."""

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import numpy as np
from av.container import InputContainer
from av.error import InvalidDataError
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dreamhead.errors import MediaError
from dreamhead.media.color import SWS_MATRICES, UNSPECIFIED, Color, ColorConverter
from dreamhead.media.container import MP4, find_video, media_errors, open_media
from dreamhead.records import VideoInfo

# Here each packet is a shown frame with its own time, except for VP8's hidden frames; elsewhere only decoding tells.
PACKETS_TELL = (MP4, "matroska,webm")
HIDES_FRAMES = ("vp8",)

MAX_REORDER = 4
"""Packets after a key frame among which those shown before it are looked for; they come first."""

SEEK_GAP = 64
"""Frames that are decoded and dropped rather than sought over."""

BACKWARD_BYTES = 96 * 1024 * 1024
"""Memory for frames that are wanted in descending order; they can only be decoded in ascending order."""


def probe(uri: str) -> VideoInfo:
    """Say what a video file holds, by walking its packets and decoding one frame.

    Raises MediaError when the file is missing, isn't media, holds no video or no frame, is cut short, or shows its
    picture mirrored or at an angle.
    """
    with _open_video(uri) as (container, stream):
        is_still = container.format.name.endswith("_pipe")
        has_audio = len(container.streams.audio) > 0
        times = _packet_times(uri, container, stream)
    first = _first_frame(uri)
    times = times or _decoded_times(uri)
    with _open_video(uri) as (_, stream):
        pts, end_pts, time_base = times.pts, times.end_pts, Fraction(stream.time_base or 0)
        return VideoInfo(
            uri=uri,
            width=first.width,
            height=first.height,
            rotation=_rotation(uri, first),
            sample_aspect_ratio=Fraction(stream.sample_aspect_ratio or 1),
            average_rate=Fraction(stream.average_rate or len(pts) / ((end_pts - int(pts[0])) * time_base)),
            time_base=time_base,
            pts=pts,
            end_pts=end_pts,
            color=_color(uri, stream, first),
            has_audio=has_audio,
            is_still=is_still,
        )


def read_frames(info: VideoInfo, indices: Sequence[int] | range) -> Iterator[NDArray[np.uint8]]:
    """Yield frames by number, each (H, W, 3) RGB, upright as shown, exactly as decoding from the start gives them.

    Ascending numbers are streamed, descending ones decoded in blocks of bounded size; a number that follows itself is
    decoded once. Raises MediaError that names the frame when it can't be decoded, and ValueError for a number outside
    the video.
    """
    for index in (min(indices, default=0), max(indices, default=0)):
        if not 0 <= index < info.frame_count:
            raise ValueError(f"{info.uri}: frame {index} is outside the video; allowed: 0 to {info.frame_count - 1}")
    return _read_frames(info, indices)


def _read_frames(info: VideoInfo, indices: Sequence[int] | range) -> Iterator[NDArray[np.uint8]]:
    with ExitStack() as files:
        reader = _FrameReader(info, files)
        limit = max(1, BACKWARD_BYTES // (info.width * info.height * 3))
        for block in _descending_blocks(indices, limit):
            frames = {index: reader.read(index) for index in sorted(set(block))}
            for index, following in zip(block, [*block[1:], -1], strict=True):
                # A repeat gets a copy: whoever takes a frame may paint on it.
                yield frames[index].copy() if following == index else frames.pop(index)


def _descending_blocks(indices: Iterable[int], limit: int) -> Iterator[list[int]]:
    """Cut into stretches that don't ascend and hold at most `limit` different numbers."""
    block: list[int] = []
    distinct = 0
    for index in indices:
        if block and (index > block[-1] or (index < block[-1] and distinct == limit)):
            yield block
            block, distinct = [], 0
        distinct += not block or index != block[-1]
        block.append(index)
    if block:
        yield block


class _FrameReader:
    """Decodes frames of one video by number; `files` closes what it opens."""

    def __init__(self, info: VideoInfo, files: ExitStack) -> None:
        self._info = info
        self._files = files
        self._converter = ColorConverter()
        self._quarter_turns = info.rotation // 90
        self._start()

    def _start(self) -> None:
        self._files.close()
        self._container, self._stream = self._files.enter_context(_open_video(self._info.uri))
        self._next = 0
        self._frames = self._numbered(self._container.demux(self._stream), None)

    def read(self, index: int) -> NDArray[np.uint8]:
        """One frame, (H, W, 3) RGB."""
        if not self._next <= index <= self._next + SEEK_GAP:
            self._seek(index)
        rgb = self._converter.to_rgb(self._advance(index), self._info.color)
        return np.ascontiguousarray(np.rot90(rgb, self._quarter_turns))

    def _advance(self, index: int) -> VideoFrame:
        info = self._info
        with media_errors(info.uri, f"frame {index} can't be decoded"):
            found, frame = next((item for item in self._frames if item[0] >= index), (info.frame_count, None))
        self._next = found + 1
        if frame is None or found != index or frame.is_corrupt:
            raise MediaError(f"{info.uri}: frame {index} can't be decoded: the file is damaged, or changed meanwhile")
        if (frame.width, frame.height) != (info.width, info.height):
            raise MediaError(
                f"{info.uri}: frame {index} is {frame.width}x{frame.height}; "
                f"expected {info.width}x{info.height} in the whole video"
            )
        return frame

    def _numbered(
        self, packets: "Iterable[Packet[VideoStream]]", entry: "_Entry | None"
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Decode, and number what is shown from `entry` on; None is the start of the file."""
        pts = self._info.pts
        first = int(pts[0]) if entry is None else entry.pts
        for packet in packets:
            try:
                frames = packet.decode()
            except InvalidDataError:
                # On the way to the entry, frames may lean on others from before the first that was decoded.
                if entry is None or packet.dts is None or packet.dts >= entry.dts:
                    raise
                continue
            for frame in frames:
                position = int(np.searchsorted(pts, frame.pts or 0))
                if position < len(pts) and pts[position] == (frame.pts or 0) >= first:
                    yield position, frame

    def _seek(self, index: int) -> None:
        """Go to the last key frame that is shown no later than the frame, or to the start of the file."""
        wanted = int(self._info.pts[index])
        with media_errors(self._info.uri, f"frame {index} can't be sought"):
            entry = start = self._entry(wanted)
            # Seeking goes by decoding time: the key frame that is found may be shown only after the frame.
            while entry is not None and entry.pts > wanted:
                entry = start = self._entry(entry.dts - 1, entry.dts)
            if entry is not None and entry.is_open:
                start = self._entry(entry.dts - 1, entry.dts)
        if entry is None or start is None:
            self._start()
            return
        self._next = int(np.searchsorted(self._info.pts, entry.pts))
        self._frames = self._numbered(start.packets, entry)

    def _entry(self, tick: int, limit: int | None = None) -> "_Entry | None":
        """The key frame that a seek to `tick` finds; None where it isn't decoded before `limit`."""
        self._container.seek(tick, stream=self._stream)
        packets = iter(self._container.demux(self._stream))
        key = next((packet for packet in packets if packet.is_keyframe), None)
        if key is None or key.pts is None or key.dts is None or (limit is not None and key.dts >= limit):
            return None
        following = list(itertools.islice(packets, MAX_REORDER))
        is_open = any(packet.pts is not None and packet.pts < key.pts for packet in following)
        return _Entry(key.pts, key.dts, is_open, itertools.chain([key], following, packets))


@dataclass(frozen=True)
class _Entry:
    """A key frame to start decoding from."""

    pts: int
    dts: int
    is_open: bool
    """Frames that are shown before it are decoded after it, and lean on what comes before it."""
    packets: "Iterator[Packet[VideoStream]]"


@contextmanager
def _open_video(uri: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    with open_media(uri) as container:
        stream = find_video(container)
        if stream is None:
            raise MediaError(f"{uri}: holds no video stream")
        if stream.codec_context is None:
            raise MediaError(f"{uri}: no decoder for its video stream")
        # More threads would report damage late, against another frame.
        stream.codec_context.thread_count = 1
        # Without it, damage is painted over and nobody learns of it.
        stream.codec_context.options = {"err_detect": "explode"}
        yield container, stream


@dataclass(frozen=True)
class _Times:
    pts: NDArray[np.int64]
    end_pts: int


def _packet_times(uri: str, container: InputContainer, stream: VideoStream) -> _Times | None:
    """Times by the packets alone; None where only decoding tells which frames are shown."""
    _check_complete(uri, container, stream)
    pts, durations = array("q"), array("q")
    tells = container.format.name in PACKETS_TELL and stream.codec_context.name not in HIDES_FRAMES
    first_pts: int | None = None
    with media_errors(uri, "can't be read to its end"):
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise MediaError(f"{uri}: is cut short or damaged")
            first_pts = packet.pts if first_pts is None else first_pts
            tells = tells and packet.pts is not None and first_pts is not None and packet.pts >= first_pts
            if not packet.is_discard:
                pts.append(packet.pts or 0)
                durations.append(packet.duration or 0)
    return _ordered(uri, stream, pts, durations) if tells else None


def _decoded_times(uri: str) -> _Times:
    pts, durations = array("q"), array("q")
    with _open_video(uri) as (container, stream), media_errors(uri, "can't be decoded to its end"):
        for frame in container.decode(stream):
            if frame.pts is None:
                raise MediaError(f"{uri}: its frames carry no times; put it into MP4 or Matroska")
            if not frame.is_corrupt:
                pts.append(frame.pts)
                durations.append(frame.duration or 0)
        return _ordered(uri, stream, pts, durations)


def _ordered(uri: str, stream: VideoStream, pts: "array[int]", durations: "array[int]") -> _Times:
    if not pts:
        raise MediaError(f"{uri}: its video stream shows no frame")
    times, positions = np.unique(np.array(pts, dtype=np.int64), return_index=True)
    last = int(times[-1])
    step = int(durations[positions[-1]]) or (last - int(times[-2]) if len(times) > 1 else _nominal_step(stream))
    # An edit list may end within the last frame.
    is_listed = stream.container.format.name == MP4 and stream.start_time is not None and stream.duration is not None
    listed = (stream.start_time or 0) + (stream.duration or 0) if is_listed else 0
    return _Times(times, listed if listed > last else last + step)


def _nominal_step(stream: VideoStream) -> int:
    return max(1, round(1 / Fraction(stream.average_rate or 25) / Fraction(stream.time_base or 1)))


def _check_complete(uri: str, container: InputContainer, stream: VideoStream) -> None:
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if end > container.size > 0:
        raise MediaError(f"{uri}: is cut short: {container.size} bytes, of {end} at least")


def _first_frame(uri: str) -> VideoFrame:
    with _open_video(uri) as (container, stream), media_errors(uri, "frame 0 can't be decoded"):
        frame = next(container.decode(stream), None)
    if frame is None:
        raise MediaError(f"{uri}: its video stream shows no frame")
    return frame


def _rotation(uri: str, frame: VideoFrame) -> int:
    """Degrees counter-clockwise; raises MediaError when the display matrix does more than turn by quarters."""
    side_data = cast(SideData | None, frame.side_data.get("DISPLAYMATRIX"))
    if side_data is None:
        return 0
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].astype(np.int64)
    if frame.rotation % 90 or a * d - b * c <= 0:
        raise MediaError(f"{uri}: its picture is shown mirrored or at an angle; allowed: turned by 0, 90, 180 or 270")
    return int(frame.rotation) % 360


def _color(uri: str, stream: VideoStream, frame: VideoFrame) -> Color:
    context = stream.codec_context

    def either(of_frame: int, of_container: int, unknown: int) -> int:
        return int(of_container if of_frame == unknown else of_frame)

    matrix = either(frame.colorspace, context.colorspace, UNSPECIFIED)
    if matrix not in (0, UNSPECIFIED, *SWS_MATRICES):
        raise MediaError(f"{uri}: colour matrix {matrix} can't be converted; allowed: {[*SWS_MATRICES]}")
    return (
        either(frame.color_primaries, context.color_primaries, UNSPECIFIED),
        either(frame.color_trc, context.color_trc, UNSPECIFIED),
        matrix,
        either(frame.color_range, context.color_range, 0),
    )
