"""Remove jobs that are over, with all that is theirs; whoever dies in the middle leaves a note of what is left to do.

store/
  purges/<id>.json     what belongs to a job that is being removed; written first, removed last
"""

import logging
import secrets
from datetime import datetime, timedelta

from pydantic import ValidationError

from dreamhead import storage, versioned
from dreamhead.config import Section
from dreamhead.errors import StorageError
from dreamhead.serving.jobs import JobStore, created_at, is_id
from dreamhead.serving.records import JobRecord, curve_uri_of

logger = logging.getLogger(__name__)

CLAIM_S = 600.0
"""How long one worker is left alone with a removal."""
LATE_S = 3600.0
"""When a second look is taken: a chunk that was in flight when its job was cancelled may still have been written."""
ORPHAN_S = 6 * 3600.0
"""Age at which an upload that no job has come of is taken for that of a request that died."""


class Purge(Section):
    """A job that is being removed."""

    job_id: str
    owner: str
    names: tuple[str, ...]
    """By which it is known; its record is the last."""
    files: tuple[str, ...]
    """That are its alone."""
    due_at: datetime
    """When somebody may take the next step."""
    is_freed: bool = False
    """Whether the work directory was gone through once."""
    change: str = ""
    """Random, new with each change: no two writes are alike."""


class Purges:
    """Removals of one store."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def begin(self, record: JobRecord) -> None:
        """Remove a job that is over, and its files but for those in the work directory, which a worker removes."""
        purge = Purge(
            job_id=record.id,
            owner=record.owner,
            names=tuple(self._store.entries(record)),
            files=tuple(self._own_files(record)),
            due_at=self._store.clock(),
            change=_token(),
        )
        try:
            versioned.create(self._uri(record.id), _dump(purge))
        except versioned.Conflict:
            logger.info("job %s: somebody else removes it too", record.id)
        self._delete(purge)

    def begin_old(self, older_than: timedelta) -> int:
        """Remove the jobs that have been over for so long; how many those were."""
        limit = self._store.clock() - older_than
        # The name tells when a job was made: most records needn't be read.
        old = [job_id for job_id in self._store.all_ids() if created_at(job_id) < limit]
        count = 0
        for job_id in old:
            try:
                record = self._store.find(job_id)
            except StorageError as error:
                logger.warning("%s", error)
                continue
            if record is not None and record.is_over and record.updated_at < limit:
                self.begin(record)
                count += 1
        return count

    def pending(self) -> list[str]:
        """Jobs that are being removed."""
        uris = storage.list_files(storage.join(self._store.uri, "purges"))
        names = (uri.rpartition("/")[2].removesuffix(".json") for uri in uris)
        return [name for name in names if is_id(name)]

    def claim(self, job_id: str) -> Purge | None:
        """Take the next step of a removal, where one is due: free the work directory, and do it again later."""
        return self._change(job_id, timedelta(seconds=CLAIM_S), only_due=True)

    def freed(self, purge: Purge) -> None:
        """The work directory was gone through: once more after a while, and then it's done."""
        self._delete(purge)
        if purge.is_freed:
            storage.delete(self._uri(purge.job_id))
        else:
            self._change(purge.job_id, timedelta(seconds=LATE_S), is_freed=True)

    def remove_orphans(self) -> int:
        """Remove uploads whose request died before there was a job; how many those were."""
        count = 0
        for uri in storage.list_files(storage.join(self._store.uri, "incoming")):
            owner, upload_id = uri.rsplit("/", 2)[1:]
            marked = versioned.read(uri)
            if marked is None or not self._is_old(marked.data):
                continue
            # The job may be there, and only the mark be left; it is asked rarely, after a crash.
            if not self._store.has_upload(owner, upload_id):
                storage.delete_many(storage.list_files(self._store.upload_uri(upload_id, "")))
                count += 1
            storage.delete(uri)
        return count

    def _is_old(self, mark: bytes) -> bool:
        return self._store.clock() - datetime.fromisoformat(mark.decode()) > timedelta(seconds=ORPHAN_S)

    @staticmethod
    def _delete(purge: Purge) -> None:
        if not purge.is_freed:
            # Only once: later, a key of the same name may be that of another job.
            storage.delete_many(purge.names)
        storage.delete_many(purge.files)

    def _own_files(self, record: JobRecord) -> list[str]:
        uploads = storage.join(self._store.uri, "uploads") + "/"
        # Inputs that a request named are its owner's, and stay.
        inputs = [uri for uri in (record.video_uri, record.audio_uri) if uri.startswith(uploads)]
        result = self._store.result_uri(record.id)
        return [*inputs, result, curve_uri_of(result)]

    def _change(self, job_id: str, later: timedelta, *, only_due: bool = False, is_freed: bool = False) -> Purge | None:
        uri = self._uri(job_id)
        found = versioned.read(uri)
        if found is None:
            return None
        purge, now = _parsed(uri, found.data), self._store.clock()
        if only_due and purge.due_at > now:
            return None
        changed = purge.model_copy(
            update={"due_at": now + later, "is_freed": purge.is_freed or is_freed, "change": _token()}
        )
        try:
            versioned.replace(uri, _dump(changed), found.version)
        except versioned.Conflict:
            return None
        return changed

    def _uri(self, job_id: str) -> str:
        return storage.join(self._store.uri, "purges", f"{job_id}.json")


def _parsed(uri: str, data: bytes) -> Purge:
    try:
        return Purge.model_validate_json(data)
    except ValidationError as error:
        raise StorageError(f"{uri}: not a removal of this version of DreamHead: {error.errors()[0]['msg']}") from error


def _dump(purge: Purge) -> bytes:
    return purge.model_dump_json().encode()


def _token() -> str:
    return secrets.token_hex(8)
