"""Decode a packed data set's pictures once, to one file that all processes of this machine map into their memory."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dreamhead import storage
from dreamhead.disk import FULL, disk_full
from dreamhead.errors import InputError
from dreamhead.scratch import scratch_folder


class Part(BaseModel):
    """One file of pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Below the packed folder."""
    frames: int
    size: int
    """Side of each picture."""
    bytes: int
    sha256: str


def cache_folder() -> Path:
    """Where decoded pictures are kept, gigabytes of them: below TMPDIR, this user's alone."""
    return Path(tempfile.gettempdir()) / f"dreamhead-pictures-{os.getuid()}"


def open_pictures(folder_uri: str, parts: Sequence[Part]) -> dict[str, NDArray[np.uint8]]:
    """Each part's pictures (T, S, S, 3) RGB, by its name, read-only.

    The first process decodes all parts on all its cores, and others wait for it; a later one finds them decoded.

    Raises:
        InputError: a part is missing or damaged; names it.
        DiskFullError: the pictures don't fit below TMPDIR.
    """
    target = cache_folder() / f"{_digest(parts)}.raw"
    with _alone(target):
        if not target.exists():
            _write(target, folder_uri, parts)
    return _mapped(target, parts, "r")


def _digest(parts: Sequence[Part]) -> str:
    text = "\n".join(part.model_dump_json() for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(target: Path, folder_uri: str, parts: Sequence[Part]) -> None:
    temporary = target.with_suffix(f"{storage.UNFINISHED}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            # Taken from the disk now: a full one would end the process at some later write to the map.
            os.posix_fallocate(file.fileno(), 0, max(1, sum(map(_bytes, parts))))
        slices = _mapped(temporary, parts, "r+")
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(lambda part: _decode(folder_uri, part, slices[part.name]), parts))
        temporary.replace(target)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(f"{folder_uri}: can't decode the pictures", target, error.errno or 0) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _bytes(part: Part) -> int:
    return part.frames * part.size * part.size * 3


def _mapped(path: Path, parts: Sequence[Part], mode: str) -> dict[str, NDArray[np.uint8]]:
    whole = np.memmap(path, np.uint8, mode=mode)  # type: ignore[call-overload]
    ends = np.cumsum([_bytes(part) for part in parts]).tolist()
    cuts = zip(parts, [0, *ends[:-1]], ends, strict=True)
    return {
        part.name: np.asarray(whole[start:end]).reshape(part.frames, part.size, part.size, 3)
        for part, start, end in cuts
    }


def decoded(video: bytes, frames: int, size: int) -> NDArray[np.uint8]:
    """(T, S, S, 3) RGB pictures of one video."""
    pictures = np.zeros((frames, size, size, 3), np.uint8)
    with scratch_folder() as scratch:
        (scratch / "part.mp4").write_bytes(video)
        fill(pictures, scratch / "part.mp4")
    return pictures


def fill(pictures: NDArray[np.uint8], path: Path) -> int:
    """Decode a video into (T, S, S, 3) RGB; how many of its pictures have their place there."""
    return sum(_filled(pictures, number, picture) for number, picture in enumerate(_frames(path)))


def _decode(folder_uri: str, part: Part, pictures: NDArray[np.uint8]) -> None:
    uri = storage.join(folder_uri, part.name)
    with scratch_folder() as scratch:
        path = scratch / "part.mp4"
        storage.fetch(uri, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != part.sha256:
            raise InputError(f"{uri}: damaged: its SHA-256 is {digest}, expected {part.sha256}")
        count = fill(pictures, path)
    if count != part.frames:
        raise InputError(f"{uri}: {count} pictures of side {part.size} could be decoded, expected {part.frames}")


def _filled(pictures: NDArray[np.uint8], number: int, picture: NDArray[np.uint8]) -> bool:
    if number >= len(pictures) or picture.shape != pictures.shape[1:]:
        return False
    cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=pictures[number])
    return True


def _frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    # A part is decoded by one thread: there are as many parts at a time as cores.
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        while True:
            is_there, picture = video.read()
            if not is_there:
                return
            yield np.asarray(picture, np.uint8)
    finally:
        video.release()
