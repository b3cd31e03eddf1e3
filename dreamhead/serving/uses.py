"""Which jobs use which inputs: what was made of a video or a speech is shared by its jobs, and goes with the last one.

store/
  inputs/<id>.json                      a job's inputs by their digests
  uses/<kind>-<digest>/<id>             empty: this job uses this input
  uses/<kind>-<digest>/removing-<id>    somebody is about to remove what was made of it, since this job goes
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from dreamhead import storage
from dreamhead.config import Section
from dreamhead.errors import NotFoundError
from dreamhead.serving.jobs import Clock, is_id, utc_now

Kind = Literal["video", "audio"]

REMOVING = "removing-"
REMOVAL_S = 600.0
"""Longest time that a removal is waited for; after that its worker is taken for dead."""
LOOK_S = 0.2


class Input(Section):
    """One input of a job."""

    kind: Kind
    digest: str
    facts: tuple[str, ...]
    """Files in which is kept what probing found in it."""


class Inputs(Section):
    """Those of a job."""

    inputs: tuple[Input, ...]


class Uses:
    """Uses of inputs by the jobs of the store at one uri."""

    def __init__(self, store_uri: str, clock: Clock = utc_now) -> None:
        self._uri = store_uri
        self._clock = clock

    def add(self, job_id: str, inputs: Inputs) -> None:
        """Note a job's inputs, before anything that was made of them is looked at.

        Where that is being removed, it waits. A removal that began says so before it looks for other jobs; so either it
        sees this job, or this job sees it.
        """
        storage.write_bytes(self._inputs_uri(job_id), inputs.model_dump_json().encode())
        for one in inputs.inputs:
            storage.write_bytes(storage.join(self._folder(one), job_id), b"")
        for one in inputs.inputs:
            while self._is_being_removed(one):
                time.sleep(LOOK_S)

    def drop(self, job_id: str, remove: Callable[[Input], None]) -> None:
        """Let go of a job's inputs; `remove` is called with those that no other job uses."""
        try:
            noted = storage.read_bytes(self._inputs_uri(job_id))
        except NotFoundError:
            return
        for one in Inputs.model_validate_json(noted).inputs:
            folder = self._folder(one)
            removing = storage.join(folder, REMOVING + job_id)
            storage.delete(storage.join(folder, job_id))
            storage.write_bytes(removing, self._clock().isoformat().encode())
            if not any(is_id(name) for name in self._names(folder)):
                remove(one)
            storage.delete(removing)

    def forget(self, job_id: str) -> None:
        """The job won't be dropped again."""
        storage.delete(self._inputs_uri(job_id))

    def _is_being_removed(self, one: Input) -> bool:
        folder = self._folder(one)
        for name in self._names(folder):
            if name.startswith(REMOVING) and self._is_alive(storage.join(folder, name)):
                return True
        return False

    def _is_alive(self, uri: str) -> bool:
        try:
            began = datetime.fromisoformat(storage.read_bytes(uri).decode())
        except NotFoundError:
            return False
        return self._clock() - began < timedelta(seconds=REMOVAL_S)

    @staticmethod
    def _names(folder: str) -> list[str]:
        return [uri.rpartition("/")[2] for uri in storage.list_files(folder)]

    def _folder(self, one: Input) -> str:
        return storage.join(self._uri, "uses", f"{one.kind}-{one.digest}")

    def _inputs_uri(self, job_id: str) -> str:
        return storage.join(self._uri, "inputs", f"{job_id}.json")
