"""Read sound as mono float32 samples at any rate, by time; time 0 is the first sample, or the first picture if any."""

import io
import math
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.errors import MediaError
from dreamhead.media.container import MP4, find_video, media_errors, open_media

EXACT_TIMES = (MP4, "wav", "w64", "flac", "aiff")
"""Formats whose packets carry the exact number of their first sample, so that seeking loses none."""

PREROLL_S = 0.5
"""Decoded and dropped after a seek, until the decoder's memory is what it would have been."""

FILTER_SAMPLES = 4096
"""More source samples than the resampler looks to either side of one."""


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What a sound file holds."""

    uri: str
    sample_rate: int
    channels: int
    codec: str
    """FFmpeg's name of the decoder."""
    duration_s: float
    """Seconds from time 0 to the last sample's end, without an encoder's padding."""


def probe_audio(uri: str) -> AudioInfo:
    """Say what a sound file, or a video file with sound, holds.

    Raises MediaError when the file is missing, isn't media, or has no sound that can be decoded.
    """
    with open_audio(uri) as (container, stream):
        origin, first = _origin_and_first(uri, container, stream)
        is_exact = container.format.name in EXACT_TIMES
    end = _listed_end(uri) if is_exact else first + _decoded_duration(uri)
    if end <= origin:
        raise MediaError(f"{uri}: its sound has no length")
    return AudioInfo(
        uri=uri,
        sample_rate=stream.codec_context.sample_rate,
        channels=stream.codec_context.layout.nb_channels,
        codec=stream.codec_context.name,
        duration_s=float(end - origin),
    )


def read_speech(uri: str, start_s: float, stop_s: float, sample_rate: int = 16_000) -> NDArray[np.float32]:
    """Decode [start_s, stop_s) to (N,) mono samples, N = round((stop_s - start_s) * sample_rate); silence outside.

    A range equals the same range of the whole, but for the noise that AAC decoders make up. Memory follows the range,
    not the file. Raises MediaError.
    """
    samples = np.zeros(round((stop_s - start_s) * sample_rate), dtype=np.float32)
    start = round(start_s * sample_rate)
    for position, block in _resampled(uri, start, start + len(samples), sample_rate):
        first, last = max(position, start), min(position + len(block), start + len(samples))
        if first < last:
            samples[first - start : last - start] = block[first - position : last - position]
    return samples


def write_wav(path: Path, samples: NDArray[np.float32], sample_rate: int) -> None:
    """Write (N,) or (N, channels) samples in [-1, 1] as 16-bit WAV; raises StorageError where it can't be written."""
    values = np.clip(np.round(samples * 32767.0), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(values.tobytes())
    storage.write_bytes(str(path), buffer.getvalue())


@contextmanager
def open_audio(uri: str) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file with its first sound stream; raises MediaError when it has none that can be decoded."""
    with open_media(uri) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            raise MediaError(f"{uri}: holds no audio stream")
        if stream.codec_context is None:
            raise MediaError(f"{uri}: no decoder for its audio stream")
        yield container, stream


def origin_s(uri: str) -> Fraction:
    """The container's time, in seconds, that is time 0 here."""
    with open_audio(uri) as (container, stream):
        return _origin_and_first(uri, container, stream)[0]


def decode_audio(uri: str, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decode a stream from where the container stands; raises MediaError where the sound is damaged."""
    with media_errors(uri, "its sound can't be decoded"):
        for frame in container.decode(stream):
            if frame.sample_rate != stream.codec_context.sample_rate:
                raise MediaError(
                    f"{uri}: the sample rate changes from {stream.codec_context.sample_rate} to {frame.sample_rate} Hz"
                )
            yield frame


def _origin_and_first(uri: str, container: InputContainer, stream: AudioStream) -> tuple[Fraction, Fraction]:
    """The container's times of time 0 and of the first sample, in seconds."""
    frame = next(decode_audio(uri, container, stream), None)
    if frame is None:
        raise MediaError(f"{uri}: its sound has no length")
    first = Fraction(frame.pts or 0) * Fraction(frame.time_base or 0)
    video = find_video(container)
    if video is None or video.start_time is None:
        return first, first
    return video.start_time * Fraction(video.time_base or 0), first


def _listed_end(uri: str) -> Fraction:
    """The container's time, in seconds, at which its packets end; an edit list may end within the last one."""
    with open_audio(uri) as (container, stream), media_errors(uri, "can't be read to its end"):
        end = max((packet.pts or 0) + (packet.duration or 0) for packet in container.demux(stream))
        if container.format.name == MP4 and stream.start_time is not None and stream.duration:
            end = min(end, stream.start_time + stream.duration)
        return end * Fraction(stream.time_base or 0)


def _decoded_duration(uri: str) -> Fraction:
    with open_audio(uri) as (container, stream):
        samples = sum(frame.samples for frame in decode_audio(uri, container, stream))
        return Fraction(samples, stream.codec_context.sample_rate)


def _resampled(uri: str, start: int, stop: int, rate: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks that cover samples [start, stop) at `rate` where there is sound, each with its first sample's number."""
    with open_audio(uri) as (container, stream):
        source_rate = stream.codec_context.sample_rate
        # Only from a multiple of this on do the resampler's output samples lie where they lie for the whole.
        step = source_rate // math.gcd(source_rate, rate)
        first = max(0, start * source_rate // rate - FILTER_SAMPLES) // step * step
        last = max(0, -(-stop * source_rate // rate)) + FILTER_SAMPLES
        position = first * rate // source_rate
        resampler = AudioResampler(format="fltp", layout="mono", rate=rate)
        for block in _contiguous(_source_blocks(uri, container, stream, first), first, last):
            for frame in resampler.resample(_mono_frame(block, source_rate)):
                array: NDArray[np.float32] = frame.to_ndarray()[0]
                yield position, array
                position += len(array)


def _source_blocks(
    uri: str, container: InputContainer, stream: AudioStream, first: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Mono blocks (n,) at the source's rate, each with its first sample's number; from before `first` on."""
    rate = stream.codec_context.sample_rate
    origin, first_sample = _origin_and_first(uri, container, stream)
    seek_s = Fraction(first, rate) + origin - Fraction(PREROLL_S)
    is_far = container.format.name in EXACT_TIMES and seek_s > first_sample
    time_base = Fraction(stream.time_base or 0)
    container.seek(math.floor(max(seek_s, first_sample) / time_base) if is_far else 0, stream=stream)
    position: int | None = None
    for frame in decode_audio(uri, container, stream):
        if position is None:
            position = round(((frame.pts or 0) * time_base - origin) * rate)
        yield position, _mono(frame)
        position += frame.samples


def _contiguous(
    blocks: Iterator[tuple[int, NDArray[np.float32]]], first: int, last: int
) -> Iterator[NDArray[np.float32]]:
    """Cut blocks to samples [first, last), with silence where none are."""
    position = first
    for start, block in blocks:
        if start >= last:
            break
        if start > position:
            yield np.zeros(start - position, dtype=np.float32)
            position = start
        part = block[position - start : last - start]
        if len(part) and position < start + len(block):
            yield part
            position += len(part)
    if position < last:
        yield np.zeros(last - position, dtype=np.float32)


def _mono(frame: AudioFrame) -> NDArray[np.float32]:
    """(n,) the channels' mean, in [-1, 1]."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    mean: NDArray[np.float64] = values.mean(axis=0, dtype=np.float64)
    if values.dtype == np.uint8:
        mean -= 128.0
    if values.dtype.kind in "iu":
        mean /= 2.0 ** (8 * values.dtype.itemsize - 1)
    return mean.astype(np.float32)


def _mono_frame(samples: NDArray[np.float32], rate: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    frame.sample_rate = rate
    return frame
