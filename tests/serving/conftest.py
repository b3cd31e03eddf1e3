"""Stores of jobs in each kind of storage, and a clock that the test turns."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from moto.s3.responses import S3Response

from dreamhead.serving.jobs import JobStore
from tests.s3 import s3_bucket


class Clock:
    """A time that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


def one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    """S3 checks a write's condition and writes in one step; moto does so only where one request is served at a time."""
    lock = Lock()

    def locked(*arguments: Any) -> Any:
        with lock:
            return method(*arguments)

    return locked


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """Uri of an empty bucket on a real S3 endpoint."""
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with pytest.MonkeyPatch.context() as patch, s3_bucket(name) as uri:
        patch.setattr(S3Response, "put_object", one_at_a_time(S3Response.put_object))
        yield uri


@pytest.fixture(params=["path", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A directory uri of each kind."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return str(tmp_path)


@pytest.fixture
def store(base: str, clock: Clock) -> JobStore:
    return JobStore(base, clock)
