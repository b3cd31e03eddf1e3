"""The workers as a Serve deployment: each replica claims jobs and takes them through the stages' deployments."""

import asyncio
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from dreamhead.serving import dubber
from dreamhead.serving.deliveries import Deliveries, Postman
from dreamhead.serving.deployments import ServeStages
from dreamhead.serving.engine import Engine
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.leases import Worker
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.sweeping import Sweeper
from dreamhead.serving.webhooks import Webhooks


class Dubber:
    """Claims jobs from the store. It does little itself, so that one that dies costs little."""

    def __init__(self, settings: ServingSettings, *stages: DeploymentHandle[Any]) -> None:
        name = serve.get_replica_context().replica_id.unique_id
        store = JobStore(settings.storage)
        worker = Worker(store, name, lease_s=settings.lease_s, max_claims=settings.max_claims)
        engine = Engine(settings, ServeStages(*stages))
        self._dubber = dubber.Dubber(
            store,
            worker,
            engine,
            at_once=settings.jobs_at_once,
            poll_s=settings.poll_s,
            job_timeout_s=settings.job_timeout_s,
        )
        work = [self._dubber.run(), Sweeper(store, engine.work, settings.keep_days).run()]
        if webhooks := Webhooks.load(settings):
            work.append(Postman(Deliveries(store, settings.webhook_retry_hours), webhooks, store.clock).run())
        self._work = [asyncio.get_running_loop().create_task(part) for part in work]

    async def wake(self) -> None:
        """There is a new job."""
        self._dubber.wake()

    async def check_health(self) -> None:
        """Serve replaces a replica whose work has ended."""
        for part in self._work:
            if part.done():
                raise RuntimeError("the worker has ended") from part.exception()

    async def __del__(self) -> None:
        for part in self._work:
            part.cancel()
        await asyncio.wait(self._work)
