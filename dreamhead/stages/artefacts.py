"""Read and write the files of the work directory: arrays as .npz, facts as .json, each whole or not at all."""

import dataclasses
import io
import json
import zipfile
from fractions import Fraction
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.errors import StorageError
from dreamhead.faces.reference import patch
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
    "reference_crop_transforms",
    "reference_boxes",
    "overlay_spans",
    "overlay_pixels",
)
REFERENCE_FILES = ("reference_files", "reference_file_sizes")
"""The references' own pixels as PNG, one after the other, and how long each one is: a third of what they take raw."""
SHOT_NUMBERS = ("articulation", "pixel_aspect")

INFO_ARRAYS = ("pts", "packet_times")
"""Of a video's facts; the rest is plain values."""

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
    save_arrays(uri, **shot_arrays(shot))


def load_shot(uri: str) -> ShotAnalysis:
    """Read what `save_shot` wrote."""
    files, sizes, bounds, *found = load_arrays(uri, *REFERENCE_FILES, "bounds", *SHOT_ARRAYS, *SHOT_NUMBERS)
    named: dict[str, Any] = dict(zip((*SHOT_ARRAYS, *SHOT_NUMBERS), found, strict=True))
    named |= {name: float(named[name]) for name in SHOT_NUMBERS}
    named["reference_pixels"] = _decoded(uri, files, sizes)
    return ShotAnalysis(start=int(bounds[0]), stop=int(bounds[1]), **named)


def shot_arrays(shot: ShotAnalysis) -> dict[str, NDArray[Any]]:
    """What `save_shot` publishes, by name."""
    bounds = {"bounds": np.array([shot.start, shot.stop], dtype=np.int64)}
    named = {name: np.asarray(getattr(shot, name)) for name in (*SHOT_NUMBERS, *SHOT_ARRAYS)}
    files = [_encoded(patch(shot, number).pixels) for number in range(len(shot.reference_frames))]
    sizes = np.array([len(file) for file in files], np.int64)
    packed = np.concatenate([np.zeros(0, np.uint8), *files])
    return bounds | named | dict(zip(REFERENCE_FILES, (packed, sizes), strict=True))


def _encoded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N,) the (H, W, 3) picture as PNG."""
    done, file = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise StorageError(f"a reference of {pixels.shape[1]}x{pixels.shape[0]} pixels couldn't be encoded as PNG")
    return np.asarray(file, np.uint8).ravel()


def _decoded(uri: str, files: NDArray[np.uint8], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(N, 3) the pixels of all references, one's rows after the other's."""
    pictures = [np.zeros((0, 3), np.uint8)]
    for file in np.split(files, np.cumsum(sizes)[:-1]) if len(sizes) else []:
        picture = cv2.imdecode(file, cv2.IMREAD_COLOR)
        if picture is None:
            raise StorageError(f"{uri}: a reference in it can't be decoded")
        pictures.append(np.asarray(picture, np.uint8).reshape(-1, 3))
    return np.concatenate(pictures)


def save_info(uri: str, info: VideoInfo | AudioInfo) -> None:
    """Publish what probing found."""
    values = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    arrays = {name: values.pop(name) for name in INFO_ARRAYS if values.get(name) is not None}
    save_arrays(uri, **arrays, facts=np.array(json.dumps(values, default=str)))


def load_video_info(uri: str) -> VideoInfo:
    """Read what `save_info` wrote of a video."""
    values = _load_info(uri)
    for name in ("time_base", "sample_aspect_ratio", "average_rate"):
        values[name] = Fraction(values[name])
    names = [name for name in INFO_ARRAYS if name not in values]
    arrays = dict(zip(names, load_arrays(uri, *names), strict=True))
    return VideoInfo(**values | arrays | {name: tuple(values[name]) for name in ("color", "warnings")})


def load_audio_info(uri: str) -> AudioInfo:
    """Read what `save_info` wrote of a sound file."""
    values = _load_info(uri)
    return AudioInfo(**values | {"warnings": tuple(values["warnings"])})


def _load_info(uri: str) -> dict[str, Any]:
    (facts,) = load_arrays(uri, "facts")
    values: dict[str, Any] = json.loads(str(facts))
    return values


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
