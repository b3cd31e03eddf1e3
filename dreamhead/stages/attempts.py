"""Count the tries of a piece of work in a file, so that a process which dies with its work can't try forever."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dreamhead import storage
from dreamhead.errors import ClusterError, DiskFullError, DreamheadError, StorageError
from dreamhead.records import Chunk
from dreamhead.stages.artefacts import load_json, save_json
from dreamhead.stages.deadline import Deadline

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)

RETRY_PAUSES_S = (5.0, 20.0)
"""Before storage is tried for the second time, the third, and so on: a server that starts again takes as long."""
LOST_RATIO = 3
"""Tries that may end with their machine, for each that counts: work that takes machine after machine down must end."""


def _never_lost(node: str) -> bool:
    return False


@dataclass(frozen=True)
class Place:
    """Where tries run."""

    node: str = ""
    """Name of the machine."""
    is_lost: Callable[[str], bool] = _never_lost
    """Whether a machine is gone: its tries were taken away, and say nothing of the work."""
    end_process: Callable[[], None] | None = None
    """Ends this process when a try takes too long; without it tries may take as long as they like."""


HERE = Place()
"""This process, which nobody starts again."""


class Trial:
    """One try that goes on."""

    def __init__(self, number: int, deadline: Deadline) -> None:
        self.number = number
        """From 1."""
        self._deadline = deadline

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that passes here, while others work, doesn't count."""
        self._deadline.stop()
        try:
            yield
        finally:
            self._deadline.start()


def describe(error: DreamheadError) -> str:
    """The text of an error as results and chunks carry it."""
    return f"{type(error).__name__}: {error}"


@contextmanager
def attempt(uri: str, most: int, what: str, place: Place = HERE, timeout_s: float = 0.0) -> Iterator[Trial]:
    """Count one try in the file at `uri` before its work starts, and note there why it failed.

    A try that takes longer than `timeout_s` (0: no limit) is noted, and its process ended, where the place knows how.
    Raises ClusterError, which names the last failure, once `most` were used up: also by tries whose process died
    without a word. Those of machines that are gone don't count, up to `LOST_RATIO` times as many.
    """
    tries: list[dict[str, str]] = load_json(uri)["tries"] if storage.exists(uri) else []
    counted = [one for one in tries if one["error"] or not place.is_lost(one["node"])]
    if len(counted) >= most:
        reason = counted[-1]["error"] or "the process died (out of memory, or a crash in native code)"
        raise ClusterError(f"{what} was given up after {len(counted)} tries, the last failed with: {reason}")
    if len(tries) >= most * (1 + LOST_RATIO):
        lost = len(tries) - len(counted)
        raise ClusterError(f"{what} was given up after {len(tries)} tries, in {lost} of which the machine was lost")

    def note(error: str) -> None:
        save_json(uri, {"tries": [*tries, {"node": place.node, "error": error}]})

    note("")
    deadline = Deadline(timeout_s, place.end_process, note)
    deadline.start()
    try:
        yield Trial(len(tries) + 1, deadline)
    except Exception as error:
        # Noted and raised again: whoever retries decides, and the next try may run in another process.
        note(f"{type(error).__name__}: {error}")
        raise
    finally:
        deadline.stop()


class ChunkAttempts:
    """Does one stage's work on chunks, under a count and a limit of its tries.

    Args:
        stage: its name.
        most: tries of one chunk.
        timeout_s: wall-clock limit of a try.
        place: where this runs.
    """

    def __init__(self, stage: str, most: int, timeout_s: float, place: Place) -> None:
        self._stage = stage
        self._most = most
        self._timeout_s = timeout_s
        self._place = place

    def __call__(self, chunk: Chunk, uri: str, failed_uri: str, work: Callable[[Chunk], Chunk]) -> Chunk:
        """Do one chunk's work; a failure that is ours becomes the chunk's `error`, storage is tried again.

        The first failure is published at `failed_uri`, and the job's other chunks take it over instead of failing one
        by one. A full disk is no fault of the job, and isn't published. Any other exception passes through: the
        caller's retries end at the same count.
        """
        what = f"frames {chunk.start} to {chunk.stop} of job {chunk.job.job_id}"
        failure: DreamheadError | None = None
        for number in range(self._most):
            if number:
                pause_before_retry(number)
            try:
                if storage.exists(failed_uri):
                    return replace(chunk, error=load_json(failed_uri)["error"])
                with attempt(uri, self._most, what, self._place, self._timeout_s) as trial:
                    return work(self._counted(chunk, trial.number))
            except DiskFullError as error:
                return replace(chunk, error=describe(error))
            except StorageError as error:
                logger.warning("%s: %s", what, error)
                failure = error
            except DreamheadError as error:
                failure = error
                break
        if failure is None:
            return chunk
        return replace(chunk, error=publish_failure(failed_uri, failure))

    def _counted(self, chunk: Chunk, number: int) -> Chunk:
        retries = {**chunk.retries, self._stage: number - 1} if number > 1 else chunk.retries
        return replace(chunk, attempt=number, retries=retries)


def retried(work: Callable[[], ResultT], most: int, what: str) -> ResultT:
    """Do some work, at most so many times while storage fails; a full disk isn't tried again."""
    for number in range(1, most):
        try:
            return work()
        except DiskFullError:
            raise
        except StorageError as error:
            logger.warning("%s: %s", what, error)
            pause_before_retry(number)
    return work()


def pause_before_retry(number: int) -> None:
    """Wait before storage is tried again, for the `number`-th time from 1."""
    time.sleep(RETRY_PAUSES_S[min(number, len(RETRY_PAUSES_S)) - 1])


def publish_failure(uri: str, error: DreamheadError) -> str:
    """Say for all runs to come why a job failed, unless it was storage, which may work again; returns the text."""
    text = describe(error)
    values: dict[str, Any] = {"error": text, "is_final": not isinstance(error, StorageError)}
    try:
        save_json(uri, values)
    except StorageError as unwritten:
        logger.warning("%s: the failure can't be noted: %s", uri, unwritten)
    return text
