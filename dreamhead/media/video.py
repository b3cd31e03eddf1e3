"""Read video files: the times at which their frames are shown, then those frames as RGB arrays."""

import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, cast

import numpy as np
from av.container import InputContainer
from av.error import InvalidDataError
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dreamhead.errors import MediaError
from dreamhead.media.color import HDR_TRANSFERS, SWS_MATRICES, UNSPECIFIED, Color, ColorConverter
from dreamhead.media.container import MP4, find_video, media_errors, open_media, zero_s
from dreamhead.media.still import NO_ALPHA, probe_still, read_still
from dreamhead.records import VideoInfo

# Here each packet is a shown frame with its own time, except for VP8's hidden frames; elsewhere only decoding tells.
PACKETS_TELL = (MP4, "matroska,webm")
HIDES_FRAMES = ("vp8",)

RAW_STREAMS = ("mpegvideo", "m4v", "h264", "hevc", "vvc", "vc1", "dirac", "cavsvideo", "mjpeg")
"""No container, so no times."""
PICTURES = "_pipe"
"""What the names of FFmpeg's demuxers for pictures end with."""
ONLY_DECODING_TIMES = ("avi",)
"""FFmpeg makes up when their frames are shown, wrongly where frames are reordered."""

SAYS_ITS_LENGTH = (MP4, "matroska,webm", "avi", "mxf", "asf", "flv", "nut", "rm")
MISSING_S = {"asf": 0.5, "flv": 0.5}
"""By how much the length that a file's header says may be wrong, in seconds."""
LEAST_MISSING_S = 0.1

COARSE_TICK = Fraction(1, 2000)
"""Where ticks are longer, times of an even rate are rounded, and are taken as those of the rate."""

USUAL_RATES = tuple(
    Fraction(1000 * rate, divisor) for rate in (24, 25, 30, 48, 50, 60, 100, 120) for divisor in (1000, 1001)
)

FINE_TICKS = 90_000
MOST_TICKS = 1_000_000

MOST_PAUSE_S = 3600

JUMP_BACK_S = 0.5
"""Frames shown earlier than the one before by more than this belong to another recording."""

MAX_REORDER = 4
"""Packets after a key frame among which those shown before it are looked for; they come first."""

SEEK_GAP = 64
"""Frames that are decoded and dropped rather than sought over."""

BACKWARD_BYTES = 96 * 1024 * 1024
"""Memory for frames that are wanted in descending order; they can only be decoded in ascending order."""

COLOR_OF_CONTAINER = ("vp8",)
"""Codecs whose own word on colour is one bit that encoders leave at its default; the container knows better."""

ToldBy = Literal["pts", "dts", "count"]


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
    with _open_video(uri) as (container, stream):
        walk = _walk(uri, container, stream)
        facts = _facts(uri, container, stream, walk)
    times = _packet_times(uri, walk) if walk.packets_tell else None
    first = _first_frame(uri, walk) if times else None
    if times is None:
        first, times = _decoded_times(uri, walk)
    assert first is not None
    return _placed(walk, times, facts | _facts_of_frame(uri, first, walk, facts["color"]))


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
        self._container, self._stream = self._files.enter_context(_open_video(self._info.uri))
        self._next = 0
        info = self._info
        packets = _from_key(self._container.demux(self._stream), info.told_by, info.skipped_packets)
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
                frames = _decode(packet)
            except InvalidDataError:
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
        packets = iter(_with_time(packet, told_by, 0) for packet in self._container.demux(self._stream))
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


def _with_time(packet: "Packet[VideoStream]", told_by: ToldBy, number: int) -> "Packet[VideoStream]":
    """The packet with the time that tells its frame from the others: decoders hand it on as the frame's."""
    if told_by != "pts" and packet.size:
        packet.pts = packet.dts if told_by == "dts" else number
    return packet


def _decode(packet: "Packet[VideoStream]") -> list[VideoFrame]:
    """The frames that a packet brings out; none for an empty packet, by which AVI and Ogg repeat a frame."""
    # PyAV takes an empty packet for the end, which is the one without any time.
    return [] if not packet.size and packet.dts is not None else packet.decode()


def _from_key(
    packets: "Iterable[Packet[VideoStream]]", told_by: ToldBy, skipped: int
) -> "Iterator[Packet[VideoStream]]":
    """Packets from the first that can be decoded by itself, which `skipped` others come before."""
    number = -skipped
    for packet in packets:
        if number >= 0 or not packet.size:
            yield _with_time(packet, told_by, number)
        number += bool(packet.size)


@dataclass
class _Walk:
    """What the packets of a file tell, without decoding them."""

    time_base: Fraction
    zero_s: Fraction
    rate: Fraction
    """Frames per second, as the file says it or FFmpeg guesses it."""
    told_by: ToldBy = "pts"
    skipped: int = 0
    """Video packets before the first that can be decoded by itself."""
    ticks: "array[int]" = field(default_factory=lambda: array("q"))
    """The times of the packets that are shown, in decoding order."""
    durations: "array[int]" = field(default_factory=lambda: array("q"))
    packets_tell: bool = False
    """Each of them is a frame."""
    listed_end: int = 0
    """Where an edit list ends, in ticks; 0 is unknown."""
    codec: str = ""
    """FFmpeg's name of the decoder."""
    is_interlaced: bool = False
    warnings: list[str] = field(default_factory=list)


def _walk(uri: str, container: InputContainer, stream: VideoStream) -> _Walk:
    _check_complete(uri, container, stream)
    rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
    walk = _Walk(Fraction(stream.time_base or 1), zero_s(container), rate, codec=stream.codec_context.name)
    rows: list[tuple[int | None, int | None, int, bool, bool, bool]] = []
    end_s = Fraction(0)
    with media_errors(uri, "can't be read to its end"):
        for packet in container.demux([stream, *container.streams.audio, *container.streams.subtitles]):
            if packet.size == 0:
                continue
            if packet.pts is not None and packet.time_base:
                end_s = max(end_s, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base))
            if packet.stream_index == stream.index:
                rows.append(
                    (
                        packet.pts,
                        packet.dts,
                        packet.duration or 0,
                        packet.is_keyframe,
                        packet.is_discard,
                        packet.is_corrupt,
                    )
                )
    if not rows:
        raise MediaError(f"{uri}: its video stream shows no frame")
    # Some streams mark no key frame at all: they are tried from their beginning.
    walk.skipped = next((number for number, row in enumerate(rows) if row[3]), 0)
    early, rows = rows[: walk.skipped], rows[walk.skipped :]
    _tell_apart(walk, container.format.name, rows)
    _note_early(uri, walk, early, rows[0][0])
    rows = _without_damaged_end(uri, walk, rows)
    shown = [row for row in rows if not row[4]]
    for number, (pts, dts, duration, *_) in enumerate(shown):
        walk.ticks.append({"pts": pts, "dts": dts, "count": number}[walk.told_by] or 0)
        walk.durations.append(duration)
    walk.packets_tell = (
        container.format.name in PACKETS_TELL
        and stream.codec_context.name not in HIDES_FRAMES
        and walk.told_by == "pts"
        and all((row[0] or 0) >= (rows[0][0] or 0) for row in rows)
    )
    if container.format.name == MP4 and stream.start_time is not None and stream.duration is not None:
        walk.listed_end = stream.start_time + stream.duration
    _note_missing(uri, walk, container, stream, end_s)
    return walk


def _tell_apart(walk: _Walk, format_name: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Choose by what packets are told from each other."""
    dts = [row[1] for row in rows]
    has_dts = None not in dts and all(before < after for before, after in itertools.pairwise(dts))
    if format_name in RAW_STREAMS or format_name.endswith(PICTURES):
        walk.told_by = "count"
    elif format_name in ONLY_DECODING_TIMES or any(row[0] is None for row in rows):
        walk.told_by = "dts" if has_dts else "count"
    if walk.told_by == "count":
        walk.time_base = 1 / walk.rate


def _note_early(uri: str, walk: _Walk, early: Sequence[tuple[Any, ...]], key_pts: int | None) -> None:
    if not early:
        return
    known = [row[0] for row in early if row[0] is not None]
    lost_s = float((key_pts - min(known)) * walk.time_base) if known and key_pts is not None else len(early) / walk.rate
    walk.warnings.append(
        f"{uri}: begins in the middle of a group of pictures: {len(early)} frames, {float(lost_s):.2f} s, come before "
        "the first key frame and can't be shown"
    )


def _without_damaged_end(
    uri: str, walk: _Walk, rows: "list[tuple[int | None, int | None, int, bool, bool, bool]]"
) -> "list[tuple[int | None, int | None, int, bool, bool, bool]]":
    """Packets without damaged ones at the very end; raises MediaError for damage before it."""
    damaged = [number for number, row in enumerate(rows) if row[5]]
    if not damaged:
        return rows
    whole = len(rows)
    while whole and rows[whole - 1][5]:
        whole -= 1
    if damaged[0] < whole or not whole:
        at = rows[damaged[0]][0]
        where = f" at {float(at * walk.time_base - walk.zero_s):.2f} s" if at is not None else ""
        raise MediaError(f"{uri}: is cut short or damaged{where}: a packet is incomplete; export or record it again")
    walk.warnings.append(f"{uri}: is cut short: its last {len(rows) - whole} frames are incomplete and left out")
    return rows[:whole]


def _note_missing(uri: str, walk: _Walk, container: InputContainer, stream: VideoStream, end_s: Fraction) -> None:
    """Warn where the header says that there is more than there is."""
    name = container.format.name
    if name not in SAYS_ITS_LENGTH or not container.duration:
        return
    said_s, found_s = Fraction(container.duration, 1_000_000), end_s - walk.zero_s
    if name == "avi" or walk.told_by != "pts":
        found_s = Fraction(len(walk.ticks)) / walk.rate
        said_s = stream.frames / walk.rate
    least_s = max(2 / walk.rate, Fraction(MISSING_S.get(name, LEAST_MISSING_S)))
    if said_s - found_s > least_s:
        walk.warnings.append(
            f"{uri}: is cut short: it says that it lasts {float(said_s):.2f} s; the last "
            f"{float(said_s - found_s):.2f} s of it are missing"
        )


@dataclass(frozen=True)
class _Times:
    """When frames are shown."""

    pts: NDArray[np.int64]
    """(T,) ascending."""
    end_pts: int
    ticks: NDArray[np.int64]
    """(T,) the times by which the frames are told apart."""


def _packet_times(uri: str, walk: _Walk) -> _Times:
    return _ordered(uri, walk, np.array(walk.ticks, np.int64), np.array(walk.durations, np.int64))


def _decoded_times(uri: str, walk: _Walk) -> tuple[VideoFrame, _Times]:
    """The first frame, and the times of all, by decoding them all.

    Raises MediaError that names the time of damage; damage after the last whole frame is a warning.
    """
    first: VideoFrame | None = None
    ticks, durations, damaged = array("q"), array("q"), array("q")
    key_tick = walk.ticks[0] if walk.ticks else 0
    with _open_video(uri) as (container, stream), media_errors(uri, "can't be decoded to its end"):
        for packet in _from_key(container.demux(stream), walk.told_by, walk.skipped):
            try:
                frames = _decode(packet)
            except InvalidDataError:
                damaged.append(packet.pts if packet.pts is not None else key_tick)
                continue
            for frame in frames:
                if frame.pts is None:
                    raise MediaError(f"{uri}: its frames carry no times; put it into MP4 or Matroska")
                if walk.told_by == "pts" and frame.pts < key_tick:
                    continue
                if frame.is_corrupt:
                    damaged.append(frame.pts)
                    continue
                if walk.told_by == "pts" and ticks and (ticks[-1] - frame.pts) * walk.time_base > JUMP_BACK_S:
                    at_s = float(ticks[-1] * walk.time_base - walk.zero_s)
                    raise MediaError(
                        f"{uri}: its times go back at {at_s:.2f} s, as where two recordings are joined; "
                        "allowed: times that rise from the first frame to the last. Convert it to MP4 first"
                    )
                first = first or frame
                walk.is_interlaced = walk.is_interlaced or frame.interlaced_frame
                ticks.append(frame.pts)
                durations.append(frame.duration or 0)
    if first is None:
        what = "its video stream shows no frame" if not damaged else "frame 0 can't be decoded"
        raise MediaError(f"{uri}: {what}")
    inside = [tick for tick in damaged if key_tick <= tick < max(ticks)]
    if inside:
        at_s = float(min(inside) * walk.time_base - (walk.zero_s if walk.told_by != "count" else 0))
        raise MediaError(f"{uri}: is damaged at {at_s:.2f} s: a frame can't be decoded; export or record it again")
    if late := [tick for tick in damaged if tick >= max(ticks)]:
        walk.warnings.append(f"{uri}: is cut short: its last {len(late)} frames can't be decoded and are left out")
    return first, _ordered(uri, walk, np.array(ticks, np.int64), np.array(durations, np.int64))


def _ordered(uri: str, walk: _Walk, ticks: NDArray[np.int64], durations: NDArray[np.int64]) -> _Times:
    if not len(ticks):
        raise MediaError(f"{uri}: its video stream shows no frame")
    nominal = max(1, round(1 / walk.rate / walk.time_base))
    if walk.told_by != "pts":
        # Frames come out of the decoder in the order in which they are shown.
        pts = np.sort(ticks) if walk.told_by == "dts" else np.arange(len(ticks), dtype=np.int64)
        return _Times(pts, int(pts[-1]) + nominal, ticks)
    pts, positions = np.unique(ticks, return_index=True)
    last = int(pts[-1])
    step = int(durations[positions[-1]]) or (last - int(pts[-2]) if len(pts) > 1 else nominal)
    # An edit list may end within the last frame.
    return _Times(pts, walk.listed_end if walk.listed_end > last else last + step, pts)


def _placed(walk: _Walk, times: _Times, facts: dict[str, Any]) -> VideoInfo:
    """The facts with times of an even rate made exact, and ticks that hold where the video begins in its file."""
    pts, end_pts, time_base = _evened(walk, times)
    lead_s = max(Fraction(0), int(pts[0]) * time_base - walk.zero_s) if walk.told_by != "count" else Fraction(0)
    finer = (lead_s / time_base).denominator
    if finer > 1 and time_base.denominator * finer > MOST_TICKS:
        finer = max(1, math.ceil(FINE_TICKS / time_base.denominator))
    pts, end_pts, time_base = pts * finer, end_pts * finer, time_base / finer
    if time_base != walk.time_base:
        facts["average_rate"] = walk.rate
    if not facts["average_rate"]:
        facts["average_rate"] = len(pts) / ((end_pts - int(pts[0])) * time_base) if walk.told_by == "pts" else walk.rate
    _check_jumps(facts["uri"], pts, time_base, lead_s)
    is_moved = time_base != walk.time_base or not np.array_equal(pts, times.ticks)
    return VideoInfo(
        pts=pts,
        end_pts=end_pts,
        time_base=time_base,
        lead=round(lead_s / time_base),
        told_by=walk.told_by,
        skipped_packets=walk.skipped,
        packet_times=times.ticks if is_moved else None,
        warnings=tuple(walk.warnings),
        **facts,
    )


def _check_jumps(uri: str, pts: NDArray[np.int64], time_base: Fraction, lead_s: Fraction) -> None:
    """Raise MediaError where so much time passes without a picture that a time must be wrong."""
    steps = np.diff(pts, prepend=pts[:1])
    steps[0] = round(lead_s / time_base)
    frame = int(steps.argmax())
    longest_s = float(int(steps[frame]) * time_base)
    if longest_s > MOST_PAUSE_S:
        raise MediaError(
            f"{uri}: its times jump by {longest_s:.0f} s before frame {frame}; at most {MOST_PAUSE_S} s may pass "
            "without a picture"
        )


def _evened(walk: _Walk, times: _Times) -> tuple[NDArray[np.int64], int, Fraction]:
    """Times that a coarse container rounded from an even rate, as they were; others as they are."""
    pts, tick = times.pts, walk.time_base
    if tick < COARSE_TICK or tick.numerator != 1 or len(pts) < 3 or walk.told_by != "pts":
        return pts, times.end_pts, tick
    frames = np.arange(len(pts), dtype=np.int64)
    # A few frames fit many rates: one that is usual is the likeliest, and what the container says before others.
    for rate in (*([walk.rate] if walk.rate in USUAL_RATES else []), *USUAL_RATES, walk.rate):
        step, ticks_s = 1 / rate, Fraction(1, math.lcm(rate.numerator, tick.denominator))
        off = pts - frames * float(step / tick)
        last_step = times.end_pts - int(pts[-1])
        if ticks_s.denominator > MOST_TICKS or np.ptp(off) > 1.02 or abs(last_step - step / tick) > 1.5:
            continue
        walk.rate = rate
        if (step / tick).denominator == 1:
            break
        even = int(pts[0]) * int(tick / ticks_s) + frames * int(step / ticks_s)
        return even, int(even[-1]) + int(step / ticks_s), ticks_s
    return pts, times.end_pts, tick


def _facts(uri: str, container: InputContainer, stream: VideoStream, walk: _Walk) -> dict[str, Any]:
    """What the container says, by the names of VideoInfo's fields."""
    if stream.metadata.get("alpha_mode") == "1":
        walk.warnings.append(NO_ALPHA.format(uri))
    context = stream.codec_context
    return {
        "uri": uri,
        "sample_aspect_ratio": Fraction(stream.sample_aspect_ratio or 1),
        "average_rate": Fraction(stream.average_rate or 0),
        "has_audio": len(container.streams.audio) > 0,
        "is_still": container.format.name.endswith(PICTURES) and len(walk.ticks) == 1,
        "title": container.metadata.get("title", ""),
        "color": (context.color_primaries, context.color_trc, context.colorspace, context.color_range),
    }


def _facts_of_frame(uri: str, frame: VideoFrame, walk: _Walk, of_container: Color) -> dict[str, Any]:
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
    if any(component.is_alpha for component in components) and NO_ALPHA.format(uri) not in walk.warnings:
        walk.warnings.append(NO_ALPHA.format(uri))
    return {"width": frame.width, "height": frame.height, "rotation": _rotation(uri, frame), "color": color}


def _check_complete(uri: str, container: InputContainer, stream: VideoStream) -> None:
    if container.format.name == "avi":
        # Its index stands at the end; where that is gone, FFmpeg makes one of what there is.
        return
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if end > container.size > 0:
        raise MediaError(f"{uri}: is cut short: {container.size} bytes, of {end} at least")


def _first_frame(uri: str, walk: _Walk) -> VideoFrame:
    with _open_video(uri) as (container, stream), media_errors(uri, "frame 0 can't be decoded"):
        packets = _from_key(container.demux(stream), walk.told_by, walk.skipped)
        frame = next((frame for packet in packets for frame in _decode(packet)), None)
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
