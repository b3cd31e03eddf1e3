"""The HTTP interface and a worker on the loopback address, in a thread of this process, without Ray."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from typing_extensions import Self

from dreamhead.serving.api import build_api
from dreamhead.serving.dubber import Dubber
from dreamhead.serving.engine import Engine, Stages
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.keys import ApiKeys
from dreamhead.serving.leases import Worker
from dreamhead.serving.service import Service
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.uris import AllowedUris

STARTED_WITHIN_S = 30
STOPPED_WITHIN_S = 60


class Site:
    """One store and one worker behind two addresses: one lets everybody in, one asks for a key."""

    def __init__(self, settings: ServingSettings, stages: Stages, keys: ApiKeys) -> None:
        self.store = JobStore(settings.storage)
        self._settings = settings
        worker = Worker(self.store, "site", lease_s=settings.lease_s, max_claims=settings.max_claims)
        engine = Engine(settings, stages)
        self._dubber = Dubber(
            self.store,
            worker,
            engine,
            at_once=settings.jobs_at_once,
            poll_s=settings.poll_s,
            job_timeout_s=settings.job_timeout_s,
        )
        self._doors = [_Door(self._app(None)), _Door(self._app(keys))]
        self.url, self.locked_url = (door.url for door in self._doors)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="site", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        end = time.monotonic() + STARTED_WITHIN_S
        while not all(door.server.started for door in self._doors):
            assert time.monotonic() < end, f"the site didn't start within {STARTED_WITHIN_S} s"
            time.sleep(0.02)
        return self

    def __exit__(self, *error: object) -> None:
        for door in self._doors:
            door.server.should_exit = True
        self._thread.join(STOPPED_WITHIN_S)
        assert not self._thread.is_alive(), f"the site didn't stop within {STOPPED_WITHIN_S} s"

    def do(self, change: Callable[[], None]) -> None:
        """Change something that belongs to the site's own thread."""
        self._loop.call_soon_threadsafe(change)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        work = self._loop.create_task(self._dubber.run())
        await asyncio.gather(*(door.server.serve([door.socket]) for door in self._doors))
        work.cancel()
        await asyncio.wait({work})

    def _app(self, keys: ApiKeys | None) -> FastAPI:
        uris = AllowedUris(self._settings.allowed_prefixes)
        return build_api(Service(self._settings, self.store, uris, keys, self._wake, _nothing))

    async def _wake(self) -> None:
        self._dubber.wake()


class _Door:
    """One application on a free port."""

    def __init__(self, app: FastAPI) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=2)
        )


async def _nothing() -> list[Any]:
    return []
