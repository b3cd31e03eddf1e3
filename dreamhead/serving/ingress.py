"""The HTTP interface as a Serve deployment. It imports no torch: many of these start and stop with the clients."""

import asyncio
import os
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatusOverview
from starlette.types import ASGIApp

from dreamhead.serving.api import build_api
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.keys import ApiKeys
from dreamhead.serving.service import Service
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.uris import AllowedUris
from dreamhead.serving.webhooks import Webhooks


class Api:
    """Answers HTTP; keeps nothing of its own."""

    def __init__(self, settings: ServingSettings, workers: DeploymentHandle[Any]) -> None:
        self._workers = workers
        self._app_name = serve.get_replica_context().app_name
        keys = ApiKeys.load(settings.api_keys_file, os.environ)
        uris = AllowedUris(settings.allowed_prefixes)
        store = JobStore(settings.storage)
        self._service = Service(settings, store, uris, keys, self._wake, self._missing, Webhooks.load(settings))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_api(self._service)

    async def _wake(self) -> None:
        # Not waited for: the job is safe, and a worker that isn't there now looks by itself later.
        self._workers.wake.remote()

    async def _missing(self) -> list[str]:
        status = await asyncio.to_thread(serve.status)
        application = status.applications.get(self._app_name)
        return missing_parts(application) if application else ["the application"]


def missing_parts(application: ApplicationStatusOverview) -> list[str]:
    """Deployments without a replica that is up; one that was scaled down to none isn't missing."""
    missing = []
    for name, deployment in sorted(application.deployments.items()):
        states = deployment.replica_states
        is_idle = deployment.status == "HEALTHY" and not sum(states.values())
        if not sum(count for state, count in states.items() if state == "RUNNING") and not is_idle:
            missing.append(name)
    return missing
