"""A job's video while it is rendered."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, StreamingResponse

from dreamhead.serving.live import LiveVideo
from dreamhead.serving.problems import ProblemError
from dreamhead.serving.reading import UNKNOWN, TheJob
from dreamhead.serving.schemas import ProblemView
from dreamhead.serving.service import Owner, TheService

STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/mp4": {}}, "description": "Fragmented MP4, as chunks are finished."},
    307: {"description": "The job has succeeded: the whole video is there."},
    409: {"model": ProblemView, "description": "Nothing to stream: the job hasn't begun, or has failed."},
    429: {"model": ProblemView, "description": "Too many streams; try again after `Retry-After` seconds."},
}

router = APIRouter()


@router.get("/v1/dubs/{job_id}/stream", response_class=Response, responses=UNKNOWN | STREAM)
async def stream_video(record: TheJob, request: Request, service: TheService, owner: Owner) -> Response:
    """The video from its beginning, while the rest of it is still rendered.

    It ends when the video does, and breaks off when the job fails or is cancelled. The file that `/video` gives later
    is another one, with the same frames.
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

    async def blocks() -> AsyncIterator[bytes]:
        async with service.streams:
            async for block in video.blocks(request.is_disconnected):
                yield block

    return StreamingResponse(blocks(), media_type="video/mp4", headers={"Cache-Control": "no-store"})
