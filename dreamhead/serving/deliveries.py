"""Webhooks that are still to be delivered: when the next try is due, kept in the store, so that any worker makes it.

store/
  webhooks/<id>.json   of a job that asked for one, from its submission until it is delivered or given up
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import ValidationError

from dreamhead import storage, versioned
from dreamhead.errors import InputError, StorageError
from dreamhead.serving.jobs import STRAY_S, JobStore, is_id
from dreamhead.serving.records import Delivery, JobRecord
from dreamhead.serving.schemas import JobView
from dreamhead.serving.webhooks import GoneError, UndeliveredError, Webhooks

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks for what is due."""
FIRST_DELAY_S = 30.0
"""Between the first try and the second, longer than a try can take; then twice as long each time."""
LONGEST_DELAY_S = 4 * 3600.0
AT_ONCE = 16


class Deliveries:
    """Those of one store."""

    def __init__(self, store: JobStore, retry_hours: float) -> None:
        self._store = store
        self._span = timedelta(hours=retry_hours)

    def over(self) -> list[str]:
        """Jobs that are over and whose webhook isn't settled."""
        uris = storage.list_files(storage.join(self._store.uri, "webhooks"))
        names = (uri.rpartition("/")[2].removesuffix(".json") for uri in uris)
        running = self._store.active_ids()
        return [name for name in names if is_id(name) and name not in running]

    def claim(self, job_id: str) -> tuple[JobRecord, Delivery] | None:
        """Take the next try where it is due; the one after it is fixed before this one is made.

        So a worker that dies over it costs a delay, and two workers never make the same try.
        """
        uri = self._store.webhook_uri(job_id)
        found = versioned.read(uri)
        if found is None:
            return None
        now, delivery = self._store.clock(), _parsed(uri, found.data)
        if delivery.due_at > now:
            return None
        record = self._store.find(job_id)
        if record is None:
            # Submitted by somebody who is about to write it, or who died.
            if now - delivery.since > timedelta(seconds=STRAY_S):
                storage.delete(uri)
            return None
        if not record.is_over:
            return None
        taken = delivery.model_copy(
            update={
                "since": delivery.since if delivery.tries else now,
                "due_at": now + timedelta(seconds=delay_s(delivery.tries)),
                "tries": delivery.tries + 1,
                "change": secrets.token_hex(8),
            }
        )
        try:
            versioned.replace(uri, taken.model_dump_json().encode(), found.version)
        except versioned.Conflict:
            return None
        return record, taken

    def settle(self, job_id: str) -> None:
        """No more of it."""
        storage.delete(self._store.webhook_uri(job_id))

    def is_last(self, delivery: Delivery) -> bool:
        """Whether no other try follows."""
        return delivery.due_at - delivery.since > self._span


class Postman:
    """Makes the tries that are due, beside the work on jobs; as many of these as there are workers."""

    def __init__(self, deliveries: Deliveries, webhooks: Webhooks, clock: Callable[[], datetime]) -> None:
        self._deliveries = deliveries
        self._webhooks = webhooks
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.deliver_due()
            except StorageError as error:
                logger.warning("webhooks wait: %s", error)
            await asyncio.sleep(LOOK_S)

    async def deliver_due(self) -> None:
        """One try of each that is due; raises StorageError."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(job_id: str) -> None:
            async with room:
                await self._deliver(job_id)

        ids = await asyncio.to_thread(self._deliveries.over)
        for error in await asyncio.gather(*map(one, ids), return_exceptions=True):
            if isinstance(error, BaseException):
                logger.warning("a webhook waits: %s: %s", type(error).__name__, error)

    async def _deliver(self, job_id: str) -> None:
        claimed = await asyncio.to_thread(self._deliveries.claim, job_id)
        if claimed is None:
            return
        record, delivery = claimed
        body = JobView.of(record).model_dump_json().encode()
        timestamp = int(self._clock().timestamp())
        try:
            # The name is the job's, in every try: the receiver knows a repetition by it.
            await self._webhooks.post(record.options.webhook_url, f"msg_{job_id}", timestamp, body)
        except (UndeliveredError, InputError) as error:
            is_last = isinstance(error, GoneError) or self._deliveries.is_last(delivery)
            ahead = "given up" if is_last else f"tried again at {delivery.due_at:%H:%M:%S}"
            logger.warning("job %s: webhook, try %d: %s; %s", job_id, delivery.tries, error, ahead)
            if not is_last:
                return
        await asyncio.to_thread(self._deliveries.settle, job_id)


def delay_s(tries: int) -> float:
    """Seconds from a try, which so many came before, to the next one."""
    return float(min(FIRST_DELAY_S * 2**tries, LONGEST_DELAY_S) * random.uniform(1.0, 1.25))


def _parsed(uri: str, data: bytes) -> Delivery:
    try:
        return Delivery.model_validate_json(data)
    except ValidationError as error:
        raise StorageError(f"{uri}: not a delivery of this version of DreamHead: {error.errors()[0]['msg']}") from error
