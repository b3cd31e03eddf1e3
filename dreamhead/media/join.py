"""Join chunks into the output file by stream copy, with the speech muxed once; check the file that came out."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dreamhead.config import OutputSettings
from dreamhead.errors import MediaError
from dreamhead.media.container import find_video, media_errors, open_media
from dreamhead.media.encode import mp4_timescales
from dreamhead.media.speech_track import Packets, Speech, add_speech
from dreamhead.media.video import probe
from dreamhead.records import FrameTimes, VideoInfo

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's muxer by the output's suffix."""

PLAIN_TAGS = ("title", "artist", "album", "comment", "copyright", "description", "genre", "date", "synopsis")
"""Metadata that MP4 has its own places for; any other key goes into QuickTime's list of named values."""

FRAGMENT_S = 0.2
FRAGMENTED = {"movflags": "+delay_moov+default_base_moof", "frag_duration": str(round(FRAGMENT_S * 1_000_000))}
"""FFmpeg's options for MP4 that plays while it is written; the header waits for the first packets, as it holds by how
much the decoder delays frames."""


class Writable(Protocol):
    """Where a stream goes."""

    def write(self, data: bytes, /) -> int:
        """Take all of it."""
        ...


def container_of(output: str) -> str:
    """FFmpeg's name of the container that the output's suffix asks for; raises MediaError for another suffix."""
    suffix = Path(output).suffix.lower()
    if suffix not in CONTAINERS:
        raise MediaError(f"{output}: no container for the suffix {suffix!r}; allowed: {[*CONTAINERS]}")
    return CONTAINERS[suffix]


def join(
    chunks: Sequence[Path | str],
    chunk_pts: Sequence[int],
    info: VideoInfo,
    times: FrameTimes,
    speech: Speech,
    output: Path,
    settings: OutputSettings,
    metadata: dict[str, str],
) -> None:
    """Write the output: the chunks' packets at `times`, and the speech.

    `chunk_pts` are the times at which the chunks start, in ticks of the source's time base; the output's zero is that
    of `times`. The speech is cut at its end (to a packet's length where it is copied), and is followed by silence
    where it is shorter than the video. Sound keeps its codec where the container takes it, else becomes AAC of the
    same rate and channels; MOV and Matroska keep PCM. Matroska rounds times to milliseconds. Raises MediaError, and
    StorageError for a chunk that can't be read.
    """
    with (
        _open_output(output, info, metadata) as container,
        media_errors(str(output), "can't be written"),
    ):
        _fill(
            container,
            zip(map(str, chunks), chunk_pts, strict=True),
            info,
            times,
            speech,
            settings,
        )


def join_as_they_come(
    chunks: Iterable[tuple[str, int]],
    info: VideoInfo,
    times: FrameTimes,
    speech: Speech,
    output: Writable,
    settings: OutputSettings,
) -> None:
    """Write the same as fragmented MP4, each chunk as `chunks` yields its uri and the time at which it starts.

    `output` is only written to, from the beginning to the end: what is written so far plays. A fragment is at most
    `FRAGMENT_S` long, so that this much of a chunk waits for the next one. Raises as `join` does.
    """
    options = {**mp4_timescales(info.time_base), **FRAGMENTED}
    with (
        media_errors("the stream", "can't be written"),
        av.open(output, "w", format="mp4", container_options=options) as container,
    ):
        _fill(container, iter(chunks), info, times, speech, settings)


def _fill(
    container: OutputContainer,
    chunks: Iterator[tuple[str, int]],
    info: VideoInfo,
    times: FrameTimes,
    speech: Speech,
    settings: OutputSettings,
) -> None:
    ticks = np.append(times.pts, times.end_pts) - times.zero
    first = next(chunks)
    starts = ((uri, int(start) - times.zero) for uri, start in chain([first], chunks))
    with open_media(first[0]) as opened:
        template = _video_of(first[0], find_video(opened))
        stream = _add_video(container, template, info)
        delay = template.codec_context.reorder_depth
        video = _video_packets(starts, info, ticks, delay, stream)
        with add_speech(
            container,
            speech,
            video_s=float(int(ticks[-1]) * info.time_base),
            frame_s=float(1 / info.average_rate),
            settings=settings,
        ) as sound:
            # The muxer holds packets back until it has seen both streams at a time, so they come in order of time.
            for packet in heapq.merge(video, sound, key=_decode_time_s):
                container.mux(packet)


def verify(path: Path, frame_count: int, size: tuple[int, int]) -> VideoInfo:
    """What a joined file holds: `frame_count` frames of `size` (width, height as coded), else MediaError is raised."""
    info = probe(str(path))
    if info.frame_count != frame_count:
        raise MediaError(f"{path}: shows {info.frame_count} frames; expected {frame_count}")
    if (info.width, info.height) != size:
        raise MediaError(f"{path}: is {info.width}x{info.height}; expected {size[0]}x{size[1]}")
    return info


@contextmanager
def _open_output(output: Path, info: VideoInfo, metadata: dict[str, str]) -> Iterator[OutputContainer]:
    kind = container_of(str(output))
    options: dict[str, str] = {}
    if kind != "matroska":
        named = "" if all(key in PLAIN_TAGS for key in metadata) else "+use_metadata_tags"
        options = {**mp4_timescales(info.time_base), "movflags": f"+faststart{named}"}
    with (
        media_errors(str(output), "can't be written"),
        av.open(str(output.absolute()), "w", format=kind, container_options=options) as container,
    ):
        container.metadata.update(metadata)
        yield container


def _add_video(container: OutputContainer, template: VideoStream, info: VideoInfo) -> VideoStream:
    # The decoder's own parameters: the encoder that made the chunks may not be on this machine.
    stream = container.add_stream_from_template(template, opaque=True)
    context = stream.codec_context
    context.framerate = info.average_rate
    if context.codec.canonical_name == "hevc" and container.format.name != "matroska":
        # With FFmpeg's own choice, hev1, Apple's players show nothing.
        context.codec_tag = "hvc1"
    stream.time_base = info.time_base
    if info.rotation:
        stream.set_display_rotation(info.rotation)
    return stream


def _video_packets(
    chunks: Iterable[tuple[str, int]],
    info: VideoInfo,
    ticks: NDArray[np.int64],
    delay: int,
    stream: VideoStream,
) -> Packets:
    """The packets of chunks, each with its start, on the output's timeline.

    `ticks` (T + 1,) are the frames' times, and the end.
    """
    frame_count = len(ticks) - 1
    decode_ticks = _decode_ticks(ticks, delay)
    is_there = np.zeros(frame_count, dtype=bool)
    position = 0
    for uri, start in chunks:
        for packet in _chunk_packets(uri, stream):
            shown = start + (packet.pts or 0) * Fraction(packet.time_base) / info.time_base
            frame = int(np.searchsorted(ticks[:-1], int(shown)))
            if frame >= frame_count or ticks[frame] != shown or is_there[frame]:
                raise MediaError(f"{uri}: a frame at tick {shown} of the output, where none is expected")
            if decode_ticks[position] > shown:
                raise MediaError(f"{uri}: frame {frame} comes later in decoding order than its encoder announced")
            is_there[frame] = True
            packet.time_base, packet.stream = info.time_base, stream
            packet.pts, packet.dts = int(shown), int(decode_ticks[position])
            position += 1
            # The muxer asks the last packet for the time to a next one, and the others for how long they are shown.
            times, place = (ticks, frame) if position < frame_count else (decode_ticks, frame_count - 1)
            packet.duration = int(times[place + 1] - times[place])
            yield packet
    if not is_there.all():
        raise MediaError(f"the chunks hold {position} frames; expected {frame_count}")


def _decode_ticks(ticks: NDArray[np.int64], delay: int) -> NDArray[np.int64]:
    """(T + 1,) ascending decoding times: the frames' own times, `delay` frames early.

    The times before the first are those of the last frames, a whole duration earlier, so that the intervals are the
    frames' own and add up to the duration, which is what MP4 stores.
    """
    frame_count, duration = len(ticks) - 1, int(ticks[-1] - ticks[0])
    positions = np.arange(-delay, frame_count + 1 - delay)
    decode_ticks: NDArray[np.int64] = ticks[positions % frame_count] + positions // frame_count * duration
    return decode_ticks


def _chunk_packets(uri: str, stream: VideoStream) -> Packets:
    with open_media(uri) as container, media_errors(uri, "can't be read to its end"):
        chunk = _video_of(uri, find_video(container))
        if _parameters(chunk.codec_context) != _parameters(stream.codec_context):
            raise MediaError(f"{uri}: was encoded with other parameters than the first chunk")
        for packet in container.demux(chunk):
            if packet.size:
                yield packet


def _parameters(context: VideoCodecContext) -> tuple[object, ...]:
    return context.codec.canonical_name, context.width, context.height, context.extradata


def _video_of(uri: str, stream: VideoStream | None) -> VideoStream:
    if stream is None:
        raise MediaError(f"{uri}: holds no video stream")
    return stream


def _decode_time_s(packet: "Packet[Any]") -> float:
    return float((packet.dts or 0) * packet.time_base)
