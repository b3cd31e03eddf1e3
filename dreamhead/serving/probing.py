"""Look into uploaded files, under limits of time and memory, in a process of its own."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dreamhead.errors import InputError, MediaError
from dreamhead.media import probing

MEMORY_BYTES = 2 * 10**9
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG")
"""What the process is told of ours: no key, no secret."""


async def check_media(files: Mapping[str, Path], max_duration_s: float, timeout_s: float) -> None:
    """Raise InputError where an upload's `video` or `audio` can't be dubbed with, or takes too long to look into."""
    named = {f"opened-{name}={files[name]}": name for name in ("video", "audio")}
    output = await _probed(list(named), timeout_s)
    try:
        found = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        found = {}
    if "out_of_memory" in found:
        raise MediaError(f"the upload: the decoder wants more than {MEMORY_BYTES / 1e9:g} GB of memory for it")
    if "error" in found:
        text = f"{named[found['file']]}: {found['error']}"
        for path in files.values():
            text = text.replace(str(path), "the upload")
        raise MediaError(text)
    if "seconds" not in found:
        name = named.get(probing.begun_last(output))
        raise MediaError((f"{name}: " if name else "") + "the upload: the decoder crashed over it")
    for file, duration_s in found["seconds"].items():
        if duration_s > max_duration_s:
            raise InputError(f"{named[file]}: lasts {duration_s:.1f} s; at most {max_duration_s:g} s are allowed")


async def _probed(files: Sequence[str], timeout_s: float) -> bytes:
    """What the process says; it is gone when this ends, however it ends."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {**probing.ONE_THREAD, "PYTHONPATH": probing.python_path(), probing.MEMORY: str(MEMORY_BYTES)}
    process = await asyncio.create_subprocess_exec(
        *probing.PROBE,
        *files,
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
