"""A job's video while it is rendered."""

from asyncio import Semaphore
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, StreamingResponse

from dreamhead.media.mime import mp4_mime_type
from dreamhead.serving.live import LiveVideo, StreamEndedError
from dreamhead.serving.problems import ProblemError
from dreamhead.serving.reading import UNKNOWN, TheJob
from dreamhead.serving.schemas import ProblemView
from dreamhead.serving.service import Owner, TheService

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"video/mp4": {}},
        "description": "Fragmented MP4, as chunks are finished; the type's `codecs` name what it holds.",
    },
    307: {"description": "The job has succeeded: the whole video is there."},
    409: {"model": ProblemView, "description": "Nothing to stream: the job hasn't begun, or has failed."},
    429: {"model": ProblemView, "description": "Too many streams; try again after `Retry-After` seconds."},
}

router = APIRouter()


@router.get("/v1/dubs/{job_id}/stream", response_class=Response, responses=UNKNOWN | STREAM)
async def stream_video(record: TheJob, request: Request, service: TheService, owner: Owner) -> Response:
    """The video from its beginning, while the rest of it is still rendered.

    The answer begins with the first chunk. It ends when the video does, and breaks off when the job fails or is
    cancelled. The file that `/video` gives later is another one, with the same frames.
    """
    if record.result is not None:
        return RedirectResponse(f"/v1/dubs/{record.id}/video", 307)
    if record.is_over or not record.progress.frames:
        waits = not record.is_over
        headers = {"Retry-After": "1"} if waits else {}
        raise ProblemError(409, f"the job is {record.state}: there is nothing to stream{' yet' * waits}", headers)
    if service.streams.locked():
        seconds = service.settings.retry_after_s
        raise ProblemError(429, "too many streams at once", {"Retry-After": str(seconds)})
    work, _ = await run_in_threadpool(service.works.open, record.options.checkpoint)
    job = record.to_job(service.store.result_uri(record.id))
    video = LiveVideo(job, work, lambda: service.store.read(owner, record.id), service.settings.poll_s)

    blocks = _counted(video.blocks(request.is_disconnected), service.streams)
    try:
        head = await anext(blocks)
    except StreamEndedError as error:
        raise ProblemError(409, f"there is nothing to stream: {error}") from error
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(_after(head, blocks), media_type=mp4_mime_type(head), headers=headers)


async def _counted(blocks: AsyncIterator[bytes], places: Semaphore) -> AsyncIterator[bytes]:
    async with places:
        async for block in blocks:
            yield block


async def _after(head: bytes, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for block in blocks:
        yield block
