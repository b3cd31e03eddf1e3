"""Fetch a job's video: whole or not at all, going on where an earlier try was broken off."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import aiohttp

from dreamhead.client.service import LOST, BusyError, Service, ServiceError

BLOCK_BYTES = 256 * 1024

Report = Callable[[int, int], None]
"""Called with the bytes that are there, and all of them."""


async def download(service: Service, job_id: str, output: Path, report: Report) -> None:
    """Put the video of a job that succeeded at `output`; raises ServiceError, RefusedError."""
    path = f"v1/dubs/{job_id}/video"
    etag, size = await service.patiently(lambda: _look(service, path))
    # Named after the content: what a try of another job, or of another result, left is never gone on with.
    partial = output.with_name(f".{output.name}.{hashlib.sha256(etag.encode()).hexdigest()[:16]}.part")
    partial.parent.mkdir(parents=True, exist_ok=True)
    while (have := _size(partial)) < size:
        report(have, size)
        await service.patiently(lambda: _fetch(service, path, partial, etag, size, report))
    report(size, size)
    partial.replace(output)


async def _look(service: Service, path: str) -> tuple[str, int]:
    """The video's ETag and bytes, by its first one: the answer to a HEAD couldn't say why there is none."""
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    async with service.answer("GET", path, headers=headers) as response:
        _, _, size = response.headers.get("Content-Range", "").partition("/")
        return response.headers["ETag"], int(size or response.headers["Content-Length"])


async def _fetch(service: Service, path: str, partial: Path, etag: str, size: int, report: Report) -> None:
    """Add to the file what is missing, as far as the connection goes."""
    have = _size(partial)
    headers = {"Range": f"bytes={have}-", "If-Range": etag, "Accept-Encoding": "identity"}
    async with service.answer("GET", path, headers=headers) as response:
        if response.headers.get("ETag") != etag:
            raise ServiceError("the video was replaced while it was fetched: start again")
        # 206 answers the range; 200 begins again from the first byte.
        with partial.open("ab" if response.status == 206 else "wb") as file:
            reason = await _copy(response, file, size, report)
            there = file.tell()
    # Patience is for a service from which nothing new comes.
    if there < size and there <= have:
        raise BusyError(f"the download broke off after {there} of {size} bytes: {reason}", 0.0)
    if there > size:
        partial.unlink()
        raise ServiceError(f"{there} bytes came in the place of {size}: start again")


async def _copy(response: aiohttp.ClientResponse, file: BinaryIO, size: int, report: Report) -> str:
    """Write what comes, up to its end, and say which end that was."""
    try:
        async for block in response.content.iter_chunked(BLOCK_BYTES):
            await asyncio.to_thread(file.write, block)
            report(file.tell(), size)
    except LOST as error:
        return str(error) or type(error).__name__
    return "the answer ended"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
