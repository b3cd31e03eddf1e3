"""Learn from a video's packets, and by decoding where these don't tell, when its frames are shown."""

import math
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.errors import MediaError
from dreamhead.media.container import MP4, find_video, media_errors, open_media, packets_of, zero_s

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

ToldBy = Literal["pts", "dts", "count"]

MOST_BOXES = 100_000

NO_TIME = -(2**63)
KEY, HIDDEN, DAMAGED = 1, 2, 4


@contextmanager
def open_video(uri: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file with its moving pictures, to be decoded strictly; raises MediaError when it has none."""
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


def with_time(packet: "Packet[VideoStream]", told_by: ToldBy, number: int) -> "Packet[VideoStream]":
    """The packet with the time that tells its frame from the others: decoders hand it on as the frame's."""
    if told_by != "pts" and packet.size:
        packet.pts = packet.dts if told_by == "dts" else number
    return packet


def decode(packet: "Packet[VideoStream]") -> list[VideoFrame]:
    """The frames that a packet brings out; none for an empty packet, by which AVI and Ogg repeat a frame."""
    # PyAV takes an empty packet for the end, which is the one without any time.
    return [] if not packet.size and packet.dts is not None else packet.decode()


def from_key(
    packets: "Iterable[Packet[VideoStream]]", told_by: ToldBy, skipped: int
) -> "Iterator[Packet[VideoStream]]":
    """Packets from the first that can be decoded by itself, which `skipped` others come before."""
    number = -skipped
    for packet in packets:
        if number >= 0 or not packet.size:
            yield with_time(packet, told_by, number)
        number += bool(packet.size)


@dataclass
class Walk:
    """What the packets of a file tell, without decoding them."""

    time_base: Fraction
    zero_s: Fraction
    rate: Fraction
    """Frames per second, as the file says it or FFmpeg guesses it; the true one once times are made exact."""
    said_rate: Fraction | None
    """As the file says it."""
    told_by: ToldBy = "pts"
    skipped: int = 0
    """Video packets before the first that can be decoded by itself."""
    ticks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The times of the packets that are shown, in decoding order."""
    durations: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    dts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Decoding times of the packets that are shown."""
    has_dts: bool = False
    """Decoding times tell all packets apart."""
    has_sound: bool = False
    packets_tell: bool = False
    """Each of them is a frame."""
    listed_end: int = 0
    """Where an edit list ends, in ticks; 0 is unknown."""
    codec: str = ""
    """FFmpeg's name of the decoder."""
    is_interlaced: bool = False
    warnings: list[str] = field(default_factory=list)


def walk_packets(uri: str, container: InputContainer, stream: VideoStream) -> Walk:
    """Read every packet; raises MediaError where the file is damaged before its end."""
    _check_complete(uri, container)
    is_raw = container.format.name in RAW_STREAMS
    # FFmpeg's average of a stream without times is that of the times which it makes up.
    told = stream.guessed_rate if is_raw else stream.average_rate
    rate = Fraction(told or stream.average_rate or stream.guessed_rate or 25)
    said_rate = Fraction(told) if told else None
    walk = Walk(Fraction(stream.time_base or 1), zero_s(container), rate, said_rate, codec=stream.codec_context.name)
    packets, end_s = _read_packets(uri, container, stream)
    if not len(packets.pts):
        raise MediaError(f"{uri}: its video stream shows no frame")
    # Some streams mark no key frame at all: they are tried from their beginning.
    walk.skipped = int(packets.is_key.argmax())
    early, packets = packets.part(0, walk.skipped), packets.part(walk.skipped, None)
    _tell_apart(walk, container.format.name, packets)
    _note_early(uri, walk, early, int(packets.pts[0]))
    packets = _without_damaged_end(uri, walk, packets)
    numbers = np.arange(np.count_nonzero(~packets.is_hidden), dtype=np.int64)
    times = {"pts": packets.pts, "dts": packets.dts}
    walk.ticks = times[walk.told_by][~packets.is_hidden] if walk.told_by in times else numbers
    walk.durations, walk.dts = packets.durations[~packets.is_hidden], packets.dts[~packets.is_hidden]
    walk.has_sound = len(container.streams.audio) > 0
    walk.packets_tell = (
        container.format.name in PACKETS_TELL
        and stream.codec_context.name not in HIDES_FRAMES
        and walk.told_by == "pts"
        and bool((packets.pts >= packets.pts[0]).all())
    )
    if container.format.name == MP4 and stream.start_time is not None and stream.duration is not None:
        walk.listed_end = stream.start_time + stream.duration
    _note_missing(uri, walk, container, stream, end_s)
    return walk


@dataclass(frozen=True)
class _Packets:
    """The packets of a video in decoding order, in a few bytes each: a film has half a million."""

    pts: NDArray[np.int64]
    """`NO_TIME` where there is none."""
    dts: NDArray[np.int64]
    durations: NDArray[np.int64]
    flags: NDArray[np.uint8]

    @property
    def is_key(self) -> NDArray[np.bool_]:
        return np.asarray(self.flags & KEY != 0)

    @property
    def is_hidden(self) -> NDArray[np.bool_]:
        return np.asarray(self.flags & HIDDEN != 0)

    @property
    def is_damaged(self) -> NDArray[np.bool_]:
        return np.asarray(self.flags & DAMAGED != 0)

    def part(self, start: int, stop: int | None) -> "_Packets":
        inside = slice(start, stop)
        return _Packets(self.pts[inside], self.dts[inside], self.durations[inside], self.flags[inside])


def _read_packets(uri: str, container: InputContainer, stream: VideoStream) -> tuple[_Packets, Fraction]:
    """The video's packets, and when the last packet of any stream ends, in the container's seconds."""
    columns, flags = [array("q") for _ in range(3)], array("B")
    ends: dict[int, int] = {}
    bases = {one.index: Fraction(one.time_base or 0) for one in container.streams}
    with media_errors(uri, "can't be read to its end"):
        for packet in packets_of(container, stream, *container.streams.audio, *container.streams.subtitles):
            if packet.size == 0:
                continue
            pts, duration, index = packet.pts, packet.duration or 0, packet.stream_index
            if pts is not None:
                ends[index] = max(ends.get(index, pts), pts + duration)
            if index == stream.index:
                dts = packet.dts
                columns[0].append(NO_TIME if pts is None else pts)
                columns[1].append(NO_TIME if dts is None else dts)
                columns[2].append(duration)
                flags.append(KEY * packet.is_keyframe | HIDDEN * packet.is_discard | DAMAGED * packet.is_corrupt)
    end_s = max((tick * bases[index] for index, tick in ends.items()), default=Fraction(0))
    all_pts, all_dts, durations = (np.array(column, np.int64) for column in columns)
    return _Packets(all_pts, all_dts, durations, np.array(flags, np.uint8)), end_s


def _tell_apart(walk: Walk, format_name: str, packets: _Packets) -> None:
    """Choose by what packets are told from each other."""
    walk.has_dts = bool((packets.dts != NO_TIME).all() and (np.diff(packets.dts) > 0).all())
    if format_name in RAW_STREAMS or format_name.endswith(PICTURES):
        walk.told_by = "count"
    elif format_name in ONLY_DECODING_TIMES or (packets.pts == NO_TIME).any():
        walk.told_by = "dts" if walk.has_dts else "count"
    if walk.told_by == "count":
        walk.time_base = 1 / walk.rate


def _note_early(uri: str, walk: Walk, early: _Packets, key_pts: int) -> None:
    count = len(early.pts)
    if not count:
        return
    known = early.pts[early.pts != NO_TIME]
    is_known = len(known) and key_pts != NO_TIME
    lost_s = (key_pts - int(known.min())) * walk.time_base if is_known else count / walk.rate
    walk.warnings.append(
        f"{uri}: begins in the middle of a group of pictures: {count} frames, {float(lost_s):.2f} s, come before "
        "the first key frame and can't be shown"
    )


def _without_damaged_end(uri: str, walk: Walk, packets: _Packets) -> _Packets:
    """Packets without damaged ones at the very end; raises MediaError for damage before it."""
    if not packets.is_damaged.any():
        return packets
    whole = len(packets.flags) - int((~packets.is_damaged[::-1]).argmax())
    first = int(packets.is_damaged.argmax())
    if first < whole or packets.is_damaged.all():
        at = int(packets.pts[first])
        where = f" at {float(at * walk.time_base - walk.zero_s):.2f} s" if at != NO_TIME else ""
        raise MediaError(f"{uri}: is cut short or damaged{where}: a packet is incomplete; export or record it again")
    lost = len(packets.flags) - whole
    walk.warnings.append(f"{uri}: is cut short: its last {lost} frames are incomplete and left out")
    return packets.part(0, whole)


def _note_missing(uri: str, walk: Walk, container: InputContainer, stream: VideoStream, end_s: Fraction) -> None:
    """Warn where the header says that there is more than there is."""
    name = container.format.name
    if name not in SAYS_ITS_LENGTH or not container.duration:
        return
    # Some formats count their length from 0, and some from where they begin.
    said_s, found_s = Fraction(container.duration, 1_000_000), max(end_s, end_s - walk.zero_s)
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
class Times:
    """When frames are shown."""

    pts: NDArray[np.int64]
    """(T,) ascending."""
    end_pts: int
    ticks: NDArray[np.int64]
    """(T,) the times by which the frames are told apart."""


def packet_times(uri: str, walk: Walk) -> Times:
    """By the packets alone."""
    return _ordered(uri, walk, walk.ticks, walk.durations)


def decoded_times(uri: str, walk: Walk) -> tuple[VideoFrame, Times]:
    """The first frame, and the times of all, by decoding them all.

    Raises MediaError that names the time of damage; damage after the last whole frame is a warning.
    """
    first: VideoFrame | None = None
    numbers: dict[int, int] = {}
    ticks, durations, damaged = array("q"), array("q"), set[int]()
    key_tick = int(walk.ticks[0]) if len(walk.ticks) else 0
    with open_video(uri) as (container, stream), media_errors(uri, "can't be decoded to its end"):
        for packet in from_key(packets_of(container, stream), walk.told_by, walk.skipped):
            if packet.pts is not None:
                numbers[packet.pts] = len(numbers)
            try:
                frames = decode(packet)
            except FFmpegError:
                damaged.add(packet.pts if packet.pts is not None else key_tick)
                continue
            for frame in frames:
                if frame.pts is None:
                    raise MediaError(f"{uri}: its frames carry no times; put it into MP4 or Matroska")
                if walk.told_by == "pts" and frame.pts < key_tick:
                    continue
                if frame.is_corrupt:
                    damaged.add(frame.pts)
                    continue
                if walk.told_by == "pts" and ticks and (ticks[-1] - frame.pts) * walk.time_base > JUMP_BACK_S:
                    raise MediaError(
                        f"{uri}: its times go back at {_at_s(walk, ticks[-1]):.2f} s, as where two recordings are "
                        "joined; allowed: times that rise from the first frame to the last. Convert it to MP4 first"
                    )
                first = first or frame
                walk.is_interlaced = walk.is_interlaced or frame.interlaced_frame
                ticks.append(frame.pts)
                durations.append(frame.duration or 0)
    whole = np.array([tick not in damaged for tick in ticks], bool)
    all_ticks, all_durations = np.array(ticks, np.int64)[whole], np.array(durations, np.int64)[whole]
    if first is None or not len(all_ticks):
        what = "its video stream shows no frame" if not damaged else "frame 0 can't be decoded"
        raise MediaError(f"{uri}: {what}")
    if walk.told_by == "pts" and (np.diff(all_ticks) < 0).any() and walk.has_dts:
        # Some containers give each packet its place in the file as the time at which it is shown.
        walk.told_by, walk.ticks = "dts", walk.dts
        return decoded_times(uri, walk)
    last = max(numbers.get(tick, 0) for tick in all_ticks.tolist())
    inside = [tick for tick in damaged if tick >= key_tick and numbers.get(tick, 0) < last]
    if inside:
        raise MediaError(
            f"{uri}: is damaged at {_at_s(walk, min(inside)):.2f} s: a frame can't be decoded; export or record it "
            "again"
        )
    if late := [tick for tick in damaged if tick >= key_tick]:
        walk.warnings.append(f"{uri}: is cut short: its last {len(late)} frames can't be decoded and are left out")
    return first, _ordered(uri, walk, all_ticks, all_durations)


def _at_s(walk: Walk, tick: int) -> float:
    """Seconds from the file's zero."""
    return float(tick * walk.time_base - (walk.zero_s if walk.told_by != "count" else 0))


def _ordered(uri: str, walk: Walk, ticks: NDArray[np.int64], durations: NDArray[np.int64]) -> Times:
    if not len(ticks):
        raise MediaError(f"{uri}: its video stream shows no frame")
    nominal = max(1, round(1 / walk.rate / walk.time_base))
    if walk.told_by != "pts":
        # Frames come out of the decoder in the order in which they are shown.
        pts = np.sort(ticks) if walk.told_by == "dts" else np.arange(len(ticks), dtype=np.int64)
        return Times(pts, int(pts[-1]) + nominal, ticks)
    pts, positions = np.unique(ticks, return_index=True)
    last = int(pts[-1])
    step = int(durations[positions[-1]]) or (last - int(pts[-2]) if len(pts) > 1 else nominal)
    # An edit list may end within the last frame.
    return Times(pts, walk.listed_end if walk.listed_end > last else last + step, pts)


def placed(uri: str, walk: Walk, times: Times) -> dict[str, Any]:
    """What VideoInfo's fields on times are, by their names.

    Times of an even rate are made exact, and ticks are so fine that they hold where the video begins in its file.
    Raises MediaError where a time must be wrong.
    """
    pts, end_pts, time_base = _evened(walk, times)
    # Without sound the file's zero is where its pictures begin, whatever its header says.
    is_placed = walk.has_sound and walk.told_by != "count"
    lead_s = max(Fraction(0), int(pts[0]) * time_base - walk.zero_s) if is_placed else Fraction(0)
    finer = (lead_s / time_base).denominator
    if finer > 1 and time_base.denominator * finer > MOST_TICKS:
        finer = max(1, math.ceil(FINE_TICKS / time_base.denominator))
    pts, end_pts, time_base = pts * finer, end_pts * finer, time_base / finer
    _check_jumps(uri, pts, time_base, lead_s)
    is_moved = time_base != walk.time_base or not np.array_equal(pts, times.ticks)
    is_told = walk.said_rate is not None and time_base == walk.time_base
    averaged = len(pts) / ((end_pts - int(pts[0])) * time_base) if walk.told_by == "pts" else walk.rate
    return {
        "average_rate": walk.said_rate if is_told else walk.rate if time_base != walk.time_base else averaged,
        "pts": pts,
        "end_pts": end_pts,
        "time_base": time_base,
        "lead": round(lead_s / time_base),
        "told_by": walk.told_by,
        "skipped_packets": walk.skipped,
        "packet_times": times.ticks if is_moved else None,
    }


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


def _evened(walk: Walk, times: Times) -> tuple[NDArray[np.int64], int, Fraction]:
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


def first_frame(uri: str, walk: Walk) -> VideoFrame:
    """Decode the first frame that is shown; raises MediaError."""
    with open_video(uri) as (container, stream), media_errors(uri, "frame 0 can't be decoded"):
        packets = from_key(packets_of(container, stream), walk.told_by, walk.skipped)
        frame = next((frame for packet in packets for frame in decode(packet)), None)
    if frame is None:
        raise MediaError(f"{uri}: its video stream shows no frame")
    return frame


def _check_complete(uri: str, container: InputContainer) -> None:
    if container.format.name != MP4:
        # Others have their index at the end; where that is gone, FFmpeg makes one of what there is.
        return
    end = max((entry.pos + entry.size for one in container.streams for entry in one.index_entries), default=0)
    end = max(end, _end_of_boxes(uri))
    if end > container.size > 0:
        raise MediaError(f"{uri}: is cut short: {container.size} bytes, of {end} at least")


def _end_of_boxes(uri: str) -> int:
    """Where the last of an MP4's boxes says that it ends; 0 where there is nothing to be learnt."""
    position = 0
    with storage.open_read(uri) as file:
        for _ in range(MOST_BOXES):
            file.seek(position)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            if size == 1 and len(head) == 16:
                size = int.from_bytes(head[8:], "big")
            if len(head) < 8 or size < 8:
                break
            position += size
    return position
