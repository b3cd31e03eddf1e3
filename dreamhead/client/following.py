"""Follow a job to its end: by the service's events as long as they come, by looking from time to time otherwise."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from dreamhead.client.jobs import ClientJob
from dreamhead.client.service import LOST, Service, ServiceError

LOOK_S = 2.0
"""Seconds between two looks, and between two streams."""


async def follow(service: Service, job_id: str) -> AsyncIterator[ClientJob]:
    """The job each time it is heard of, at last when it is over; raises as a look at the job does."""
    stream = _Stream(service, job_id)
    while True:
        # A stream may end, or be held back on its way, whenever it likes: a look says what it didn't.
        job = await service.job(job_id)
        yield job
        if not job.is_over and stream.is_usable:
            async for job in stream.read():
                yield job
        if job.is_over:
            return
        await asyncio.sleep(LOOK_S)


class _Stream:
    """The events of one job, over as many connections as it takes."""

    def __init__(self, service: Service, job_id: str) -> None:
        self.is_usable = True
        """False once the service turned out to have none."""
        self._service = service
        self._path = f"v1/dubs/{job_id}/events"
        self._last_id = ""

    async def read(self) -> AsyncIterator[ClientJob]:
        """The job as often as this connection tells of it; its end, however it comes, ends this quietly."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        try:
            async with self._service.answer("GET", self._path, headers=headers) as response:
                self.is_usable = response.content_type == "text/event-stream"
                if self.is_usable:
                    async for job in self._events(response):
                        yield job
        except (*LOST, ServiceError, ValueError):
            # Broken off, refused, or no events of ours: the next look tells what it was.
            return

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncIterator[ClientJob]:
        data: list[str] = []
        event_id = ""
        async for raw in response.content:
            name, _, value = raw.decode().rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "id":
                event_id = value
            elif not name and not value and data:
                # An empty line ends an event; one that a broken connection cut short never counts.
                self._last_id = event_id
                yield ClientJob.model_validate_json("\n".join(data))
                data = []
