"""Look at jobs, follow one, fetch its video, cancel it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from dreamhead.serving.jobs import is_id
from dreamhead.serving.problems import ProblemError
from dreamhead.serving.purging import Purges
from dreamhead.serving.ranges import file_response
from dreamhead.serving.records import JobRecord, Result
from dreamhead.serving.schemas import JobPage, JobView, ProblemView
from dreamhead.serving.service import Owner, TheService

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ProblemView, "description": "There is no such job."}}
NOT_YET: dict[int | str, dict[str, Any]] = {409: {"model": ProblemView, "description": "There is no video (yet)."}}

NOT_OVER: dict[int | str, dict[str, Any]] = {409: {"model": ProblemView, "description": "The job isn't over."}}

router = APIRouter()


def job_of_request(job_id: str, service: TheService, owner: Owner) -> JobRecord:
    """The job that the path names; raises UnknownJobError."""
    return service.store.read(owner, job_id)


TheJob = Annotated[JobRecord, Depends(job_of_request)]


@router.get("/v1/dubs")
def list_jobs(
    service: TheService,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str, Query(description="`next` of the page before")] = "",
) -> JobPage:
    """Your jobs, the newest first."""
    if after and not is_id(after):
        raise ProblemError(422, "after: must be `next` of another page")
    records, following = service.store.page(owner, limit, after)
    return JobPage(jobs=[JobView.of(record) for record in records], next=following or None)


@router.get("/v1/dubs/{job_id}", responses=UNKNOWN)
def read_job(record: TheJob) -> JobView:
    """One job: its status, progress, and why it failed."""
    return JobView.of(record)


@router.delete("/v1/dubs/{job_id}", status_code=202, responses=UNKNOWN | NOT_OVER)
def cancel_job(
    record: TheJob,
    service: TheService,
    owner: Owner,
    purge: Annotated[bool, Query(description="remove a job that is over, with all its files")] = False,
) -> JobView:
    """Cancel a job: at once while it waits, within a chunk while it runs. One that is over stays, unless purged."""
    if not purge:
        return JobView.of(service.store.cancel(owner, record.id))
    if not record.is_over:
        raise ProblemError(409, f"the job is {record.state}: cancel it first")
    Purges(service.store).begin(record)
    return JobView.of(record)


@router.get("/v1/dubs/{job_id}/events", response_class=EventSourceResponse, responses=UNKNOWN)
async def follow_job(
    record: TheJob, service: TheService, owner: Owner, last_event_id: Annotated[str, Header()] = ""
) -> AsyncIterator[ServerSentEvent]:
    """The job each time it changes, as server-sent events, until it is over."""
    seen = last_event_id
    while True:
        if str(record.revision) != seen:
            seen = str(record.revision)
            yield ServerSentEvent(data=JobView.of(record), event="job", id=seen)
        if record.is_over:
            return
        await asyncio.sleep(service.settings.poll_s)
        record = await run_in_threadpool(service.store.read, owner, record.id)


@router.get("/v1/dubs/{job_id}/video", response_class=Response, responses=UNKNOWN | NOT_YET)
@router.head("/v1/dubs/{job_id}/video", include_in_schema=False)
def read_video(record: TheJob, request: Request) -> Response:
    """The dubbed video, whole or a range of it."""
    result = finished_result(record)
    return file_response(request, result.output_uri, result.bytes, result.digest, "video/mp4")


def finished_result(record: JobRecord) -> Result:
    """What the job ended with; raises ProblemError where it didn't, or not yet, end well."""
    if record.result is None:
        waits = not record.is_over
        headers = {"Retry-After": "5"} if waits else {}
        raise ProblemError(409, f"the job is {record.state}: there is no video{' yet' * waits}", headers)
    return record.result
