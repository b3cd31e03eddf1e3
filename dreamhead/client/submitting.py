"""Send a new job: files as they lie on the disk, or the names of files that the service reads itself."""

import io
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp

from dreamhead.client.jobs import ClientJob
from dreamhead.client.service import Service, parsed

Report = Callable[[int], None]
"""Called with the bytes of a file that were read since the last call; less than 0 when they are read again."""


async def submit_uris(service: Service, video: str, audio: str, options: Mapping[str, Any], key: str) -> ClientJob:
    """A job of files that the service can read."""
    body = {"video_uri": video, "audio_uri": audio, **options}
    return await service.ask(ClientJob, "POST", "v1/dubs", json=body, headers={"Idempotency-Key": key})


async def submit_files(
    service: Service, video: Path, audio: Path, options: Mapping[str, Any], key: str, report: Report
) -> ClientJob:
    """A job of files of this machine, which are never held in memory; the key makes it one job however often sent."""
    sent = 0

    def count(read: int) -> None:
        nonlocal sent
        sent += read
        report(read)

    async def once() -> ClientJob:
        count(-sent)
        with ExitStack() as files:
            form = aiohttp.FormData({name: _as_text(value) for name, value in options.items()})
            for name, path in (("video", video), ("audio", audio)):
                file = files.enter_context(_CountedFile(path, count))
                # The name says which kind of picture it may be; what the file is called at home stays there.
                form.add_field(name, file, filename=name + path.suffix, content_type="application/octet-stream")
            headers = {"Idempotency-Key": key}
            # The service refuses a full queue or a wrong key before the body is on its way.
            async with service.answer("POST", "v1/dubs", data=form, headers=headers, expect100=True) as response:
                return await parsed(ClientJob, response)

    return await service.patiently(once)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class _CountedFile(io.BufferedReader):
    """A file that tells how far it is read."""

    def __init__(self, path: Path, count: Report) -> None:
        super().__init__(io.FileIO(path))
        self._count = count

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self._count(len(block))
        return block
