"""What the routes of the HTTP interface share."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, cast

from fastapi import Depends, Request

from dreamhead.serving.checkpoints import Works
from dreamhead.serving.jobs import JobStore, Limits
from dreamhead.serving.keys import EVERYBODY, ApiKeys
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.uris import AllowedUris
from dreamhead.serving.webhooks import Webhooks


@dataclass(frozen=True)
class Service:
    """One service's parts."""

    settings: ServingSettings
    store: JobStore
    uris: AllowedUris
    keys: ApiKeys | None
    """None lets everybody in."""
    wake: Callable[[], Awaitable[None]]
    """Tells a worker that there is a new job."""
    missing: Callable[[], Awaitable[list[str]]]
    """Names of the parts that aren't up."""
    webhooks: Webhooks | None = None
    """None refuses requests for them."""

    @cached_property
    def works(self) -> Works:
        """Names of the work directory's files."""
        return Works(self.settings)

    @cached_property
    def streams(self) -> asyncio.Semaphore:
        """The streams that this process may still open."""
        return asyncio.Semaphore(self.settings.streams_at_once)

    @property
    def limits(self) -> Limits:
        """How many jobs are taken."""
        return Limits(all_jobs=self.settings.max_active_jobs, jobs_of_one=self.settings.max_active_jobs_per_key)


def service_of(request: Request) -> Service:
    """The service behind a request."""
    return cast(Service, request.app.state.service)


def owner_of(request: Request) -> str:
    """Who asks; raises UnknownKeyError."""
    keys = service_of(request).keys
    return keys.owner(request.headers.get("authorization", "")) if keys else EVERYBODY


TheService = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(owner_of)]
