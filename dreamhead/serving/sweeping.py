"""Remove what nobody needs any more: jobs that were over long ago or whose owner wishes so, uploads without a job."""

import asyncio
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from dreamhead import storage
from dreamhead.errors import StorageError
from dreamhead.records import Job
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.purging import Purges
from dreamhead.serving.uses import Input, Uses
from dreamhead.stages.clean import free_everything, free_input
from dreamhead.stages.work import Work

logger = logging.getLogger(__name__)

LOOK_S = 10.0
"""Seconds between two looks for removals that were begun."""
SWEEP_S = 3600.0
"""Seconds between two looks for jobs that are old."""


class Sweeper:
    """Works beside the work on jobs; several of these never get into each other's way."""

    def __init__(self, store: JobStore, work: Work, keep_days: float) -> None:
        self._purges = Purges(store)
        self._uses = Uses(store.uri, store.clock)
        self._work = work
        self._keep_days = keep_days
        # Not one of the loop's own few: those renew the leases of jobs.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sweeper")

    async def run(self) -> None:
        """Until cancelled."""
        # Workers that are started together needn't look together.
        next_sweep = time.monotonic() + random.uniform(0, LOOK_S)
        while True:
            is_due = time.monotonic() >= next_sweep
            if is_due:
                next_sweep = time.monotonic() + SWEEP_S * random.uniform(0.8, 1.2)
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, partial(self.sweep, find_old=is_due))
            except StorageError as error:
                logger.warning("what is old stays for now: %s", error)
            await asyncio.sleep(LOOK_S)

    def sweep(self, *, find_old: bool) -> None:
        """Go on with each removal that was begun; first look for more of them. Raises StorageError."""
        if find_old:
            orphans = self._purges.remove_orphans()
            old = self._purges.begin_old(timedelta(days=self._keep_days)) if self._keep_days else 0
            if old or orphans:
                logger.info("removed: %d jobs that were over for long, %d uploads without a job", old, orphans)
        for job_id in self._purges.pending():
            purge = self._purges.claim(job_id)
            if purge is None:
                continue
            free_everything(Job(job_id=job_id, row=0, video_uri="", audio_uri="", output_uri=""), self._work)
            self._uses.drop(job_id, self._remove)
            if purge.is_freed:
                self._uses.forget(job_id)
            self._purges.freed(purge)

    def _remove(self, one: Input) -> None:
        free_input(one.kind, one.digest, self._work)
        storage.delete_many(one.facts)
