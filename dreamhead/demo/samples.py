"""Make the sample clip, picture, speeches and manifest from what Python packages ship."""

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dreamhead.config import OutputSettings
from dreamhead.demo.speech import speak
from dreamhead.errors import InputError
from dreamhead.media.encode import encode_chunk
from dreamhead.records import VideoInfo

SIZE = 512
"""Side of the clip and of the picture, in pixels."""
RATE = 25
CLIP_S = 6.0
PORTRAIT = "data/astronaut.png"
"""Within scikit-image: Eileen Collins by NASA, public domain, 512 x 512."""
FACE_CENTRE = (226.0, 132.0)
"""In pixels of the portrait."""
VIEW = 226.0
"""Side of what the camera sees, in pixels of the portrait: the face is 220 pixels wide in the clip."""
BAD_JOB = "missing_video"


@dataclass(frozen=True)
class Sample:
    """One row of the manifest."""

    job_id: str
    video: str
    voice: str
    text: str


SAMPLES = (
    Sample("english", "clip.mp4", "en-us", "Good evening. Tonight this film has a new voice, and the lips follow it."),
    Sample("spanish", "clip.mp4", "es", "Buenas noches. Esta película tiene otra voz, y los labios la siguen."),
    Sample("german_picture", "portrait.png", "de", "Guten Abend. Nun spricht sogar ein Bild."),
    Sample(BAD_JOB, "not_there.mp4", "en-us", "This row fails, and the others go on."),
)


def make_samples(folder: Path) -> Path:
    """Write clip, picture and speeches below `folder`; returns the manifest's path. Raises InputError."""
    folder.mkdir(parents=True, exist_ok=True)
    portrait = read_portrait()
    cv2.imwrite(str(folder / "portrait.png"), cv2.cvtColor(view(portrait, 0.0), cv2.COLOR_RGB2BGR))
    _write_clip(portrait, folder / "clip.mp4")
    for sample in SAMPLES:
        speak(sample.text, sample.voice, folder / f"{sample.job_id}.wav")
    return _write_manifest(folder)


def read_portrait() -> NDArray[np.uint8]:
    """(H, W, 3) the picture, RGB; raises InputError without scikit-image."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("scikit-image isn't installed; pip install 'dreamhead[demo]'")
    path = Path(spec.submodule_search_locations[0]) / PORTRAIT
    picture = cv2.imread(str(path))
    if picture is None:
        raise InputError(f"{path} can't be read; reinstall scikit-image")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def view(portrait: NDArray[np.uint8], time_s: float) -> NDArray[np.uint8]:
    """What the moving camera sees of the (H, W, 3) portrait: (512, 512, 3). The motion is slow and has no corners."""
    turn = 2 * math.pi * time_s
    zoom = 1 + 0.02 * (1 - math.cos(turn / 6))
    centre = (FACE_CENTRE[0] + 4 * math.sin(turn / 8), FACE_CENTRE[1] + 2 * math.sin(turn / 5))
    motion: NDArray[np.float64] = np.asarray(cv2.getRotationMatrix2D(centre, math.sin(turn / 7), SIZE / VIEW * zoom))
    motion[:, 2] += SIZE / 2 - np.array(centre)
    seen = cv2.warpAffine(portrait, motion, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, np.uint8)


def _write_clip(portrait: NDArray[np.uint8], path: Path) -> None:
    count = round(CLIP_S * RATE)
    info = VideoInfo(
        uri=str(path),
        width=SIZE,
        height=SIZE,
        rotation=0,
        sample_aspect_ratio=Fraction(1),
        average_rate=Fraction(RATE),
        time_base=Fraction(1, RATE),
        pts=np.arange(count),
        end_pts=count,
        color=(1, 1, 1, 1),
        has_audio=False,
    )
    frames: Iterator[NDArray[np.uint8]] = (view(portrait, index / RATE) for index in range(count))
    encode_chunk(path, frames, info, info.pts, info.end_pts, OutputSettings())


def _write_manifest(folder: Path) -> Path:
    rows = [
        {
            "job_id": sample.job_id,
            "video_uri": sample.video,
            "audio_uri": f"{sample.job_id}.wav",
            "output_uri": f"../{sample.job_id}.mp4",
            "language": sample.voice,
            "seed": 1,
        }
        for sample in SAMPLES
    ]
    path = folder / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
