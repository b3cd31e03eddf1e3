"""Who works on which job: claimed by one worker at a time, and taken over when that one is no longer heard of."""

import secrets
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dreamhead.errors import DreamheadError
from dreamhead.serving.jobs import JobStore, UnknownJobError
from dreamhead.serving.records import Failure, JobRecord, Lease, Progress, Result, State


class LeaseLostError(DreamheadError):
    """Another worker has taken the job over: this one must leave it alone."""


class Worker:
    """Claims jobs under one name. Workers' clocks must agree to within a small part of `lease_s`."""

    def __init__(self, store: JobStore, name: str, *, lease_s: float, max_claims: int) -> None:
        self.store = store
        self.name = name
        self.beat_s = lease_s / 3
        """Seconds after which a lease is renewed at the latest."""
        self._lease = timedelta(seconds=lease_s)
        self._max_claims = max_claims

    def claim(self) -> "HeldJob | None":
        """The next job to work on, or None: the oldest of the owner who has the fewest running."""
        active = self.store.active()
        running = Counter(record.owner for record in active if self._is_held(record))
        free = [record for record in active if not self._is_held(record)]
        # A stable sort: an owner's jobs stay the oldest first.
        for record in sorted(free, key=lambda record: running[record.owner]):
            held = self._try(record.id)
            if held is not None:
                return held
        return None

    def _try(self, job_id: str) -> "HeldJob | None":
        try:
            record = self.store.update(job_id, self._claimed)
        except (LeaseLostError, UnknownJobError):
            return None
        return None if record.is_over else HeldJob(self.store, record, self._lease)

    def _claimed(self, record: JobRecord) -> JobRecord:
        if record.is_over or self._is_held(record):
            raise LeaseLostError(f"job {record.id} is worked on by somebody else, or over")
        if record.cancel_requested:
            return record.model_copy(update={"state": "cancelled", "lease": None})
        if record.claims >= self._max_claims:
            detail = f"given up after {record.claims} tries: whatever worked on it died each time"
            failure = Failure(type="ClusterError", detail=detail)
            return record.model_copy(update={"state": "failed", "failure": failure, "lease": None})
        lease = Lease(holder=self.name, token=secrets.token_hex(8), expires_at=self.store.clock() + self._lease)
        return record.model_copy(update={"state": "running", "lease": lease, "claims": record.claims + 1})

    def _is_held(self, record: JobRecord) -> bool:
        return record.lease is not None and record.lease.expires_at > self.store.clock()


class HeldJob:
    """A job that this worker holds; each call raises LeaseLostError once it doesn't any more."""

    def __init__(self, store: JobStore, record: JobRecord, period: timedelta) -> None:
        assert record.lease is not None
        self._store = store
        self._lease = record.lease
        self._period = period
        self._since = time.monotonic() - record.worked_s
        self.record = record

    @property
    def worked_s(self) -> float:
        """How long the job has been worked on, by those before as well."""
        return time.monotonic() - self._since

    def renew(self, progress: Progress) -> bool:
        """Say that the work goes on, and how far it is; whether it is still wanted."""
        lease = self._lease.model_copy(update={"expires_at": self._store.clock() + self._period})
        self._change(lease=lease, progress=progress)
        return not self.record.cancel_requested

    def is_wanted(self) -> bool:
        """Whether the work is still wanted; cheaper than to renew, and nothing changes."""
        self.record = self._store.update(self.record.id, self._mine)
        return not self.record.cancel_requested

    def succeed(self, result: Result) -> None:
        """The work is done; a wish to cancel that came meanwhile is too late."""
        progress = Progress(frames_done=result.frames, frames=result.frames, eta_s=0.0)
        self._change(state="succeeded", result=result, progress=progress, lease=None)

    def fail(self, failure: Failure) -> None:
        """The job can't be done."""
        self._change(state="failed", failure=failure, lease=None)

    def cancel(self) -> None:
        """The work was stopped because its owner wished so."""
        self._change(state="cancelled", lease=None)

    def release(self) -> None:
        """Give the job back, unfinished, to whoever is next; this wasn't the job's fault, and doesn't count."""
        state: State = "cancelled" if self.record.cancel_requested else "queued"
        self._change(state=state, lease=None, claims=self.record.claims - 1)

    def _change(self, **values: Any) -> None:
        self.record = self._store.update(self.record.id, lambda record: self._changed(record, values))

    def _changed(self, record: JobRecord, values: Mapping[str, Any]) -> JobRecord:
        return self._mine(record).model_copy(update={**values, "worked_s": round(self.worked_s, 3)})

    def _mine(self, record: JobRecord) -> JobRecord:
        if record.lease is None or record.lease.token != self._lease.token:
            raise LeaseLostError(f"job {record.id} was taken over by another worker")
        return record
