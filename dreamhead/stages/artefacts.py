"""Read and write the files of the work directory: arrays as .npz, facts as .json, each whole or not at all."""

import dataclasses
import io
import json
import zipfile
from fractions import Fraction
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.errors import StorageError
from dreamhead.media.audio import AudioInfo
from dreamhead.records import ShotAnalysis, VideoInfo

SHOT_ARRAYS = (
    "landmarks",
    "routes",
    "neutral",
    "crops",
    "reference_frames",
    "reference_crops",
    "reference_landmarks",
    "overlay_spans",
    "overlay_pixels",
)

# numpy reads headers by Python's own parser, and CPython 3.11 counts its depth for all threads at once: two that
# meet there end in a SystemError.
_PARSING = Lock()


def save_arrays(uri: str, **arrays: NDArray[Any]) -> None:
    """Publish arrays under their names; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy types its own flag into **kwds
    storage.write_bytes(uri, buffer.getvalue())


def load_arrays(uri: str, *names: str) -> tuple[NDArray[Any], ...]:
    """Read the named arrays of one file; raises StorageError where it isn't what `save_arrays` wrote."""
    content = storage.read_bytes(uri)
    try:
        with _PARSING, np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return tuple(archive[name] for name in names)
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError(
            f"{uri}: not the .npz file with {', '.join(names)} that was written here: {error}"
        ) from error


def save_shot(uri: str, shot: ShotAnalysis) -> None:
    """Publish one shot's analysis."""
    arrays = {name: getattr(shot, name) for name in SHOT_ARRAYS}
    bounds, articulation = np.array([shot.start, shot.stop], dtype=np.int64), np.array(shot.articulation)
    save_arrays(uri, bounds=bounds, articulation=articulation, **arrays)


def load_shot(uri: str) -> ShotAnalysis:
    """Read what `save_shot` wrote."""
    bounds, articulation, *arrays = load_arrays(uri, "bounds", "articulation", *SHOT_ARRAYS)
    named = dict(zip(SHOT_ARRAYS, arrays, strict=True))
    return ShotAnalysis(start=int(bounds[0]), stop=int(bounds[1]), articulation=float(articulation), **named)


def save_info(uri: str, info: VideoInfo | AudioInfo) -> None:
    """Publish what probing found."""
    values = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    pts = values.pop("pts", np.zeros(0, np.int64))
    save_arrays(uri, pts=pts, facts=np.array(json.dumps(values, default=str)))


def load_video_info(uri: str) -> VideoInfo:
    """Read what `save_info` wrote of a video."""
    pts, values = _load_info(uri)
    for name in ("time_base", "sample_aspect_ratio", "average_rate"):
        values[name] = Fraction(values[name])
    return VideoInfo(pts=pts, **values | {"color": tuple(values["color"])})


def load_audio_info(uri: str) -> AudioInfo:
    """Read what `save_info` wrote of a sound file."""
    return AudioInfo(**_load_info(uri)[1])


def _load_info(uri: str) -> tuple[NDArray[np.int64], dict[str, Any]]:
    pts, facts = load_arrays(uri, "pts", "facts")
    return pts, json.loads(str(facts))


def save_json(uri: str, values: dict[str, Any]) -> None:
    """Publish facts, one line, keys sorted."""
    storage.write_bytes(uri, (json.dumps(values, sort_keys=True) + "\n").encode())


def load_json(uri: str) -> dict[str, Any]:
    """Read what `save_json` wrote; raises StorageError where it isn't that."""
    try:
        values = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise StorageError(f"{uri}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise StorageError(f"{uri}: expected a JSON object, got {type(values).__name__}")
    return values
