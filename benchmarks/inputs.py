"""Make what the farm's benchmarks dub: clips of a portrait that moves, speech of any length, manifests, settings."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from dreamhead.config import OutputSettings
from dreamhead.demo.samples import RATE, read_portrait, view
from dreamhead.demo.speech import speak
from dreamhead.media.audio import probe_audio, read_speech, write_wav
from dreamhead.media.encode import encode_chunk
from dreamhead.records import VideoInfo

TEXT = "Good evening. Tonight this film has a new voice, and the lips follow it, word by word, to its very end."
SPEECH_RATE = 16_000
TURN_S = 10.0
"""The camera goes forth for so long, and back the same way, so that a long clip needs few pictures."""
CHEAP = {"codec": "libx264", "preset": "ultrafast", "encoder_threads": 1}
ONE = {"min_size": 1, "max_size": 1, "num_cpus": 0.5}


def write_clip(path: Path, seconds: float, size: int = 512, begin_s: float = 0.0) -> Path:
    """A square clip of `size` pixels; the camera's way begins at `begin_s`, so that clips differ."""
    count = round(seconds * RATE)
    info = VideoInfo(
        uri=str(path),
        width=size,
        height=size,
        rotation=0,
        sample_aspect_ratio=Fraction(1),
        average_rate=Fraction(RATE),
        time_base=Fraction(1, RATE),
        pts=np.arange(count),
        end_pts=count,
        color=(1, 1, 1, 1),
        has_audio=False,
    )
    encode_chunk(
        path, _frames(count, size, begin_s), info, info.pts, info.end_pts, OutputSettings.model_validate(CHEAP)
    )
    return path


def write_speech(path: Path, seconds: float, voice: str = "en-us") -> Path:
    """A sentence, said again and again for `seconds`."""
    speak(TEXT, voice, path)
    said = read_speech(str(path), 0.0, probe_audio(str(path)).duration_s, SPEECH_RATE)
    count = round(seconds * SPEECH_RATE)
    write_wav(path, np.tile(said, math.ceil(count / len(said)))[:count], SPEECH_RATE)
    return path


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A manifest in JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def write_settings(path: Path, **values: Any) -> Path:
    """Settings of one worker a pool and of one thread each, with what else is given, by its name."""
    pools = {name: ONE for name in ("analyse", "landmarks", "render")}
    content = {"device": "cpu", "cpu_threads": 1, "output": CHEAP, "pools": pools, **values}
    path.write_text(yaml.safe_dump(content))
    return path


def _frames(count: int, size: int, begin_s: float) -> Iterator[NDArray[np.uint8]]:
    portrait, turn = read_portrait(), round(TURN_S * RATE)
    kept: dict[int, NDArray[np.uint8]] = {}
    for index in range(count):
        place = turn - abs(turn - index % (2 * turn))
        if place not in kept:
            picture = view(portrait, begin_s + place / RATE)
            kept[place] = picture if size == len(picture) else cv2.resize(picture, (size, size), interpolation=3)
        yield kept[place]
