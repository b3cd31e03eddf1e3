"""Decode a sound track: blocks of all its channels, each with the number of its first sample; gaps are silence."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.plane import AudioPlane
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from numpy.typing import NDArray

from dreamhead.errors import MediaError
from dreamhead.media.container import MP4, media_errors, open_media, packets_of, zero_s

EXACT_TIMES = (MP4, "wav", "w64", "flac", "aiff")
"""Formats whose packets carry the exact number of their first sample, so that seeking loses none."""

COUNTED = ("mp3", "aac", "ac3", "eac3", "dts", "truehd", "mlp", "loas", "amr")
"""Formats whose packets carry no times: FFmpeg makes them up, counting what is no sound, too."""

EXACT_TOLERANCE_S, MOST_TOLERANCE_S = 0.001, 0.01
"""A packet's time may differ by so much from where the samples before it end, without a gap: times are rounded."""

LAST_TOLERANCE_S = 0.06
"""The same for the last packet, which no following one confirms."""

JOINED_S = 0.1
"""Times that go back by more than this belong to another recording, joined to the first."""

MOST_GAP_S = 3600.0

RATES = (1_000, 768_000)
"""Samples a second, fewest and most; a damaged header may say billions."""

MOST_UNDECODABLE_S = 0.5
"""A file with more sound than this that can't be decoded is refused."""

SAMPLE_TYPES = {"u8": "u1", "s16": "<i2", "s32": "<i4", "s64": "<i8", "flt": "<f4", "dbl": "<f8"}
"""NumPy's, by FFmpeg's name; what has 64 bits becomes a float, as PyAV takes no such samples."""

SILENCE_SAMPLES = 65536


@contextmanager
def open_audio(uri: str) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file with its default sound track, else its first that can be decoded.

    Raises MediaError when it has none.
    """
    with open_media(uri) as container:
        tracks = container.streams.audio
        known = [stream for stream in tracks if stream.codec_context is not None]
        stream = next((one for one in known if one.disposition & Disposition.default), next(iter(known), None))
        if stream is None:
            raise MediaError(f"{uri}: {'no decoder for its audio stream' if tracks else 'holds no audio stream'}")
        if not stream.codec_context.sample_rate or not stream.codec_context.layout.nb_channels:
            raise MediaError(f"{uri}: its sound can't be decoded: it tells neither sample rate nor channels")
        if not RATES[0] <= (rate := stream.codec_context.sample_rate) <= RATES[1]:
            raise MediaError(f"{uri}: its sample rate is {rate:,} Hz; allowed: {RATES[0]:,} to {RATES[1]:,}")
        yield container, stream


def native_blocks(uri: str, container: InputContainer, stream: AudioStream, stop_s: Fraction) -> Iterator[NDArray[Any]]:
    """All of [0, stop_s) in blocks (channels, n) of the source's own sample type and rate; gaps are silence."""
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels
    placed = (
        (position, channels_of(frame, channels)) for position, frame in SoundTrack(uri, container, stream).placed()
    )
    return contiguous(placed, 0, round(stop_s * rate), channels)


class SoundTrack:
    """One sound track from where its container stands: its frames, each with the number of its first sample."""

    def __init__(self, uri: str, container: InputContainer, stream: AudioStream) -> None:
        self._uri, self._container, self._stream = uri, container, stream
        self._rate = stream.codec_context.sample_rate
        self._time_base = Fraction(stream.time_base or 0)
        self._is_exact = container.format.name in EXACT_TIMES
        self._is_counted = container.format.name in COUNTED
        self.zero_s = zero_s(container)
        # A frame's number is pts * samples / ticks - zero / ticks.
        samples_per_tick, zero = self._time_base * self._rate, self.zero_s * self._rate
        self._ticks = samples_per_tick.denominator * zero.denominator
        self._samples = samples_per_tick.numerator * zero.denominator
        self._zero = zero.numerator * samples_per_tick.denominator
        self._rounding = round(1.5 * float(samples_per_tick))
        self.undecodable_s = 0.0
        self.is_steady = True
        """Its packets' times say where its samples are."""
        self._first_undecodable_s = self._first_gap_s = self._gaps_s = 0.0

    def placed(self) -> Iterator[tuple[int, AudioFrame]]:
        """Frames with the number of their first sample; where times jump, so do numbers. Raises MediaError."""
        position: int | None = None
        shift = 0
        for frame, following in pairwise(chain(self._frames(), [None])):
            assert frame is not None
            if position is None:
                position = self._number(frame) or 0
                self._check_gap(0, position)
            self._note_place(position, frame)
            off = self._gap(position - shift, frame, following)
            if off < -JOINED_S * self._rate:
                shift -= off
                self.is_steady = False
            elif off:
                self._note_gap(position, off)
                position += off
            yield position, frame
            position += frame.samples

    def warnings(self) -> Iterator[str]:
        """What a person should know of the track."""
        if self._gaps_s > JOINED_S:
            yield (
                f"{self._uri}: {self._gaps_s:.2f} s of the sound are missing, the first at {self._first_gap_s:.2f} s; "
                "there is silence in their place"
            )
        if self.undecodable_s:
            yield (
                f"{self._uri}: the sound can't be decoded at {self._first_undecodable_s:.2f} s, "
                f"{self.undecodable_s:.3f} s in all; it is left out"
            )

    def _frames(self) -> Iterator[AudioFrame]:
        rate, decoded_s = self._rate, 0.0
        with media_errors(self._uri, "its sound can't be decoded"):
            for packet in packets_of(self._container, self._stream):
                if not packet.size and packet.dts is not None:
                    # PyAV takes an empty packet for the end, which is the one without any time.
                    continue
                try:
                    frames: Any = packet.decode()
                except FFmpegError:
                    # What is no sound, such as a tag in the middle, FFmpeg's own players leave out, too.
                    self._note_undecodable(packet.duration or 0, decoded_s)
                    continue
                for frame in frames:
                    if frame.sample_rate != rate:
                        raise MediaError(
                            f"{self._uri}: the sample rate changes from {rate} to {frame.sample_rate} Hz "
                            f"at {decoded_s:.2f} s"
                        )
                    decoded_s += frame.samples / rate
                    if frame.samples:
                        yield frame
        if self.undecodable_s and not decoded_s:
            raise MediaError(f"{self._uri}: its sound can't be decoded")

    def _number(self, frame: AudioFrame | None) -> int | None:
        """Of a frame's first sample, by the frame's time, to the nearest; whole numbers are much faster here."""
        if frame is None or frame.pts is None:
            return None
        return (2 * (frame.pts * self._samples - self._zero) + self._ticks) // (2 * self._ticks)

    def _gap(self, expected: int, frame: AudioFrame, following: AudioFrame | None) -> int:
        """Samples by which a frame comes later than where the one before it ended."""
        number = self._number(frame)
        if number is None or self._is_counted:
            return 0
        off = number - expected
        if self._is_exact:
            return off if abs(off) > max(EXACT_TOLERANCE_S * self._rate, self._rounding) else 0
        tolerance = max(min(frame.samples / 2, MOST_TOLERANCE_S * self._rate), self._rounding)
        after = self._number(following)
        # Times may be off for a packet, as Vorbis' are by its windows; a gap moves all that follows.
        behind = abs(after - expected - frame.samples) if after is not None else abs(off)
        needed = tolerance if after is not None else max(tolerance, LAST_TOLERANCE_S * self._rate)
        return off if min(abs(off), behind) > needed else 0

    def _note_place(self, position: int, frame: AudioFrame) -> None:
        """Where times are made up, they may tell other places than the samples before them."""
        number = self._number(frame)
        if self._is_counted and number is not None and abs(number - position) > MOST_TOLERANCE_S * self._rate:
            self.is_steady = False

    def _check_gap(self, position: int, samples: int) -> None:
        if samples > MOST_GAP_S * self._rate:
            raise MediaError(
                f"{self._uri}: its times jump by {samples / self._rate:.0f} s at {position / self._rate:.2f} s; "
                f"at most {MOST_GAP_S:.0f} s are taken for a gap"
            )

    def _note_gap(self, position: int, samples: int) -> None:
        self._check_gap(position, samples)
        if not self._gaps_s:
            self._first_gap_s = position / self._rate
        self._gaps_s += max(0, samples) / self._rate

    def _note_undecodable(self, ticks: int, at_s: float) -> None:
        if not self.undecodable_s:
            self._first_undecodable_s = at_s
        self.undecodable_s += max(float(ticks * self._time_base), 1 / self._rate)
        # Where FFmpeg makes times up, what is no sound lasts, too.
        if self.undecodable_s > max(MOST_UNDECODABLE_S, at_s if self._is_counted else 0.0):
            raise MediaError(
                f"{self._uri}: its sound can't be decoded at {self._first_undecodable_s:.2f} s and after, "
                f"{self.undecodable_s:.2f} s in all; at most {MOST_UNDECODABLE_S:g} s are left out"
            )


def contiguous(
    blocks: Iterator[tuple[int, NDArray[Any]]], first: int, last: int, channels: int
) -> Iterator[NDArray[Any]]:
    """Cut blocks (channels, n) to samples [first, last), with silence where none are."""
    position = first
    dtype: np.dtype[Any] = np.dtype(np.float32)
    for start, block in blocks:
        dtype = block.dtype
        if start >= last:
            break
        yield from silence(channels, start - position, dtype)
        position = max(position, start)
        part = block[:, position - start : last - start]
        if part.size:
            yield part
            position += part.shape[1]
    yield from silence(channels, last - position, dtype)


def silence(channels: int, samples: int, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Blocks (channels, n) of a sample type, so many samples in all."""
    level = 128 if dtype == np.uint8 else 0
    for start in range(0, samples, SILENCE_SAMPLES):
        yield np.full((channels, min(SILENCE_SAMPLES, samples - start)), level, dtype=dtype)


def channels_of(frame: AudioFrame, channels: int) -> NDArray[Any]:
    """(channels, n) samples of a frame in its own type; one that has another number of channels is mixed.

    PyAV's own `planes` and `to_ndarray` read beyond the last plane where there are eight or more.
    """
    count, own = frame.samples, frame.layout.nb_channels
    dtype = np.dtype(SAMPLE_TYPES[frame.format.name.removesuffix("p")])
    if frame.format.is_planar:
        values = np.stack([_samples(frame, index, dtype, count) for index in range(own)])
    else:
        values = _samples(frame, 0, dtype, count * own).reshape(count, own).T
    if dtype.kind == "i" and dtype.itemsize == 8:
        values = values / 2.0**63
    if own != channels:
        values = np.tile(values.mean(axis=0, keepdims=True, dtype=np.float64).astype(values.dtype), (channels, 1))
    return values


def _samples(frame: AudioFrame, plane: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    buffer: Any = AudioPlane(frame, plane)
    return np.frombuffer(buffer, dtype, count)


def as_floats(values: NDArray[Any], dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Samples in [-1, 1] of values in the range of `dtype`, their own unless given."""
    kind = dtype or values.dtype
    if kind.kind == "f":
        return values
    floats = values.astype(np.float64) - (128.0 if kind == np.uint8 else 0.0)
    return floats / 2.0 ** (8 * kind.itemsize - 1)
