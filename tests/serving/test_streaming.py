"""A job's video while it is rendered: what came so far plays, and the whole has the result's frames."""

import asyncio
import http.client
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray

from dreamhead.serving.api import build_api
from dreamhead.serving.dubber import Dubber
from dreamhead.serving.engine import Engine
from dreamhead.serving.jobs import JobStore, Limits
from dreamhead.serving.leases import Worker
from dreamhead.serving.service import Service
from dreamhead.serving.uris import AllowedUris

# The fixtures' own classes; conftest modules can't be imported.
Studio = Any
LocalStages = Any

MANY = Limits(all_jobs=1000, jobs_of_one=1000)
OWNER = "everybody"
DEADLINE_S = 60
CHUNK_FRAMES = 6


class Site:
    """The service on a port of this machine, with one worker."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.port = port
        self.opened: list[http.client.HTTPConnection | http.client.HTTPResponse] = []

    async def get(self, path: str) -> http.client.HTTPResponse:
        """The answer, its body not yet read; no redirect is followed."""
        response = await asyncio.to_thread((await self.ask(path)).getresponse)
        self.opened.append(response)
        return response

    async def ask(self, path: str) -> http.client.HTTPConnection:
        """Ask, and don't wait for the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        await asyncio.to_thread(connection.request, "GET", path)
        self.opened.append(connection)
        return connection

    async def until_prepared(self, job_id: str) -> None:
        """Wait until it is known how long the output is."""
        await self.until(lambda: bool(self.service.store.read(OWNER, job_id).progress.frames))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait; a condition that never holds fails the test."""
        for _ in range(DEADLINE_S * 50):
            if condition():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"it didn't come about within {DEADLINE_S} s")


@asynccontextmanager
async def site(studio: Studio, stages: LocalStages) -> AsyncIterator[Site]:
    """API and worker on one store, in this process."""

    async def wake() -> None:
        dubber.wake()

    async def missing() -> list[str]:
        return []

    settings = studio.settings
    store = JobStore(settings.storage)
    worker = Worker(store, "one", lease_s=settings.lease_s, max_claims=settings.max_claims)
    limits = {"poll_s": settings.poll_s, "job_timeout_s": settings.job_timeout_s}
    dubber = Dubber(store, worker, Engine(settings, stages), at_once=4, **limits)
    service = Service(settings, store, AllowedUris([str(studio.folder)]), None, wake, missing)
    server = uvicorn.Server(uvicorn.Config(build_api(service), port=0, log_level="error"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    tasks = [asyncio.create_task(dubber.run()), asyncio.create_task(server.serve())]
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        here = Site(service, server.servers[0].sockets[0].getsockname()[1])
        yield here
    finally:
        for one in here.opened:
            one.close()
        tasks[0].cancel()
        server.should_exit = True
        await asyncio.wait(tasks)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run one test's coroutine."""
    asyncio.run(work())  # type: ignore[arg-type]


def submit(here: Site, studio: Studio, **values: Any) -> str:
    """Queue a dub of the clip; its id."""
    return str(here.service.store.submit(studio.new_job(owner=OWNER, **values), MANY).record.id)


def frames_of(data: bytes) -> list[NDArray[np.uint8]]:
    """What plays of a file's begin."""
    try:
        with av.open(io.BytesIO(data)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except av.InvalidDataError:
        return []


def test_what_came_plays_before_the_job_is_done_and_the_whole_is_the_result(
    studio: Studio, stages: LocalStages
) -> None:
    async def work() -> None:
        stages.allowed = asyncio.Semaphore(3)
        async with site(studio, stages) as here:
            job_id = submit(here, studio)
            await here.until(lambda: len(stages.rendered) == 3)
            await here.until_prepared(job_id)
            response = await here.get(f"/v1/dubs/{job_id}/stream")
            assert response.status == 200
            assert response.headers["content-type"] == 'video/mp4; codecs="avc1.42C00D, mp4a.40.2"'
            early = b""
            # The header, and of three chunks all but what waits for the last.
            while len(frames_of(early)) < CHUNK_FRAMES:
                early += await asyncio.to_thread(response.read1, 65536)
            assert here.service.store.read(OWNER, job_id).state == "running"
            assert len(frames_of(early)) <= 3 * CHUNK_FRAMES
            stages.allowed.release()
            whole = early + await asyncio.to_thread(response.read)
            await here.until(lambda: here.service.store.read(OWNER, job_id).is_over)
            result = here.service.store.read(OWNER, job_id).result
            assert result is not None
            streamed, published = frames_of(whole), frames_of(Path(result.output_uri).read_bytes())
            assert len(streamed) == 24
            np.testing.assert_array_equal(np.stack(streamed), np.stack(published))
            with av.open(io.BytesIO(whole)) as container:
                sound_s = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
            assert sound_s == pytest.approx(0.96, abs=0.1)
            # From now on there is a whole file.
            response = await here.get(f"/v1/dubs/{job_id}/stream")
            assert (response.status, response.headers["location"]) == (307, f"/v1/dubs/{job_id}/video")

    run(work)


def test_the_stream_of_a_job_that_fails_breaks_off(studio: Studio, stages: LocalStages) -> None:
    async def work() -> None:
        stages.allowed = asyncio.Semaphore(2)
        async with site(studio, stages) as here:
            job_id = submit(here, studio)
            await here.until(lambda: len(stages.rendered) == 2)
            await here.until_prepared(job_id)
            response = await here.get(f"/v1/dubs/{job_id}/stream")
            stages.defect = "broken"
            stages.allowed.release()
            with pytest.raises(http.client.IncompleteRead):
                await asyncio.to_thread(response.read)
            assert here.service.store.read(OWNER, job_id).state == "failed"
            response = await here.get(f"/v1/dubs/{job_id}/stream")
            assert (response.status, response.headers["retry-after"]) == (409, None)
            assert await detail_of(response) == "the job is failed: there is nothing to stream"

    run(work)


def test_a_job_that_fails_before_its_first_chunk_has_no_stream(studio: Studio, stages: LocalStages) -> None:
    async def work() -> None:
        studio.settings = studio.settings.model_copy(update={"streams_at_once": 1})
        stages.allowed = asyncio.Semaphore(0)
        async with site(studio, stages) as here:
            job_id = submit(here, studio)
            await here.until_prepared(job_id)
            asked = asyncio.create_task(here.get(f"/v1/dubs/{job_id}/stream"))
            await here.until(here.service.streams.locked)
            stages.defect = "broken"
            stages.allowed.release()
            response = await asked
            assert response.status == 409
            assert await detail_of(response) == "there is nothing to stream: failed before frame 0 of 24 was rendered"

    run(work)


async def detail_of(response: http.client.HTTPResponse) -> str:
    """What a problem says."""
    return str(json.loads(await asyncio.to_thread(response.read))["detail"])


@pytest.mark.parametrize("begins", [False, True])
def test_streams_are_counted_and_one_that_nobody_reads_ends(studio: Studio, stages: LocalStages, begins: bool) -> None:
    async def work() -> None:
        studio.settings = studio.settings.model_copy(update={"streams_at_once": 1})
        stages.allowed = asyncio.Semaphore(0)
        async with site(studio, stages) as here:
            job_id = submit(here, studio)
            await here.until_prepared(job_id)
            first = await here.ask(f"/v1/dubs/{job_id}/stream")
            await here.until(here.service.streams.locked)
            second = await here.get(f"/v1/dubs/{job_id}/stream")
            assert second.status == 429
            assert second.headers["retry-after"] == str(studio.settings.retry_after_s)
            if begins:
                stages.allowed.release()
                response = await asyncio.to_thread(first.getresponse)
                assert response.status == 200
                response.close()
            first.close()
            await here.until(lambda: not here.service.streams.locked())

    run(work)
