"""Look into uploaded files in a process of its own: a file can be made to hang a decoder, crash it, or fill memory.

`python -m dreamhead.serving.probing VIDEO AUDIO` says in JSON how many seconds each lasts, or why one can't be used.
"""

import asyncio
import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dreamhead.errors import InputError, MediaError
from dreamhead.media.container import find_video, open_media

PROBE = (sys.executable, "-m", "dreamhead.serving.probing")
MEMORY_BYTES = 2 * 10**9
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG")
"""What the process is told of ours: no key, no secret."""


async def check_media(files: Mapping[str, Path], max_duration_s: float, timeout_s: float) -> None:
    """Raise InputError where an upload's `video` or `audio` can't be dubbed with, or takes too long to look into."""
    output = await _probed([str(files[name]) for name in ("video", "audio")], timeout_s)
    try:
        found = json.loads(output)
    except ValueError as error:
        raise MediaError("the upload: the decoder crashed over it") from error
    if "error" in found:
        text = str(found["error"])
        for path in files.values():
            text = text.replace(str(path), "the upload")
        raise MediaError(text)
    for name, duration_s in found["seconds"].items():
        if duration_s > max_duration_s:
            raise InputError(f"{name}: lasts {duration_s:.1f} s; at most {max_duration_s:g} s are allowed")


async def _probed(paths: Sequence[str], timeout_s: float) -> bytes:
    """What the process says; it is gone when this ends, however it ends."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    process = await asyncio.create_subprocess_exec(
        *PROBE,
        *paths,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except asyncio.TimeoutError as error:
        raise MediaError(f"the upload: the decoder isn't done with it after {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output


def main(video: str, audio: str) -> None:
    """Look into both files, under limits that hold for this process only."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found: dict[str, object] = {"seconds": {"video": _seconds("video", video), "audio": _seconds("audio", audio)}}
    except MediaError as error:
        found = {"error": str(error)}
    except MemoryError:
        found = {"error": f"the upload: the decoder wants more than {MEMORY_BYTES / 1e9:g} GB of memory for it"}
    sys.stdout.write(json.dumps(found))


def _seconds(name: str, path: str) -> float:
    try:
        with open_media(path) as container:
            if name == "video" and find_video(container) is None:
                raise MediaError(f"{path}: holds no picture")
            if name == "audio" and not container.streams.audio:
                raise MediaError(f"{path}: holds no sound")
            return (container.duration or 0) / 1e6
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error


if __name__ == "__main__":
    main(*sys.argv[1:])
