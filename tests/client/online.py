"""The real API on a real port, which a test can stop, start again, and cut answers of; workers are the tests."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreamhead import storage
from dreamhead.serving.api import build_api
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.keys import ApiKeys
from dreamhead.serving.leases import HeldJob, Worker
from dreamhead.serving.records import Result
from dreamhead.serving.service import Service
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.uris import AllowedUris

DEADLINE_S = 30


class CutError(Exception):
    """An answer is cut off on purpose."""


@dataclass
class Harm:
    """The application, and what befalls its answers: as a proxy or a lost replica would do it."""

    app: ASGIApp
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the next answers with a video end without a word."""
    instead: list[int] = field(default_factory=list)
    """Statuses that the next requests are answered with, in the place of the application."""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of each request."""

    received: list[int] = field(default_factory=list)
    """Bytes of the bodies of the requests that reached the application."""
    answered: list[int] = field(default_factory=list)
    """Status of each answer that was begun."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {name.decode().lower(): value.decode() for name, value in scope.get("headers", ())}
        self.seen.append((scope["method"], scope["path"], headers))
        if self.instead:
            kind = [(b"content-type", b"text/html")]
            await send({"type": "http.response.start", "status": self.instead.pop(0), "headers": kind})
            await send({"type": "http.response.body", "body": b"<html>not ours"})
            return
        is_video = scope["path"].endswith("/video") and headers.get("range") != "bytes=0-0"
        left = self.cut_after.pop(0) if is_video and self.cut_after else None

        async def cut(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                self.answered.append(message["status"])
            if left is None or message["type"] != "http.response.body":
                await send(message)
                return
            body = message.get("body", b"")[:left]
            left -= len(body)
            await send(message | {"body": body, "more_body": True})
            if not left:
                raise CutError

        self.received.append(0)
        index = len(self.received) - 1

        async def counted() -> Message:
            message = await receive()
            self.received[index] += len(message.get("body", b""))
            return message

        await self.app(scope, counted, cut)


class Online:
    """One service, its store, and its port, which stays the same when it is started again."""

    def __init__(self, settings: ServingSettings, keys: ApiKeys | None) -> None:
        self.store = JobStore(settings.storage)
        service = Service(settings, self.store, AllowedUris(settings.allowed_prefixes), keys, _nothing, _all_there)
        self.harm = Harm(build_api(service))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Listen, and return once that is so."""
        config = uvicorn.Config(
            self.harm, "127.0.0.1", self._port, log_level=60, lifespan="off", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        """Break off what goes on, and listen no more."""
        self._server.should_exit = True
        self._thread.join()

    def claim(self) -> HeldJob:
        """Be a worker that takes the oldest job, once there is one."""
        worker = Worker(self.store, "w", lease_s=60, max_claims=3)
        held: list[HeldJob] = []

        def claimed() -> bool:
            held.extend(filter(None, [worker.claim()]))
            return bool(held)

        until(claimed)
        return held[0]

    def finish(self, held: HeldJob, content: bytes = b"0123456789") -> None:
        """End the job well, with this video."""
        uri = self.store.result_uri(held.record.id)
        storage.write_bytes(uri, content)
        digest = storage.content_digest(uri)
        counts: dict[str, Any] = {"frames": 10, "dubbed_frames": 10, "passed_through": {}}
        held.succeed(Result(output_uri=uri, bytes=len(content), digest=digest, **counts))


@contextmanager
def online(folder: Path, keys: ApiKeys | None = None, **values: Any) -> Iterator[Online]:
    """A service on this machine, its files below `folder`."""
    given = {"storage": str(folder / "store"), "allowed_prefixes": [str(folder)], "poll_s": 0.02, "retry_after_s": 1}
    service = Online(ServingSettings(**given | values), keys)
    try:
        yield service
    finally:
        service.stop()


def until(condition: Any) -> None:
    """Wait; a condition that never holds fails the test."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"it didn't come about within {DEADLINE_S} s"
        time.sleep(0.01)


async def _nothing() -> None:
    return


async def _all_there() -> list[str]:
    return []
