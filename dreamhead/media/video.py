"""Read video files: the times at which their frames are shown, then those frames as RGB arrays."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dreamhead.errors import MediaError
from dreamhead.media.color import HDR_TRANSFERS, SWS_MATRICES, UNSPECIFIED, Color, ColorConverter
from dreamhead.media.container import media_errors, packets_of
from dreamhead.media.frame_times import (
    PICTURES,
    Walk,
    decode,
    decoded_times,
    first_frame,
    from_key,
    open_video,
    packet_times,
    placed,
    walk_packets,
    with_time,
)
from dreamhead.media.still import NO_ALPHA, probe_still, read_still
from dreamhead.records import VideoInfo

MAX_REORDER = 4
"""Packets after a key frame among which those shown before it are looked for; they come first."""

SEEK_GAP = 64
"""Frames that are decoded and dropped rather than sought over."""

BACKWARD_BYTES = 96 * 1024 * 1024
"""Memory for frames that are wanted in descending order; they can only be decoded in ascending order."""

COLOR_OF_CONTAINER = ("vp8",)
"""Codecs whose own word on colour is one bit that encoders leave at its default; the container knows better."""


def _unknown_side_data(cls: type[SideDataType], value: object) -> SideDataType:
    known: Any = object.__new__(cls)
    known._name_, known._value_ = f"UNKNOWN_{value}", value
    return cast(SideDataType, known)


# PyAV's table ends before FFmpeg's, and a frame with any newer kind of side data would show none at all.
SideDataType._missing_ = classmethod(_unknown_side_data)  # type: ignore[assignment,method-assign]


def probe(uri: str) -> VideoInfo:
    """Say what a video or picture file holds, by walking its packets and decoding as little as tells.

    Raises MediaError when the file is missing, isn't media, holds no video or no frame, is damaged, or shows its
    picture mirrored or at an angle.
    """
    still = probe_still(uri)
    if still is not None:
        return still
    with open_video(uri) as (container, stream):
        walk = walk_packets(uri, container, stream)
        facts = _facts(uri, container, stream, walk)
    times = packet_times(uri, walk) if walk.packets_tell else None
    first = first_frame(uri, walk) if times else None
    if times is None:
        first, times = decoded_times(uri, walk)
    assert first is not None
    facts |= placed(uri, walk, times) | _facts_of_frame(uri, first, walk, facts["color"])
    return VideoInfo(**facts, warnings=tuple(walk.warnings))


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
    picture = read_still(info.uri) if info.is_still else None
    if picture is not None:
        for _ in indices:
            yield picture.copy()
        return
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
        self._ticks = info.pts if info.packet_times is None else info.packet_times
        self._order = np.argsort(self._ticks, kind="stable")
        self._sorted = self._ticks[self._order]
        self._start()

    def _start(self) -> None:
        self._files.close()
        self._container, self._stream = self._files.enter_context(open_video(self._info.uri))
        self._next = 0
        info = self._info
        packets = from_key(packets_of(self._container, self._stream), info.told_by, info.skipped_packets)
        self._frames = self._numbered(packets, None)

    def read(self, index: int) -> NDArray[np.uint8]:
        """One frame, (H, W, 3) RGB."""
        if not self._next <= index <= self._next + SEEK_GAP:
            self._seek(index)
        rgb = self._converter.to_rgb(self._advance(index), self._info.color)
        return np.ascontiguousarray(np.rot90(rgb, self._quarter_turns))

    def _advance(self, index: int) -> VideoFrame:
        info = self._info
        name = f"frame {index}, at {info.times_s[index]:.2f} s,"
        with media_errors(info.uri, f"{name} can't be decoded"):
            found, frame = next((item for item in self._frames if item[0] >= index), (info.frame_count, None))
        self._next = found + 1
        if frame is None or found != index or frame.is_corrupt:
            raise MediaError(f"{info.uri}: {name} can't be decoded: the file is damaged, or changed meanwhile")
        if (frame.width, frame.height) != (info.width, info.height):
            raise MediaError(
                f"{info.uri}: {name} is {frame.width}x{frame.height}; "
                f"expected {info.width}x{info.height} in the whole video"
            )
        if self._stream.codec_context.name in COLOR_OF_CONTAINER:
            frame.colorspace = UNSPECIFIED
        return frame

    def _number(self, tick: int | None) -> int | None:
        """Of the frame whose packet has this time."""
        if tick is None:
            return None
        position = int(np.searchsorted(self._sorted, tick))
        is_known = position < len(self._sorted) and self._sorted[position] == tick
        return int(self._order[position]) if is_known else None

    def _numbered(
        self, packets: "Iterable[Packet[VideoStream]]", entry: "_Entry | None"
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Decode, and number what is shown from `entry` on; None is the start of the file."""
        first = self._number(entry.tick) if entry is not None else 0
        for packet in packets:
            try:
                frames = decode(packet)
            except FFmpegError:
                # On the way to the entry, frames may lean on others from before the first that was decoded; and what
                # isn't shown needn't be whole.
                is_before = entry is not None and packet.dts is not None and packet.dts < entry.dts
                if is_before or self._number(packet.pts) is None:
                    continue
                raise
            for frame in frames:
                number = self._number(frame.pts)
                if number is not None and first is not None and number >= first:
                    yield number, frame

    def _seek(self, index: int) -> None:
        """Go to the last key frame that is shown no later than the frame, or to the start of the file."""
        if self._info.told_by == "count":
            self._start()
            return
        with media_errors(self._info.uri, f"frame {index} can't be sought"):
            entry = start = self._entry(int(self._ticks[index]))
            # Seeking goes by decoding time: the key frame that is found may be shown only after the frame.
            while entry is not None and (number := self._number(entry.tick)) is not None and number > index:
                entry = start = self._entry(entry.dts - 1, entry.dts)
            if entry is not None and entry.is_open:
                start = self._entry(entry.dts - 1, entry.dts)
        if entry is None or start is None or (number := self._number(entry.tick)) is None:
            self._start()
            return
        self._next = number
        self._frames = self._numbered(start.packets, entry)

    def _entry(self, tick: int, limit: int | None = None) -> "_Entry | None":
        """The key frame that a seek to `tick` finds; None where it isn't decoded before `limit`."""
        try:
            self._container.seek(tick, stream=self._stream)
        except PermissionError:
            # AVI's way to say that there is nothing before.
            return None
        told_by = self._info.told_by
        packets = iter(with_time(packet, told_by, 0) for packet in packets_of(self._container, self._stream))
        key = next((packet for packet in packets if packet.is_keyframe), None)
        if key is None or key.pts is None or key.dts is None or (limit is not None and key.dts >= limit):
            return None
        following = list(itertools.islice(packets, MAX_REORDER))
        # Decoding times don't tell which frames are shown before the key frame.
        is_open = told_by == "dts" or any(packet.pts is not None and packet.pts < key.pts for packet in following)
        return _Entry(key.pts, key.dts, is_open, itertools.chain([key], following, packets))


@dataclass(frozen=True)
class _Entry:
    """A key frame to start decoding from."""

    tick: int
    """Its packet's time."""
    dts: int
    is_open: bool
    """Frames that are shown before it are decoded after it, and lean on what comes before it."""
    packets: "Iterator[Packet[VideoStream]]"


def _facts(uri: str, container: InputContainer, stream: VideoStream, walk: Walk) -> dict[str, Any]:
    """What the container says, by the names of VideoInfo's fields."""
    if stream.metadata.get("alpha_mode") == "1":
        walk.warnings.append(NO_ALPHA.format(uri))
    context = stream.codec_context
    return {
        "uri": uri,
        "sample_aspect_ratio": Fraction(stream.sample_aspect_ratio or 1),
        "has_audio": len(container.streams.audio) > 0,
        "is_still": container.format.name.endswith(PICTURES) and len(walk.ticks) == 1,
        "title": container.metadata.get("title", ""),
        "color": (context.color_primaries, context.color_trc, context.colorspace, context.color_range),
    }


def _facts_of_frame(uri: str, frame: VideoFrame, walk: Walk, of_container: Color) -> dict[str, Any]:
    """What the first frame says, by the names of VideoInfo's fields; warns of what a delivery can't keep."""
    color = _color(uri, frame, of_container, walk.codec in COLOR_OF_CONTAINER)
    if walk.is_interlaced or frame.interlaced_frame:
        walk.warnings.append(
            f"{uri}: is interlaced; it is dubbed and delivered as if it were progressive, and motion shows combs: "
            "deinterlace it first"
        )
    components = frame.format.components
    if color[1] in HDR_TRANSFERS:
        walk.warnings.append(
            f"{uri}: is HDR ({HDR_TRANSFERS[color[1]]}); it is delivered with 8 bits a sample, and without its light "
            "levels"
        )
    elif any(component.bits > 8 for component in components):
        bits = max(component.bits for component in components)
        walk.warnings.append(f"{uri}: has {bits} bits a sample; it is delivered with 8")
    # GIF's decoder always gives transparency, whether there is any or none.
    is_clear = any(component.is_alpha for component in components) and walk.codec != "gif"
    if is_clear and NO_ALPHA.format(uri) not in walk.warnings:
        walk.warnings.append(NO_ALPHA.format(uri))
    return {"width": frame.width, "height": frame.height, "rotation": _rotation(uri, frame), "color": color}


def _rotation(uri: str, frame: VideoFrame) -> int:
    """Degrees counter-clockwise; raises MediaError when the display matrix does more than turn by quarters."""
    side_data = cast(SideData | None, frame.side_data.get("DISPLAYMATRIX"))
    if side_data is None:
        return 0
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].astype(np.int64)
    if frame.rotation % 90 or a * d - b * c <= 0:
        raise MediaError(f"{uri}: its picture is shown mirrored or at an angle; allowed: turned by 0, 90, 180 or 270")
    return int(frame.rotation) % 360


def _color(uri: str, frame: VideoFrame, of_container: Color, container_first: bool) -> Color:
    of_frame = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
    unknown = (UNSPECIFIED, UNSPECIFIED, UNSPECIFIED, 0)
    first, second = (of_container, of_frame) if container_first else (of_frame, of_container)
    primaries, transfer, matrix, color_range = (
        int(other if one == nothing else one) for one, other, nothing in zip(first, second, unknown, strict=True)
    )
    if matrix not in (0, UNSPECIFIED, *SWS_MATRICES):
        raise MediaError(f"{uri}: colour matrix {matrix} can't be converted; allowed: {[*SWS_MATRICES]}")
    return primaries, transfer, matrix, color_range
