"""What several processes do at the same time in the tests of races."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess

from dreamhead import versioned
from dreamhead.serving.deliveries import Deliveries, Postman
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.leases import Worker
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.webhooks import Webhooks
from dreamhead.versioned import Versioned


def count_up(uri: str, times: int) -> int:
    """Add one to the number in a file, again and again; returns how often somebody else was faster."""
    conflicts = done = 0
    while done < times:
        found = versioned.read(uri)
        assert found is not None
        try:
            # The random part: no content may be like another.
            versioned.replace(uri, f"{number(found) + 1} {secrets.token_hex(8)}".encode(), found.version)
            done += 1
        except versioned.Conflict:
            conflicts += 1
    return conflicts


def number(found: Versioned | None) -> int:
    """What was counted so far."""
    assert found is not None
    return int(found.data.split()[0])


def claim_all(store_uri: str, name: str) -> list[str]:
    """Claim jobs until there are none; returns their names."""
    worker = Worker(JobStore(store_uri), name, lease_s=60, max_claims=3)
    claimed = []
    while held := worker.claim():
        claimed.append(held.record.id)
    return claimed


def deliver_for_ever(store_uri: str, host: str, secret: str) -> None:
    """Post webhooks to one host until killed."""
    webhooks = Webhooks.load(ServingSettings(webhook_private_hosts=(host,)), {"DREAMHEAD_WEBHOOK_SECRET": secret})
    assert webhooks is not None
    store = JobStore(store_uri)
    asyncio.run(Postman(Deliveries(store, 24), webhooks, store.clock).run())


def spawned(work: Callable[..., object], *arguments: str) -> SpawnProcess:
    """A process that begins afresh."""
    process = get_context("spawn").Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def processes(count: int) -> ProcessPoolExecutor:
    """Processes that begin afresh: a fork of this one would share its locks."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))
