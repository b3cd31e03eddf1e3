"""Look into media files in a process of its own: a file can be made to hang a decoder, crash it, or fill memory.

`python -m dreamhead.media.probing KIND=URI ...` says in lines of JSON what it begins with, and what it found. Kinds:

* `video`, `audio`: probed to the end, then the first frame, or second, is decoded
* `any`: both, as far as the file holds them
* `opened-video`, `opened-audio`: only opened, which takes no longer for a long file
"""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

from dreamhead.errors import DreamheadError, MediaError
from dreamhead.media.audio import probe_audio, read_speech
from dreamhead.media.container import find_video, open_media
from dreamhead.media.video import probe, read_frames

PROBE = (sys.executable, "-m", "dreamhead.media.probing")
MEMORY = "DREAMHEAD_PROBE_MEMORY_BYTES"
"""Variable with the most memory, in bytes, that the process may take; no limit without it."""
FIRST_S = 1.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Threads that nobody uses here would count as memory."""


def look_first(files: Mapping[str, tuple[str, str]]) -> None:
    """Have another process look into files; raises MediaError, which names the file, where that process dies of it.

    What else is wrong with a file is left to whoever reads it next.

    Args:
        files: kind and uri by the name that errors put before the uri, "" for none.
    """
    named = {f"{kind}={uri}": (name, uri) for name, (kind, uri) in files.items()}
    ended = subprocess.run(
        [*PROBE, *named],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": python_path()},
        check=False,
    )
    begun = begun_last(ended.stdout)
    if ended.returncode < 0 and begun in named:
        name, uri = named[begun]
        how = signal.Signals(-ended.returncode).name
        where = f"{name}: {uri}" if name else uri
        raise MediaError(f"{where}: the decoder crashed over it ({how}); re-encode the file, or give another")


def python_path() -> str:
    """What lets another process import what this one can."""
    return os.pathsep.join(filter(None, sys.path))


def begun_last(output: bytes) -> str:
    """The file, `KIND=URI`, that the process was busy with last; empty where it began none."""
    begun = ""
    for line in output.splitlines():
        # The process may have died in the middle of a line.
        with suppress(ValueError):
            begun = json.loads(line).get("begin", begun)
    return str(begun)


def main(*files: str) -> None:
    """Look into files, under limits that hold for this process only."""
    if most := os.environ.get(MEMORY):
        resource.setrlimit(resource.RLIMIT_AS, (int(most), int(most)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found: dict[str, object] = {}
    seconds: dict[str, float] = {}
    try:
        for file in files:
            kind, _, uri = file.partition("=")
            _say({"begin": file})
            seconds[file] = _seconds(kind, uri)
        found = {"seconds": seconds}
    except DreamheadError as error:
        found = {"error": str(error), "file": file}
    except MemoryError:
        found = {"out_of_memory": True, "file": file}
    _say(found)


def _say(line: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _seconds(kind: str, uri: str) -> float:
    """How long it lasts; raises DreamheadError."""
    if kind in ("video", "audio"):
        return _video_seconds(uri) if kind == "video" else _audio_seconds(uri)
    with open_media(uri) as container:
        has_picture, has_sound = find_video(container) is not None, len(container.streams.audio) > 0
        seconds = (container.duration or 0) / 1e6
    if kind == "any":
        return max(_video_seconds(uri) if has_picture else 0.0, _audio_seconds(uri) if has_sound else 0.0)
    if kind == "opened-video" and not has_picture:
        raise MediaError(f"{uri}: holds no picture")
    if kind == "opened-audio" and not has_sound:
        raise MediaError(f"{uri}: holds no sound")
    return seconds


def _video_seconds(uri: str) -> float:
    info = probe(uri)
    next(read_frames(info, range(1)))
    return info.duration_s


def _audio_seconds(uri: str) -> float:
    info = probe_audio(uri)
    read_speech(uri, 0.0, min(FIRST_S, info.duration_s))
    return info.duration_s


if __name__ == "__main__":
    main(*sys.argv[1:])
