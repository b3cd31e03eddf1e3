"""Count the tries of a piece of work in a file, so that a process which dies with its work can't try forever."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dreamhead import storage
from dreamhead.errors import ClusterError, DreamheadError, StorageError
from dreamhead.records import Chunk
from dreamhead.stages.artefacts import load_json, save_json

logger = logging.getLogger(__name__)


def describe(error: DreamheadError) -> str:
    """The text of an error as results and chunks carry it."""
    return f"{type(error).__name__}: {error}"


@contextmanager
def attempt(uri: str, most: int, what: str) -> Iterator[int]:
    """Count one try in the file at `uri` before its work starts, and note there why it failed.

    Yields the number of this try, from 1. Raises ClusterError, which names the last failure, once `most` were used up:
    also by tries whose process died without a word.
    """
    record: dict[str, Any] = load_json(uri) if storage.exists(uri) else {"count": 0, "error": ""}
    if record["count"] >= most:
        reason = record["error"] or "the process died (out of memory, or a crash in native code)"
        raise ClusterError(f"{what} was given up after {record['count']} tries, the last failed with: {reason}")
    number = int(record["count"]) + 1
    save_json(uri, {"count": number, "error": ""})
    try:
        yield number
    except Exception as error:
        # Noted and raised again: whoever retries decides, and the next try may run in another process.
        save_json(uri, {"count": number, "error": f"{type(error).__name__}: {error}"})
        raise


def attempt_chunk(chunk: Chunk, uri: str, failed_uri: str, most: int, work: Callable[[Chunk], Chunk]) -> Chunk:
    """Do one chunk's work; a failure that is ours becomes the chunk's `error`, storage is tried `most` times.

    The first failure is published at `failed_uri`, and the job's other chunks take it over instead of failing one by
    one. Any other exception passes through: the caller's retries end at the same count.
    """
    what = f"frames {chunk.start} to {chunk.stop} of job {chunk.job.job_id}"
    failure: DreamheadError | None = None
    for _ in range(most):
        try:
            if storage.exists(failed_uri):
                return replace(chunk, error=load_json(failed_uri)["error"])
            with attempt(uri, most, what) as number:
                return work(replace(chunk, attempt=number))
        except StorageError as error:
            logger.warning("%s: %s", what, error)
            failure = error
        except DreamheadError as error:
            save_json(failed_uri, {"error": describe(error)})
            failure = error
            break
    return replace(chunk, error=describe(failure)) if failure else chunk
