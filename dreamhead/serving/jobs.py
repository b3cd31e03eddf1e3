"""The durable job store: submit, read, list, cancel; any process may do any of it at any time.

store/
  active/<owner>/<id>             the job isn't over; what workers look through
  owners/<owner>/<id>             empty: the owner's jobs, the newest first in the order of names
  jobs/<id>.json                  the record, changed by compare-and-set only
  keys/<owner>/<digest>.json      an idempotency key: which job it made, of which request
  webhooks/<id>.json              a webhook that isn't delivered, see `deliveries`
  purges/, inputs/, uses/         what is removed with a job, see `purging` and `uses`
  incoming/<owner>/<upload id>    an upload that has no job yet
  uploads/<upload id>/            the inputs that were uploaded
  results/<id>.mp4                the dubbed video, and <id>.curve.json, the curves of its lips
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pydantic import ValidationError

from dreamhead import storage, versioned
from dreamhead.errors import DreamheadError, StorageError
from dreamhead.serving.records import Delivery, JobRecord, Options

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]
Change = Callable[[JobRecord], JobRecord]

MAX_MS = 2**44 - 1
"""Milliseconds since 1970 are counted down from here in the ids, so that the newest job's name sorts first."""
UPDATE_TRIES = 100
STRAY_S = 3600.0
"""Age at which the mark of a job that has no record is taken for that of a submission that died."""
ID_CHARS = 11 + 32


class UnknownJobError(DreamheadError):
    """There is no such job, or it is somebody else's."""


class QueueFullError(DreamheadError):
    """As many jobs as are allowed are waiting or running already."""


class KeyReusedError(DreamheadError):
    """An idempotency key came back with another request."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What is asked for, checked."""

    owner: str
    video_uri: str
    audio_uri: str
    options: Options
    content: str
    """Digest of the whole request: the same for the same request, whichever uris an upload was given."""
    idempotency_key: str = ""


@dataclass(frozen=True)
class Submitted:
    """The job of a request, and whether an earlier request had made it."""

    record: JobRecord
    is_replay: bool


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait or run at once; submissions at the same moment may pass them by a few."""

    all_jobs: int
    jobs_of_one: int


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)


def new_id(now: datetime) -> str:
    """A name that can't be guessed (128 random bits) and sorts before those made earlier."""
    return f"{MAX_MS - int(now.timestamp() * 1000):011x}{secrets.token_hex(16)}"


def created_at(job_id: str) -> datetime:
    """When a name was made."""
    return datetime.fromtimestamp((MAX_MS - int(job_id[:11], 16)) / 1000, timezone.utc)


def is_id(text: str) -> bool:
    """Whether this may be a job's name; anything else never gets near a path."""
    return len(text) == ID_CHARS and set(text) <= set("0123456789abcdef")


class JobStore:
    """Jobs below one directory uri."""

    def __init__(self, uri: str, clock: Clock = utc_now) -> None:
        self.uri = uri
        self.clock = clock

    def submit(self, new: NewJob, limits: Limits) -> Submitted:
        """Queue a job, or find the one that the same key made before.

        Raises QueueFullError, and KeyReusedError where the key's earlier request was another one.
        """
        earlier = self._earlier(new)
        if earlier and (record := self._read_any(earlier)):
            return Submitted(record, is_replay=True)
        self.check_room(new.owner, limits)
        # Whoever took the key and died leaves a name without a job: it is taken over.
        return self._queue(new, earlier or self._take_key(new))

    def check_room(self, owner: str, limits: Limits) -> None:
        """Raise QueueFullError where one more job of this owner is too many."""
        owners = [name for name, _ in self._active_names()]
        if len(owners) >= limits.all_jobs:
            raise QueueFullError(f"{len(owners)} jobs are waiting or running, no more are taken for now")
        if owners.count(owner) >= limits.jobs_of_one:
            raise QueueFullError(
                f"{owners.count(owner)} of your jobs are waiting or running, no more are taken for now"
            )

    def knows_key(self, owner: str, idempotency_key: str) -> bool:
        """Whether a request with this key came before."""
        return bool(idempotency_key) and versioned.read(self._key_uri(owner, _key_name(idempotency_key))) is not None

    def read(self, owner: str, job_id: str) -> JobRecord:
        """One of the owner's jobs; raises UnknownJobError."""
        record = self._read_any(job_id) if is_id(job_id) else None
        if record is None or record.owner != owner:
            raise UnknownJobError(f"there is no job {job_id[:ID_CHARS]}")
        return record

    def page(self, owner: str, limit: int, after: str = "") -> tuple[list[JobRecord], str]:
        """Up to `limit` of the owner's jobs made before the job `after`, the newest first, and where to go on.

        The second is empty when there are no more.
        """
        ids = [job_id for job_id in self._ids(storage.join(self.uri, "owners", owner)) if job_id > after]
        shown = ids[:limit]
        records = [record for job_id in shown if (record := self._read_any(job_id))]
        return records, shown[-1] if len(ids) > limit else ""

    def active(self) -> list[JobRecord]:
        """All jobs that aren't over, the oldest first; one that can't be read doesn't keep the others back."""
        records = []
        for owner, job_id in sorted(self._active_names(), key=lambda name: name[1], reverse=True):
            try:
                records += self._if_active(owner, job_id)
            except StorageError as error:
                logger.warning("%s", error)
        return records

    def update(self, job_id: str, change: Change) -> JobRecord:
        """Change a record, whoever else does so at the same time; what `change` raises passes through.

        A job that becomes over leaves the active ones.
        """
        for _ in range(UPDATE_TRIES):
            found = versioned.read(self._record_uri(job_id))
            if found is None:
                raise UnknownJobError(f"there is no job {job_id}")
            before = self._parse(job_id, found.data)
            after = change(before)
            if after is before:
                return before
            after = after.model_copy(
                update={"revision": before.revision + 1, "change": _token(), "updated_at": self.clock()}
            )
            try:
                versioned.replace(self._record_uri(job_id), _dump(after), found.version)
            except versioned.Conflict:
                continue
            if after.is_over:
                storage.delete(self._active_uri(after.owner, job_id))
            return after
        raise StorageError(f"{self._record_uri(job_id)}: others changed it each of {UPDATE_TRIES} times")

    def cancel(self, owner: str, job_id: str) -> JobRecord:
        """End a job that waits; mark one that runs, whose worker then ends it. One that is over stays as it is."""
        self.read(owner, job_id)
        return self.update(job_id, _cancelled)

    def upload_uri(self, upload_id: str, name: str) -> str:
        """Where an uploaded input lies."""
        return storage.join(self.uri, "uploads", upload_id, name)

    def result_uri(self, job_id: str) -> str:
        """Where a job's dubbed video lies."""
        return storage.join(self.uri, "results", f"{job_id}.mp4")

    def webhook_uri(self, job_id: str) -> str:
        """What is known of a job's webhook, until it is settled."""
        return storage.join(self.uri, "webhooks", f"{job_id}.json")

    def find(self, job_id: str) -> JobRecord | None:
        """Any owner's job."""
        return self._read_any(job_id)

    def all_ids(self) -> list[str]:
        """Names of all jobs."""
        uris = storage.list_files(storage.join(self.uri, "jobs"))
        names = (uri.rpartition("/")[2].removesuffix(".json") for uri in uris)
        return [name for name in names if is_id(name)]

    def entries(self, record: JobRecord) -> list[str]:
        """The files by which a job that is over is known: its record is the last."""
        key = [self._key_uri(record.owner, record.key_name)] if record.key_name else []
        name = storage.join(self.uri, "owners", record.owner, record.id)
        return [*key, name, self.webhook_uri(record.id), self._record_uri(record.id)]

    def incoming_uri(self, owner: str, upload_id: str) -> str:
        """The mark of an upload that has no job yet."""
        return storage.join(self.uri, "incoming", owner, upload_id)

    def has_upload(self, owner: str, upload_id: str) -> bool:
        """Whether one of the owner's jobs is of this upload."""
        folder = self.upload_uri(upload_id, "")
        records = map(self._read_any, self._ids(storage.join(self.uri, "owners", owner)))
        return any(record.video_uri.startswith(folder) for record in records if record is not None)

    def active_ids(self) -> set[str]:
        """Names of the jobs that aren't over, and of some that just ended."""
        return {job_id for _, job_id in self._active_names()}

    def _queue(self, new: NewJob, job_id: str) -> Submitted:
        # The record comes last: a name without a record does no harm, a record without a name would wait for ever.
        now = self.clock()
        storage.write_bytes(storage.join(self.uri, "owners", new.owner, job_id), b"")
        storage.write_bytes(self._active_uri(new.owner, job_id), now.isoformat().encode())
        if new.options.webhook_url:
            delivery = Delivery(since=now, due_at=now, change=_token())
            # One that is there is of a submission with the same key, which wrote the same.
            with suppress(versioned.Conflict):
                versioned.create(self.webhook_uri(job_id), delivery.model_dump_json().encode())
        record = JobRecord(
            id=job_id,
            owner=new.owner,
            video_uri=new.video_uri,
            audio_uri=new.audio_uri,
            options=new.options,
            created_at=now,
            updated_at=now,
            change=_token(),
            key_name=_key_name(new.idempotency_key),
        )
        try:
            versioned.create(self._record_uri(job_id), _dump(record))
        except versioned.Conflict:
            return Submitted(self.read(new.owner, job_id), is_replay=True)
        return Submitted(record, is_replay=False)

    def _earlier(self, new: NewJob) -> str:
        """The name of the job that the key made; empty where there is none yet."""
        uri = self._key_uri(new.owner, _key_name(new.idempotency_key))
        found = versioned.read(uri) if new.idempotency_key else None
        if found is None:
            return ""
        entry: dict[str, str] = json.loads(found.data)
        if entry["content"] != new.content:
            raise KeyReusedError("this Idempotency-Key was used with another request before; use a new one for each")
        return entry["id"]

    def _take_key(self, new: NewJob) -> str:
        job_id = new_id(self.clock())
        if not new.idempotency_key:
            return job_id
        try:
            uri = self._key_uri(new.owner, _key_name(new.idempotency_key))
            versioned.create(uri, json.dumps({"id": job_id, "content": new.content}).encode())
        except versioned.Conflict:
            return self._earlier(new)
        return job_id

    def _read_any(self, job_id: str) -> JobRecord | None:
        found = versioned.read(self._record_uri(job_id))
        return self._parse(job_id, found.data) if found else None

    def _parse(self, job_id: str, data: bytes) -> JobRecord:
        try:
            return JobRecord.model_validate_json(data)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise StorageError(
                f"{self._record_uri(job_id)}: not a job of this version of DreamHead: {reason}"
            ) from error

    def _active_names(self) -> list[tuple[str, str]]:
        """Owner and id of each job that isn't over."""
        uris = storage.list_files(storage.join(self.uri, "active"))
        names = [uri.rsplit("/", 2)[1:] for uri in uris]
        return [(owner, job_id) for owner, job_id in names if is_id(job_id)]

    def _if_active(self, owner: str, job_id: str) -> list[JobRecord]:
        record = self._read_any(job_id)
        if record is not None and not record.is_over:
            return [record]
        if record is None:
            self._forget_stray(self._active_uri(owner, job_id))
        else:
            # Whoever ended it died before this.
            storage.delete(self._active_uri(owner, job_id))
        return []

    def _forget_stray(self, uri: str) -> None:
        marked = versioned.read(uri)
        if marked and self.clock() - datetime.fromisoformat(marked.data.decode()) > timedelta(seconds=STRAY_S):
            storage.delete(uri)

    @staticmethod
    def _ids(prefix: str) -> list[str]:
        names = (uri.rpartition("/")[2] for uri in storage.list_files(prefix))
        return sorted(name for name in names if is_id(name))

    def _record_uri(self, job_id: str) -> str:
        return storage.join(self.uri, "jobs", f"{job_id}.json")

    def _active_uri(self, owner: str, job_id: str) -> str:
        return storage.join(self.uri, "active", owner, job_id)

    def _key_uri(self, owner: str, name: str) -> str:
        return storage.join(self.uri, "keys", owner, name)


def _key_name(idempotency_key: str) -> str:
    return hashlib.sha256(idempotency_key.encode()).hexdigest() + ".json" if idempotency_key else ""


def _cancelled(record: JobRecord) -> JobRecord:
    if record.is_over or record.cancel_requested:
        return record
    return record.model_copy(update={"cancel_requested": True} | ({"state": "cancelled"} if not record.lease else {}))


def _token() -> str:
    return secrets.token_hex(8)


def _dump(record: JobRecord) -> bytes:
    return record.model_dump_json().encode()
