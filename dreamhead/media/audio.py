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
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.errors import MediaError
from dreamhead.media.container import MP4, find_video, media_errors, open_media, packets_of, signature, zero_s
from dreamhead.media.sound_track import EXACT_TIMES, SoundTrack, as_floats, channels_of, contiguous, open_audio

PREROLL_S = 0.5
"""Decoded and dropped after a seek, until the decoder's memory is what it would have been."""

FILTER_SAMPLES = 4096
"""More source samples than the resampler looks to either side of one."""

SILENT_PEAK = 0.001
"""-60 dB of full scale: nothing louder is speech."""

MOST_PEAK = 1000.0
"""60 dB above full scale: louder samples are no sound."""

WINDOW_S = 0.5
EMPHASIS = 0.97
"""Of the sample before, taken off each: speech stays, hum goes."""
AUDIBLE_SHARE, CENTRE_SHARE = 0.001, 0.00001
"""-30 dB of the loudest half second; -50 dB of all channels: music is much louder than speech above 2 kHz."""
LEAST_CANCELLED = 0.1
"""Share of the half seconds with sound in which channels cancel, for one of them to be listened to alone."""
CANCELLED_SHARE = 0.25
"""Energy of the channels' mean, as a share of what it is where channels have nothing in common."""

MISSING_S = 0.1
"""A file that says that it lasts longer than this beyond its last sample is cut short."""

SAYS_ITS_LENGTH = (*EXACT_TIMES, "caf", "au", "tta", "wv", "ape")
"""Formats whose header says how long the sound is."""
FILE_SAYS_ITS_LENGTH = ("matroska,webm", "avi")
"""Formats whose header says how long the longest stream is."""

MP3_HEAD_BYTES = 65_536

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
    """Every packet can be decoded, and says where its samples are, so that its packets may be copied."""
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
        context = stream.codec_context
        # Decoders change these where the sound does.
        rate, channels = context.sample_rate, context.layout.nb_channels
        heard = _Heard(uri, rate, channels, _layout(context.layout.name, channels))
        track = SoundTrack(uri, container, stream)
        for position, frame in track.placed():
            heard.add(position, frame)
        heard.flush()
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
            channels=channels,
            codec=context.name,
            duration_s=float(end_s),
            layout=heard.layout,
            listened_to=heard.listened_to(),
            is_whole=track.is_steady and not track.undecodable_s,
            language=_language(stream.metadata.get("language", "")),
            warnings=(*track.warnings(), *heard.warnings(), *_missing(uri, container, stream, end_s)),
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
    rate: int
    channels: int
    layout: str
    """Empty where the channels' places aren't known."""
    end: int = 0
    """One past the last sample's number."""
    _peak: float = 0.0
    _windows: list[tuple[NDArray[np.float64], float]] = field(default_factory=list)
    """Of each half second: (channels,) energies, and that of the channels' mean."""
    _last: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    _filled: int = 0
    _held: list[NDArray[Any]] = field(default_factory=list)
    _held_at: int = 0
    _held_end: int = 0

    def add(self, position: int, frame: AudioFrame) -> None:
        """Take in one frame; it, or `flush`, raises MediaError where a sample is no number, or too loud to be sound."""
        if self._held and (position != self._held_end or self._held_end - self._held_at > WINDOW_S * self.rate / 2):
            self.flush()
        if not self._held:
            self._held_at = position
        self._held.append(channels_of(frame, self.channels))
        self._held_end = position + frame.samples
        self.end = max(self.end, self._held_end)

    def flush(self) -> None:
        """Look at what was taken in: many short frames at once, as each look costs more than its samples."""
        if not self._held:
            return
        values, position = np.ascontiguousarray(np.concatenate(self._held, axis=1)), self._held_at
        self._held = []
        floats = as_floats(values).astype(np.float32)
        if values.dtype.kind == "f":
            self._check_floats(position, floats)
        self._peak = max(self._peak, float(floats.max(initial=0)), -float(floats.min(initial=0)))
        if self.channels > 1:
            self._compare(floats)

    def _check_floats(self, position: int, floats: NDArray[np.float32]) -> None:
        is_usable = np.isfinite(floats).all(axis=0)
        if not is_usable.all():
            at_s = (position + int(np.argmin(is_usable))) / self.rate
            raise MediaError(
                f"{self.uri}: the sound holds samples that are no finite numbers, the first at {at_s:.2f} s"
            )
        loudest = float(np.abs(floats).max(initial=0))
        if loudest > MOST_PEAK:
            at_s = (position + int(np.abs(floats).max(axis=0).argmax())) / self.rate
            raise MediaError(
                f"{self.uri}: the sound holds samples of {loudest:.3g} at {at_s:.2f} s, where 1 is full scale; "
                f"allowed: up to {MOST_PEAK:g}"
            )

    def _compare(self, floats: NDArray[np.float32]) -> None:
        """Measure how loud the channels are, and how loud their mean, above the hum of mains and rooms."""
        if not len(self._last):
            self._last = np.zeros((self.channels, 1), np.float32)
        joined = np.concatenate([self._last, floats], axis=1)
        self._last = joined[:, -1:]
        sharp = joined[:, 1:] - EMPHASIS * joined[:, :-1]
        mean = np.full(self.channels, 1 / self.channels, np.float32) @ sharp
        energies, of_mean = np.einsum("cn,cn->c", sharp, sharp).astype(np.float64), float(mean @ mean)
        if not self._windows or self._filled >= WINDOW_S * self.rate:
            self._windows.append((energies, of_mean))
            self._filled = 0
        else:
            before, mean_before = self._windows[-1]
            self._windows[-1] = (before + energies, mean_before + of_mean)
        self._filled += floats.shape[1]

    def listened_to(self) -> int:
        """The channel that speaks where the channels cancel each other, else -1."""
        if not self._windows:
            return -1
        energies = np.stack([one for one, _ in self._windows])
        means = np.array([mean for _, mean in self._windows])
        total = energies.sum(axis=1)
        is_heard = total > AUDIBLE_SHARE * total.max()
        cancels = is_heard & (means < CANCELLED_SHARE * total / self.channels**2)
        if not total.max() or cancels.sum() < LEAST_CANCELLED * is_heard.sum():
            return -1
        names = [channel.name for channel in AudioLayout(self.layout).channels] if self.layout else []
        centre = names.index("FC") if "FC" in names else -1
        # A film's speech is in its centre, whatever the music does.
        if centre >= 0 and energies[cancels, centre].sum() > CENTRE_SHARE * total[cancels].sum():
            return centre
        return int(energies[cancels].sum(axis=0).argmax())

    def warnings(self) -> Iterator[str]:
        """What a person should know of the samples."""
        if self._peak < SILENT_PEAK:
            yield f"{self.uri}: the speech is silent all through"
        elif (channel := self.listened_to()) >= 0:
            yield f"{self.uri}: the channels cancel each other; the lips follow channel {channel + 1} alone"
        if not self.layout:
            yield f"{self.uri}: {self.channels} channels without known places; they are mixed to one"


def _bytes_missing(head: bytes, size: int) -> int:
    """Of a RIFF or Wave64 file, by its header; 0 where that was written before the length was known."""
    said = int.from_bytes(head[4:8], "little") + 8 if head[:4] == b"RIFF" else 0
    if head[:4] == b"riff":
        said = int.from_bytes(head[16:24], "little")
    return max(0, said - size) if said < MOST_RIFF_BYTES and size > 0 else 0


def _missing(uri: str, container: InputContainer, stream: AudioStream, end_s: Fraction) -> Iterator[str]:
    """A warning where a file's header says that there is more than there is."""
    name = container.format.name
    if name in SAYS_ITS_LENGTH and stream.duration:
        said_s = stream.duration * Fraction(stream.time_base or 0)
        if name in ("wav", "w64") and stream.codec_context.bit_rate:
            # FFmpeg believes the file's size, and not its header.
            missing_s = Fraction(8 * _bytes_missing(signature(uri), container.size), stream.codec_context.bit_rate)
            said_s = max(said_s, end_s + missing_s)
    elif container.duration and (name in FILE_SAYS_ITS_LENGTH or (name == "mp3" and _counts_frames(uri))):
        said_s = Fraction(container.duration, 1_000_000)
        pictures = find_video(container)
        if name == "avi" and pictures is not None and pictures.average_rate:
            # FFmpeg believes what it finds of an AVI without an index; the header counts frames.
            said_s = max(said_s, pictures.frames / Fraction(pictures.average_rate))
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


def _counts_frames(uri: str) -> bool:
    """Whether an MP3 says how many frames it has; FFmpeg guesses it of others."""
    with storage.open_read(uri) as file:
        head = file.read(MP3_HEAD_BYTES)
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))


def _last_packet_s(uri: str) -> Fraction:
    """When the last packet of any stream ends."""
    end_s = Fraction(0)
    with open_media(uri) as container, media_errors(uri, "can't be read to its end"):
        zero = zero_s(container)
        for packet in packets_of(container, *container.streams.audio, *container.streams.video):
            if packet.pts is not None:
                packet_end_s = (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base)
                # Some formats count their length from 0, and some from where they begin.
                end_s = max(end_s, packet_end_s, packet_end_s - zero)
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
