"""Add the speech to an output file: its own packets where the container takes them, else encoded once, whole."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from numpy.typing import NDArray

from dreamhead.config import OutputSettings
from dreamhead.errors import MediaError
from dreamhead.media.audio import AudioInfo
from dreamhead.media.container import media_errors, packets_of, zero_s
from dreamhead.media.sound_track import native_blocks, open_audio, silence

Packets = Iterator["Packet[Any]"]

COPIED = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac"),
    "matroska": ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "vorbis"),
}
"""Compressed sound that players expect in each container."""

FLAC_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
"""Those that a FLAC stream means by its number of channels; a file of its own may name others, MP4 has no place for."""

HOLDS_PCM = ("mov", "matroska")
PLAIN_PCM = "pcm_s16le"
"""What telephone codecs become where a container has no place for them."""

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
AAC_FALLBACK_RATE = 48000

PACKED = {"u1": "u8", "i2": "s16", "i4": "s32", "f4": "flt", "f8": "dbl"}
"""FFmpeg's sample types with all channels in one plane, by numpy's."""

QUICKTIME_TERMINOLOGICAL = ("fr", "ro", "cs", "sk")
"""Languages that QuickTime's own table has under their names of ISO 639-2/T, and the others under 639-2/B."""

PRIMING_S = 0.1
"""Packets that end up to this long before the first picture are kept: decoders warm up on them."""


class SpeechCodec(NamedTuple):
    """How speech that isn't copied is encoded."""

    name: str
    """FFmpeg's name of the encoder."""
    rate: int
    layout: str


@dataclass(frozen=True, kw_only=True)
class Speech:
    """The speech of an output, and where it goes."""

    audio: AudioInfo
    start_s: Fraction = Fraction(0)
    """The output's time at which the speech's time 0 is."""
    end_s: float | None = None
    """The output's time at which the speech is cut."""
    language: str = ""
    """A tag of BCP 47 (`de`, `pt-BR`); the file's own language unless given."""


@contextmanager
def add_speech(
    output: OutputContainer, speech: Speech, *, video_s: float, frame_s: float, settings: OutputSettings
) -> Iterator[Packets]:
    """Add a stream for the speech and give its packets, in order.

    The speech reaches to `video_s` at least: speech that ends more than `frame_s` sooner is followed by silence, for
    which compressed speech must be encoded anew. Raises MediaError.
    """
    info, kind = speech.audio, output.format.name
    stop_s = speech.start_s + Fraction(info.duration_s)
    stop_s = min(stop_s, Fraction(speech.end_s)) if speech.end_s is not None else stop_s
    with open_audio(info.uri) as (container, stream):
        if stop_s > video_s - frame_s and _is_copied(info, stream, kind):
            added = output.add_stream_from_template(stream)
            packets = _copied(info.uri, container, stream, added, kind, speech.start_s, stop_s)
        else:
            added = _add_encoder(output, speech_codec(info, kind), settings)
            blocks = native_blocks(info.uri, container, stream, stop_s - speech.start_s)
            packets = _encoded(blocks, info, added, speech.start_s, max(stop_s, Fraction(video_s)))
        _tag(added, (speech.language, info.language), kind)
        yield packets


def _is_copied(info: AudioInfo, stream: AudioStream, kind: str) -> bool:
    """Whether a container takes the speech's own packets: a header is written, and thrown away."""
    codec = stream.codec_context.codec.canonical_name
    if not info.is_whole or codec not in COPIED[kind] or (codec == "flac" and info.layout not in FLAC_LAYOUTS):
        return False
    try:
        with av.open(io.BytesIO(), "w", format=kind) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def speech_codec(info: AudioInfo, container: str) -> SpeechCodec:
    """How speech of these facts is encoded into a container: kept as it is where that works, else converted.

    Raises MediaError where nothing works.
    """
    found = _codec_that_fits(info.codec, info.sample_rate, info.layout, info.channels, container)
    if found is None:
        raise MediaError(
            f"{info.uri}: speech of {info.channels} channels at {info.sample_rate} Hz can be put into {container} "
            f"neither as {info.codec} nor as AAC; allowed: 1 to 8 channels at 8,000 to 192,000 Hz"
        )
    return found


@lru_cache(maxsize=1024)
def _codec_that_fits(codec: str, rate: int, layout: str, channels: int, container: str) -> SpeechCodec | None:
    layouts = [layout] if layout else []
    layouts += [name for name, least in (("7.1", 8), ("5.1", 6), ("stereo", 2), ("mono", 1)) if channels >= least]
    if not layout:
        layouts = ["mono"]
    kept = (codec, PLAIN_PCM) if codec.startswith("pcm_") and container in HOLDS_PCM else ()
    aac_rate = rate if rate in AAC_RATES else AAC_FALLBACK_RATE
    tries = [SpeechCodec(name, rate, one) for one in layouts for name in kept]
    tries += [SpeechCodec("aac", aac_rate, one) for one in layouts]
    return next((one for one in tries if _fits(one, container)), None)


def _fits(codec: SpeechCodec, container: str) -> bool:
    """Whether a container really takes such sound: some is encoded, and thrown away."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as output:
            stream = _add_encoder(output, codec, OutputSettings())
            silence = [np.zeros((len(av.AudioLayout(codec.layout).channels), 4096), np.float32)]
            info = AudioInfo(
                uri="", sample_rate=codec.rate, channels=len(silence[0]), codec="", duration_s=1, layout=codec.layout
            )
            for packet in _encoded(iter(silence), info, stream, Fraction(0), Fraction(4096, codec.rate)):
                output.mux(packet)
    except (FFmpegError, MediaError, ValueError):
        return False
    return True


def _tag(stream: AudioStream, languages: Sequence[str], kind: str) -> None:
    """Name the first of some languages that is a tag, as the container wants it."""
    for language in filter(None, languages):
        # Its table is there where a language is to be named, and nowhere else.
        import langcodes

        try:
            tag = langcodes.get(language)
            is_terminological = kind == "mp4" or (kind == "mov" and tag.language in QUICKTIME_TERMINOLOGICAL)
            stream.metadata["language"] = tag.to_alpha3(variant="T" if is_terminological else "B")
        except (ValueError, LookupError):
            continue
        return


def _copied(
    uri: str,
    container: InputContainer,
    stream: AudioStream,
    copy: AudioStream,
    kind: str,
    start_s: Fraction,
    stop_s: Fraction,
) -> Packets:
    time_base = Fraction(stream.time_base or 0)
    # Where nothing tells Matroska how much a decoder warms up on, it would move the pictures by as much.
    is_primed = kind != "matroska" or stream.codec_context.delay > 0
    origin, stop = round((zero_s(container) - start_s) / time_base), round(stop_s / time_base)
    with media_errors(uri, "can't be read to its end"):
        for packet in packets_of(container, stream):
            if packet.size == 0 or packet.pts is None:
                continue
            packet.pts -= origin
            packet.dts = packet.pts
            duration = packet.duration or 0
            if packet.pts >= stop:
                return
            if packet.pts + duration > -PRIMING_S / time_base if is_primed else packet.pts >= 0:
                packet.duration = min(duration, stop - packet.pts)
                packet.stream = copy
                yield packet


def _add_encoder(output: OutputContainer, codec: SpeechCodec, settings: OutputSettings) -> AudioStream:
    stream = output.add_stream(codec.name, rate=codec.rate)
    context = stream.codec_context
    assert isinstance(context, AudioCodecContext)
    context.layout = codec.layout
    context.time_base = Fraction(1, codec.rate)
    if codec.name == "aac":
        context.bit_rate = settings.audio_bitrate
    try:
        context.open()
    except FFmpegError as error:
        raise MediaError(
            f"encoder {codec.name} can't be opened for {codec.rate} Hz, {codec.layout}: {error}"
        ) from error
    assert isinstance(stream, AudioStream)
    return stream


def _encoded(
    blocks: Iterator[NDArray[Any]], info: AudioInfo, encoder: AudioStream, start_s: Fraction, stop_s: Fraction
) -> Packets:
    """Packets of blocks (channels, n) of the source's rate, which begin at `start_s`, with silence up to `stop_s`.

    PyAV's encoder converts sample type, rate and layout, and cuts to its own frames.
    """
    rate, position = info.sample_rate, 0
    for block in _padded(blocks, info, round(start_s * rate), round(stop_s * rate)):
        if block.shape[1]:
            frame = _packed_frame(block, info)
            frame.pts, position = position, position + frame.samples
            yield from encoder.encode(frame)
    yield from encoder.encode(None)


def _padded(blocks: Iterator[NDArray[Any]], info: AudioInfo, first: int, stop: int) -> Iterator[NDArray[Any]]:
    """Blocks (channels, n) of samples [0, stop): silence, the blocks from `first` on, and silence again."""
    count = 0
    dtype: np.dtype[Any] = np.dtype(np.float32)
    for block in blocks:
        if not count:
            yield from silence(info.channels, first, block.dtype)
            count = first
        dtype = block.dtype
        yield block[:, : max(0, stop - count)]
        count += block.shape[1]
    yield from silence(info.channels, stop - count, dtype)


def _packed_frame(block: NDArray[Any], info: AudioInfo) -> AudioFrame:
    """A frame with all channels in one plane: PyAV reads beyond the last one of eight or more planes."""
    if not info.layout:
        block = block.mean(axis=0, keepdims=True, dtype=np.float64).astype(block.dtype)
    values = np.ascontiguousarray(block.T.reshape(1, -1))
    frame = AudioFrame.from_ndarray(values, PACKED[block.dtype.str[1:]], info.layout or "mono")
    frame.sample_rate, frame.time_base = info.sample_rate, Fraction(1, info.sample_rate)
    return frame
