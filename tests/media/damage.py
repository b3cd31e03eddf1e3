"""Small valid files of every family, and damaged variants of them: the same seed gives the same bytes."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

FRAMES, RATE, SIZE = 26, 25, (96, 64)
FOURCC = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{3}")
HEADER_BYTES = 2048
"""Of most containers: enough for all that stands before the first packet of a file this small."""
LIES = (b"\x00\x00\x00\x00", b"\x00\x00\x00\x01", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\xff")
TELLS_ITS_LENGTH = (".mp4", ".mkv", ".avi", ".wav", ".jpg", ".png")
"""Kinds of file whose head says how much follows: whoever reads them can tell that the end is missing."""


def make_valid_files(folder: Path) -> list[Path]:
    """One file of each family: 26 frames of 96 x 64 and a second of sound, or one of both, or a picture."""
    drawn = [_draw(index) for index in range(FRAMES)]
    moving: Sequence[tuple[str, str, str, int]] = (
        ("h264.mp4", "libx264", "aac", 44_100),
        ("vp9.mkv", "libvpx-vp9", "libopus", 48_000),
        ("h264_mp2.ts", "libx264", "mp2", 48_000),
        ("h264_aac.ts", "libx264", "aac", 48_000),
        ("mpeg4.avi", "mpeg4", "libmp3lame", 44_100),
    )
    for name, codec, sound, rate in moving:
        _write(folder / name, drawn, codec, sound, rate)
    _write(folder / "speech.wav", [], "", "pcm_s16le", 16_000)
    for name, codec in (("picture.jpg", "mjpeg"), ("picture.png", "png")):
        _write_picture(folder / name, drawn[0], codec)
    return sorted(path for path in folder.iterdir() if path.is_file())


def damage(files: Sequence[Path], seed: int) -> tuple[Path, str, bytes]:
    """The file that a seed damages, how, and what becomes of it."""
    chance = random.Random(seed)
    path = files[seed % len(files)]
    names = list(DAMAGES)
    name = names[seed // len(files) % len(names)]
    data = bytearray(path.read_bytes())
    other = chance.choice(files).read_bytes()
    return path, name, bytes(DAMAGES[name](data, chance, other))


def _flip_bits(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    for _number in range(chance.choice((1, 4, 16, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def _flip_header_bits(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    for _number in range(chance.choice((1, 4, 16))):
        data[chance.randrange(min(HEADER_BYTES, len(data)))] ^= 1 << chance.randrange(8)
    return data


def _cut(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    return data[: chance.randrange(1, len(data))]


def _behead(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    return data[chance.randrange(1, len(data)) :]


def _zero(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    start, length = chance.randrange(len(data)), chance.choice((16, 256, 4096))
    data[start : start + length] = bytes(len(data[start : start + length]))
    return data


def _swap_fields(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    first, second = (4 * chance.randrange(min(HEADER_BYTES, len(data)) // 4) for _number in range(2))
    data[first : first + 4], data[second : second + 4] = data[second : second + 4], data[first : first + 4]
    return data


def _lie(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    """Boxes and chunks have their size beside a name of four letters; other fields are hit by chance."""
    named = [match.start() + chance.choice((-4, 4, 8, 12, 16)) for match in FOURCC.finditer(data)]
    anywhere = [chance.randrange(min(HEADER_BYTES, len(data))) for _number in range(8)]
    for _number in range(chance.choice((1, 1, 3))):
        place = max(0, min(chance.choice(named + anywhere), len(data) - 4))
        data[place : place + 4] = chance.choice(LIES)
    return data


def _lose(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    """Packets of a transport stream, blocks of the same size elsewhere."""
    start = 188 * chance.randrange(max(1, len(data) // 188))
    return data[:start] + data[start + 188 * chance.choice((1, 3, 10)) :]


def _repeat(data: bytearray, chance: random.Random, _: bytes) -> bytearray:
    start = 188 * chance.randrange(max(1, len(data) // 188))
    stop = start + 188 * chance.choice((1, 3, 30))
    return data[:stop] + data[start:]


def _join(data: bytearray, chance: random.Random, other: bytes) -> bytearray:
    return data[: chance.choice((len(data), len(data) // 2))] + other


DAMAGES: dict[str, Callable[[bytearray, random.Random, bytes], bytearray]] = {
    "bits": _flip_bits,
    "header bits": _flip_header_bits,
    "cut": _cut,
    "beheaded": _behead,
    "zeroed": _zero,
    "swapped fields": _swap_fields,
    "lie": _lie,
    "lost": _lose,
    "repeated": _repeat,
    "joined": _join,
}


def _draw(index: int) -> NDArray[np.uint8]:
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [x / width, y / height, 0.5 + 0.5 * np.sin((x + 3 * index) / 15)]
    return (np.stack(planes, axis=-1) * 200 + 25).astype(np.uint8)


def _write(path: Path, pictures: Sequence[NDArray[np.uint8]], codec: str, sound: str, sound_rate: int) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=RATE, options={"g": "12"}) if pictures else None
        speech = output.add_stream(sound, rate=sound_rate, layout="mono")
        if stream is not None:
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            stream.codec_context.thread_count = 1
        packets = [*_pictures(stream, pictures), *_sound(speech, sound_rate)]
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            output.mux(packet)


def _pictures(stream: Any, pictures: Sequence[NDArray[np.uint8]]) -> Iterator[Any]:
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, RATE)
        yield from stream.encode(frame)
    if stream is not None:
        yield from stream.encode(None)


def _sound(stream: Any, rate: int) -> Iterator[Any]:
    times = np.arange(rate) / rate
    samples = (0.5 * np.sin(2 * np.pi * (200 * times + 50 * times**2))).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    yield from stream.encode(frame)
    yield from stream.encode(None)


def _write_picture(path: Path, picture: NDArray[np.uint8], codec: str) -> None:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height = SIZE
    context.pix_fmt, context.time_base = ("yuvj420p" if codec == "mjpeg" else "rgb24"), Fraction(1, RATE)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=context.pix_fmt)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
