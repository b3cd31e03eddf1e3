"""Add the speech to an output file: its own packets where the container takes them, else encoded once, whole."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from numpy.typing import NDArray

from dreamhead.config import OutputSettings
from dreamhead.errors import MediaError
from dreamhead.media.audio import decode_audio, open_audio, origin_s, probe_audio
from dreamhead.media.container import media_errors

Packets = Iterator["Packet[Any]"]

COPIED = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac"),
    "matroska": ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "vorbis"),
}
"""Compressed sound that players expect in each container."""

HOLDS_PCM = ("mov", "matroska")

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
AAC_FALLBACK_RATE = 48000

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}

PRIMING_S = 0.1
"""Packets that end up to this long before the first picture are kept: decoders warm up on them."""

BLOCK_SAMPLES = 65536


@contextmanager
def add_speech(
    output: OutputContainer, uri: str, *, video_s: float, end_s: float | None, frame_s: float, settings: OutputSettings
) -> Iterator[Packets]:
    """Add a stream for the speech and give its packets, in order, time 0 being the first picture.

    The speech is cut at `end_s` and reaches to `video_s` at least: speech that ends more than `frame_s` sooner is
    followed by silence, for which compressed speech must be encoded anew. Raises MediaError.
    """
    info = probe_audio(uri)
    stop_s = min(info.duration_s, end_s if end_s is not None else info.duration_s)
    with open_audio(uri) as (container, stream):
        codec = stream.codec_context.codec.canonical_name
        if codec in COPIED[output.format.name] and stop_s > video_s - frame_s:
            copy = output.add_stream_from_template(stream)
            yield _copied(uri, container, stream, copy, Fraction(stop_s))
            return
        is_kept = codec.startswith("pcm_") and output.format.name in HOLDS_PCM
        encoder = _add_encoder(output, codec if is_kept else "aac", stream.codec_context, settings)
        yield _encoded(uri, container, stream, encoder, max(stop_s, video_s))


def _copied(uri: str, container: InputContainer, stream: AudioStream, copy: AudioStream, stop_s: Fraction) -> Packets:
    time_base = Fraction(stream.time_base or 0)
    origin, stop = round(origin_s(uri) / time_base), round(stop_s / time_base)
    with media_errors(uri, "can't be read to its end"):
        for packet in container.demux(stream):
            if packet.size == 0 or packet.pts is None:
                continue
            packet.pts -= origin
            packet.dts = packet.pts
            duration = packet.duration or 0
            if packet.pts >= stop:
                return
            if packet.pts + duration > -PRIMING_S / time_base:
                packet.duration = min(duration, stop - packet.pts)
                packet.stream = copy
                yield packet


def _add_encoder(
    output: OutputContainer, codec: str, source: AudioCodecContext, settings: OutputSettings
) -> AudioStream:
    rate = source.sample_rate
    if codec == "aac" and rate not in AAC_RATES:
        rate = AAC_FALLBACK_RATE
    if source.layout.nb_channels not in LAYOUTS:
        raise MediaError(f"speech with {source.layout.nb_channels} channels can't be encoded; allowed: {[*LAYOUTS]}")
    stream = output.add_stream(codec, rate=rate)
    context = stream.codec_context
    assert isinstance(context, AudioCodecContext)
    context.layout = LAYOUTS[source.layout.nb_channels]
    context.time_base = Fraction(1, rate)
    if codec == "aac":
        context.bit_rate = settings.audio_bitrate
    try:
        context.open()
    except FFmpegError as error:
        raise MediaError(f"encoder {codec} can't be opened for {rate} Hz, {context.layout.name}: {error}") from error
    assert isinstance(stream, AudioStream)
    return stream


def _encoded(uri: str, container: InputContainer, stream: AudioStream, encoder: AudioStream, stop_s: float) -> Packets:
    context = encoder.codec_context
    rate, channels = context.sample_rate, context.layout.nb_channels
    is_planar = context.format.is_planar
    blocks = _from_zero(_converted(uri, container, stream, context), channels, round(stop_s * rate))
    position = 0
    for block in _rechunked(blocks, context.frame_size or BLOCK_SAMPLES):
        values = block if is_planar else block.T.reshape(1, -1)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(values), context.format.name, context.layout.name)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), position
        position += block.shape[1]
        yield from encoder.encode(frame)
    yield from encoder.encode(None)


def _converted(
    uri: str, container: InputContainer, stream: AudioStream, context: AudioCodecContext
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Blocks (channels, n) in the encoder's sample type and rate, each with its first sample's number."""
    origin, rate = origin_s(uri), context.sample_rate
    resampler = AudioResampler(format=context.format.planar, layout=context.layout, rate=rate)
    position: int | None = None
    for frame in itertools.chain(decode_audio(uri, container, stream), [None]):
        if frame is not None and position is None:
            position = round((Fraction(frame.pts or 0) * Fraction(frame.time_base or 0) - origin) * rate)
        for converted in resampler.resample(frame):
            if converted is not None:
                block = converted.to_ndarray()
                yield position or 0, block
                position = (position or 0) + block.shape[1]


def _from_zero(
    blocks: Iterator[tuple[int, NDArray[np.generic]]], channels: int, stop: int
) -> Iterator[NDArray[np.generic]]:
    """Cut blocks (channels, n) to samples [0, stop), with silence where none are."""
    position = 0
    dtype: np.dtype[np.generic] = np.dtype(np.float32)
    for start, block in blocks:
        dtype = block.dtype
        yield from _silence(channels, min(start, stop) - position, dtype)
        position = max(position, start)
        if position >= stop:
            return
        part = block[:, position - start : stop - start]
        if part.size:
            yield part
            position += part.shape[1]
    yield from _silence(channels, stop - position, dtype)


def _silence(channels: int, samples: int, dtype: np.dtype[np.generic]) -> Iterator[NDArray[np.generic]]:
    level = 128 if dtype == np.uint8 else 0
    for start in range(0, samples, BLOCK_SAMPLES):
        yield np.full((channels, min(BLOCK_SAMPLES, samples - start)), level, dtype=dtype)


def _rechunked(blocks: Iterator[NDArray[np.generic]], size: int) -> Iterator[NDArray[np.generic]]:
    """The same samples in blocks (channels, size), the last one shorter."""
    waiting: list[NDArray[np.generic]] = []
    for block in blocks:
        waiting.append(block)
        if sum(part.shape[1] for part in waiting) >= size:
            joined = np.concatenate(waiting, axis=1)
            whole = joined.shape[1] // size * size
            yield from np.split(joined[:, :whole], whole // size, axis=1)
            waiting = [joined[:, whole:]]
    rest = np.concatenate(waiting, axis=1) if waiting else np.zeros((0, 0))
    if rest.size:
        yield rest
