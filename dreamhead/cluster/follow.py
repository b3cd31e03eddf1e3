"""Follow a training that runs on other machines, by what it writes to storage."""

import json
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.train.v2.api.callback import UserCallback

from dreamhead import storage
from dreamhead.cluster.training_progress import TrainingProgress
from dreamhead.errors import StorageError
from dreamhead.training.journal import read_log

LOOK_EVERY_S = 2.0
LONGEST_REASON = 200
"""Characters; Ray's own advice is longer."""


class RestartNotes(UserCallback):
    """Notes in the folder of a run's stage that workers failed; Ray calls it where its controller runs.

    Args:
        uri: directory of the stage.
    """

    def __init__(self, uri: str) -> None:
        self._uri = storage.join(uri, "restarts.jsonl")

    def read(self) -> list[str]:
        """What was noted, the oldest first."""
        if not storage.exists(self._uri):
            return []
        return [json.loads(line)["reason"] for line in storage.read_bytes(self._uri).splitlines()]

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """One or more workers failed."""
        reasons = [f"worker {rank}: {last_line(error)}" for rank, error in sorted(worker_exceptions.items())]
        lines = [json.dumps({"reason": reason}) + "\n" for reason in [*self.read(), "; ".join(reasons)]]
        storage.write_bytes(self._uri, "".join(lines).encode())


@contextmanager
def followed(uri: str, notes: RestartNotes, progress: TrainingProgress) -> Iterator[None]:
    """Tell of a stage's log and restarts as they are written, from now to the end of the block."""
    told = _Told(uri, notes, progress)
    done = threading.Event()
    thread = threading.Thread(target=_look, args=(told, done), name="follow-training", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        told.look()


def last_line(error: Exception) -> str:
    """What an error says in the end, not too long: those of workers begin with a traceback."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[-1] if lines else type(error).__name__, LONGEST_REASON, placeholder=" ...")


class _Told:
    """What was told already: a restart goes back some steps, whose lines come twice."""

    def __init__(self, uri: str, notes: RestartNotes, progress: TrainingProgress) -> None:
        self._uri = uri
        self._notes = notes
        self._progress = progress
        self._steps = {_key(line) for line in read_log(uri)}
        self._restarts = len(notes.read())

    def look(self) -> None:
        """Tell what is new."""
        try:
            lines, restarts = read_log(self._uri), self._notes.read()
        except StorageError:
            # It is only the telling that fails; what is written stays, and is told the next time.
            return
        for reason in restarts[self._restarts :]:
            self._progress.say(f"workers are started again, from the last checkpoint: {reason}")
        self._restarts = len(restarts)
        for line in lines:
            if _key(line) not in self._steps:
                self._steps.add(_key(line))
                self._progress.note(line)


def _key(line: dict[str, Any]) -> tuple[int, bool]:
    return line["step"], "validation" in line


def _look(told: _Told, done: threading.Event) -> None:
    while not done.wait(LOOK_EVERY_S):
        told.look()
