"""Read sound by time: mono float32 samples at any rate, or all channels as they are; gaps between packets are silence.

Time 0 is the earliest start of the file's sound and pictures.
"""

import io
import math
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from dreamhead.media.container import MP4, media_errors, open_media, packets_of, signature, zero_s
from dreamhead.media.sound_track import EXACT_TIMES, SoundTrack, as_floats, channels_of, contiguous, open_audio

PREROLL_S = 0.5
"""Decoded and dropped after a seek, until the decoder's memory is what it would have been."""

FILTER_SAMPLES = 4096
"""More source samples than the resampler looks to either side of one."""

SILENT_PEAK = 0.001
"""-60 dB of full scale: nothing louder is speech."""

CANCELLED_SHARE = 0.25
"""Energy of the channels' mean, as a share of what it is where channels have nothing in common."""

MISSING_S = 0.1
"""A file that says that it lasts longer than this beyond its last sample is cut short."""

SAYS_ITS_LENGTH = (*EXACT_TIMES, "caf", "au", "tta", "wv", "ape")
"""Formats whose header says how long the sound is."""
FILE_SAYS_ITS_LENGTH = ("matroska,webm", "avi")
"""Formats whose header says how long the longest stream is."""

MOST_RIFF_BYTES = 2**31
"""Headers that say more are those of streams."""


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
    layout: str = "mono"
    """FFmpeg's name of the channels' places; empty where there are so many without places that they can't be mixed."""
    listened_to: int = -1
    """The one channel that is listened to, where their mean would cancel; -1 is the mean of all."""
    is_whole: bool = True
    """Every packet can be decoded, so that its packets may be copied."""
    language: str = ""
    """Of the track, as the file says it."""
    warnings: tuple[str, ...] = ()
    """What a person should know of it."""


def probe_audio(uri: str) -> AudioInfo:
    """Say what a sound file, or a video file with sound, holds, by decoding all of its default track.

    Raises MediaError when the file is missing, isn't media, has no sound that can be decoded, or holds samples that
    are no numbers.
    """
    with open_audio(uri) as (container, stream):
        heard = _Heard(uri, stream)
        track = SoundTrack(uri, container, stream)
        for position, frame in track.placed():
            heard.add(position, frame)
        context = stream.codec_context
        rate, layout = context.sample_rate, _layout(context.layout.name, context.layout.nb_channels)
        end_s = Fraction(heard.end, rate)
        if container.format.name == MP4 and stream.start_time is not None and stream.duration:
            # An edit list may end within the last packet.
            listed_s = (stream.start_time + stream.duration) * Fraction(stream.time_base or 0) - track.zero_s
            end_s = min(end_s, listed_s)
        if end_s <= 0:
            raise MediaError(f"{uri}: its sound has no length")
        return AudioInfo(
            uri=uri,
            sample_rate=rate,
            channels=context.layout.nb_channels,
            codec=context.name,
            duration_s=float(end_s),
            layout=layout,
            listened_to=heard.listened_to(),
            is_whole=not track.undecodable_s,
            language=_language(stream.metadata.get("language", "")),
            warnings=(*track.warnings(), *heard.warnings(layout), *_missing(uri, container, stream, end_s)),
        )


def read_speech(
    source: str | AudioInfo, start_s: float, stop_s: float, sample_rate: int = 16_000
) -> NDArray[np.float32]:
    """Decode [start_s, stop_s) to (N,) mono samples, N = round((stop_s - start_s) * sample_rate); silence outside.

    Mono is the mean of all channels; of a file that was probed, the one channel that its facts name. A range equals
    the same range of the whole, but for the noise that AAC decoders make up. Memory follows the range, not the file.
    Raises MediaError.
    """
    uri, channel = (source, -1) if isinstance(source, str) else (source.uri, source.listened_to)
    samples = np.zeros(round((stop_s - start_s) * sample_rate), dtype=np.float32)
    start = round(start_s * sample_rate)
    for position, block in _resampled(uri, start, start + len(samples), sample_rate, channel):
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


@dataclass
class _Heard:
    """What is learnt of a track's samples while they pass."""

    uri: str
    stream: AudioStream
    end: int = 0
    """One past the last sample's number."""
    _peak: float = 0.0
    _energy: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(channels,) sums of squares."""
    _mean_energy: float = 0.0

    def add(self, position: int, frame: AudioFrame) -> None:
        """Take in one frame; raises MediaError where a sample is no number."""
        channels = self.stream.codec_context.layout.nb_channels
        values = channels_of(frame, channels)
        self.end = max(self.end, position + frame.samples)
        is_float = values.dtype.kind == "f"
        floats = as_floats(values).astype(np.float32)
        if is_float and not np.isfinite(floats).all():
            at_s = (position + int(np.argmin(np.isfinite(floats).all(axis=0)))) / frame.sample_rate
            raise MediaError(
                f"{self.uri}: the sound holds samples that are no finite numbers, the first at {at_s:.2f} s"
            )
        self._peak = max(self._peak, float(floats.max(initial=0)), -float(floats.min(initial=0)))
        if channels > 1:
            if not len(self._energy):
                self._energy = np.zeros(channels)
            self._energy += np.einsum("cn,cn->c", floats, floats)
            mean = floats.mean(axis=0)
            self._mean_energy += float(mean @ mean)

    def listened_to(self) -> int:
        """The loudest channel where the channels cancel each other, else -1."""
        alone = float(self._energy.sum()) / max(len(self._energy), 1) ** 2
        return int(self._energy.argmax()) if self._mean_energy < CANCELLED_SHARE * alone else -1

    def warnings(self, layout: str) -> Iterator[str]:
        """What a person should know of the samples."""
        if self._peak < SILENT_PEAK:
            yield f"{self.uri}: the speech is silent all through"
        elif (channel := self.listened_to()) >= 0:
            yield f"{self.uri}: the channels cancel each other; the lips follow channel {channel + 1} alone"
        if not layout:
            count = self.stream.codec_context.layout.nb_channels
            yield f"{self.uri}: {count} channels without known places; they are mixed to one"


def _bytes_missing(head: bytes, size: int) -> int:
    """Of a RIFF file, by its header; 0 where that was written before the length was known."""
    said = int.from_bytes(head[4:8], "little") + 8
    return max(0, said - size) if head[:4] == b"RIFF" and said < MOST_RIFF_BYTES and size > 0 else 0


def _missing(uri: str, container: InputContainer, stream: AudioStream, end_s: Fraction) -> Iterator[str]:
    """A warning where a file's header says that there is more than there is."""
    name = container.format.name
    if name in SAYS_ITS_LENGTH and stream.duration:
        said_s = stream.duration * Fraction(stream.time_base or 0)
        if name == "wav" and stream.codec_context.bit_rate:
            # FFmpeg believes the file's size, and not its header.
            said_s += Fraction(8 * _bytes_missing(signature(uri), container.size), stream.codec_context.bit_rate)
    elif name in FILE_SAYS_ITS_LENGTH and container.duration:
        said_s = Fraction(container.duration, 1_000_000)
        if said_s - end_s > MISSING_S:
            # It is that of the longest stream.
            end_s = max(end_s, _last_packet_s(uri))
    else:
        return
    if said_s - end_s > MISSING_S:
        yield (
            f"{uri}: is cut short: it says that it lasts {float(said_s):.2f} s; the last {float(said_s - end_s):.2f} s "
            "of it are missing"
        )


def _last_packet_s(uri: str) -> Fraction:
    """When the last packet of any stream ends."""
    end_s = Fraction(0)
    with open_media(uri) as container, media_errors(uri, "can't be read to its end"):
        zero = zero_s(container)
        for packet in packets_of(container, *container.streams.audio, *container.streams.video):
            if packet.pts is not None:
                end_s = max(end_s, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base) - zero)
    return end_s


def _language(text: str) -> str:
    return "" if text.lower() in ("und", "mis", "zxx") else text


def _layout(name: str, channels: int) -> str:
    """A layout that FFmpeg can mix: channels without places get those that are usual for as many."""
    if not name.endswith("channels"):
        return name
    usual = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
    return usual.get(channels, "")


def _resampled(uri: str, start: int, stop: int, rate: int, channel: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks that cover samples [start, stop) at `rate` where there is sound, each with its first sample's number."""
    with open_audio(uri) as (container, stream):
        source_rate = stream.codec_context.sample_rate
        # Only from a multiple of this on do the resampler's output samples lie where they lie for the whole.
        step = source_rate // math.gcd(source_rate, rate)
        first = max(0, start * source_rate // rate - FILTER_SAMPLES) // step * step
        last = max(0, -(-stop * source_rate // rate)) + FILTER_SAMPLES
        position = first * rate // source_rate
        resampler = AudioResampler(format="fltp", layout="mono", rate=rate)
        blocks = contiguous(_mono_blocks(uri, container, stream, first, channel), first, last, 1)
        for block in blocks:
            for frame in resampler.resample(_mono_frame(block[0], source_rate)):
                array: NDArray[np.float32] = frame.to_ndarray()[0]
                yield position, array
                position += len(array)


def _mono_blocks(
    uri: str, container: InputContainer, stream: AudioStream, first: int, channel: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Mono blocks (1, n) at the source's rate, each with its first sample's number; from before `first` on."""
    context = stream.codec_context
    track, time_base = SoundTrack(uri, container, stream), Fraction(stream.time_base or 0)
    seek_s = Fraction(first, context.sample_rate) + track.zero_s - Fraction(PREROLL_S)
    is_far = container.format.name in EXACT_TIMES and seek_s > (stream.start_time or 0) * time_base
    if is_far:
        container.seek(math.floor(seek_s / time_base), stream=stream)
    for position, frame in track.placed():
        values = channels_of(frame, context.layout.nb_channels)
        chosen = values if channel < 0 else values[channel : channel + 1]
        yield (
            position,
            as_floats(chosen.mean(axis=0, keepdims=True, dtype=np.float64), values.dtype).astype(np.float32),
        )


def _mono_frame(samples: NDArray[np.float32], rate: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    frame.sample_rate = rate
    return frame
