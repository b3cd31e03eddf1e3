"""One online service over HTTP; requests are made again while it is busy or can't be reached."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from dreamhead.client.jobs import ClientJob, ClientPage
from dreamhead.errors import ConfigError, DreamheadError

CONNECT_S = 15.0
SILENCE_S = 60.0
"""Seconds without a byte after which a connection is taken for lost: event streams say something every 15 s."""
LINE_BYTES = 2**20
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError)
"""What a connection ends with that may work the next time."""

Say = Callable[[str], None]
ResultT = TypeVar("ResultT")
ModelT = TypeVar("ModelT", bound=BaseModel)


class ServiceError(DreamheadError):
    """The service can't be reached, or can't do what was asked for now."""


class RefusedError(ServiceError):
    """The request is wrong: sent again, it would get the same answer."""


class BusyError(ServiceError):
    """The service asks to come back later, or fails in a way that may pass."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Service:
    """Requests of one user."""

    def __init__(self, session: aiohttp.ClientSession, url: str, patience_s: float, say: Say) -> None:
        self._session = session
        self._url = url
        self._patience_s = patience_s
        self._say = say

    async def job(self, job_id: str) -> ClientJob:
        """One job."""
        return await self.ask(ClientJob, "GET", f"v1/dubs/{job_id}")

    async def jobs(self, limit: int) -> list[ClientJob]:
        """The newest jobs."""
        return (await self.ask(ClientPage, "GET", "v1/dubs", params={"limit": str(limit)})).jobs

    async def cancel(self, job_id: str) -> ClientJob:
        """Ask for a job's end."""
        return await self.ask(ClientJob, "DELETE", f"v1/dubs/{job_id}")

    async def ask(self, model: type[ModelT], method: str, path: str, **values: Any) -> ModelT:
        """What a request is answered with; raises RefusedError, or ServiceError once patience is over."""

        async def once() -> ModelT:
            async with self.answer(method, path, **values) as response:
                return await parsed(model, response)

        return await self.patiently(once)

    @asynccontextmanager
    async def answer(self, method: str, path: str, **values: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, made once: its answer, not yet read. Raises RefusedError, BusyError or one of LOST."""
        async with self._session.request(method, path, allow_redirects=False, **values) as response:
            if response.status >= 300:
                await _raise_problem(response)
            yield response

    async def patiently(self, attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Repeat what fails by a busy service or a lost connection; each time after a longer pause."""
        began = time.monotonic()
        for number in itertools.count():
            try:
                return await attempt()
            except aiohttp.ClientSSLError as error:
                raise ServiceError(f"{self._url}: no safe connection: {error}") from error
            except BusyError as error:
                reason, asked_s, cause = str(error), error.retry_after_s, Exception(error)
            except LOST as error:
                reason, asked_s, cause = _told(error), 0.0, error
            # Those who were sent away together shouldn't come back together.
            longest = min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S)
            pause_s = asked_s + random.uniform(longest / 2, longest)
            if time.monotonic() + pause_s - began > self._patience_s:
                raise ServiceError(f"{self._url}: {reason}; given up after {number + 1} tries") from cause
            self._say(f"{reason}; tried again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable: the loop above has no end of its own")


@asynccontextmanager
async def connect(url: str, key: str, patience_s: float, say: Say) -> AsyncIterator[Service]:
    """A service by its address; raises ConfigError for one that can't be."""
    base = _base(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    # The buffer bounds the length of a line, and an event is one.
    async with aiohttp.ClientSession(base, headers=headers, timeout=timeout, read_bufsize=LINE_BYTES) as session:
        yield Service(session, url, patience_s, say)


async def parsed(model: type[ModelT], response: aiohttp.ClientResponse) -> ModelT:
    """What an answer says; raises ServiceError where that isn't what the service would say."""
    try:
        return model.model_validate_json(await response.read())
    except ValidationError as error:
        raise ServiceError(f"{response.url} isn't answered as by DreamHead's service: is it one?") from error


def _base(url: str) -> URL:
    try:
        base = URL(url.rstrip("/") + "/")
    except ValueError as error:
        raise ConfigError(f"--server {url}: {error}") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise ConfigError(f"--server {url}: must begin with http:// or https:// and name a host")
    return base


async def _raise_problem(response: aiohttp.ClientResponse) -> None:
    detail = _detail(await response.read(), response.status, response.reason or "")
    status = response.status
    if status in (408, 429) or status >= 500:
        raise BusyError(detail, _seconds(response.headers))
    if status < 400:
        raise RefusedError(f"the service sends on to {response.headers.get('Location')}: give its address as --server")
    if status == 401:
        detail += "; it is read from DREAMHEAD_API_KEY"
    # 409: nothing is wrong with the request, but with the job's state.
    raise ServiceError(detail) if status == 409 else RefusedError(detail)


def _detail(body: bytes, status: int, reason: str) -> str:
    """The one line of a problem; of what stands between the service and us, its status."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"answered {status} {reason}".rstrip()


def _seconds(headers: Mapping[str, str]) -> float:
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def _told(error: BaseException) -> str:
    return str(error) or ("no answer in time" if isinstance(error, asyncio.TimeoutError) else type(error).__name__)
