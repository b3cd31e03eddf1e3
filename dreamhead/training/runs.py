"""What one stage of a run leaves in storage: its settings, checkpoints, the best of them, and the network at the end.

settings.json       what the run was begun with
checkpoints/        00000200.pt and so on, each complete in itself
best.json           which checkpoint was judged best, and how
sharpness.json      how much detail each clip's mouth has, where that counts
log.jsonl           a line every few steps, and one for each validation
tensorboard/        the same as curves, with pictures
pictures/           the validations' pictures, JPEG
network/            the finished network, as diffusers saves it
finished.json       written last
running.json        while a call is at work here; dreamhead.cluster writes it
"""

import json
import pickle
import tempfile
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import torch
from pydantic import BaseModel

from dreamhead import storage
from dreamhead.errors import TrainingError

State = dict[str, Any]

MAY_CHANGE = (
    *("steps", "minutes", "save_every", "keep"),
    *("log_every", "validate_every", "validation_clips", "data_workers"),
)
"""Settings of a loop that may differ between two calls that go on with each other."""


class Best(BaseModel):
    """The checkpoint that validation liked best."""

    step: int
    score: float
    figures: dict[str, float]


class RunFolder:
    """One stage of a run below a directory uri, local or in object storage; each file appears whole or not at all."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def begin(self, record: State) -> None:
        """Note what the run is begun with; where it is there already, it must be the same but for more steps.

        Args:
            record: plain values; `settings` are those of the stage, and its `loop.steps` may grow.

        Raises:
            TrainingError: names the first key that differs, with both values.
        """
        uri = storage.join(self.uri, "settings.json")
        if storage.exists(uri):
            old = json.loads(storage.read_bytes(uri))
            if difference := _difference(_what_counts(old), _what_counts(record)):
                raise TrainingError(f"{self.uri}: a run of this name is there, with other settings: {difference}")
            before, now = old["settings"]["loop"]["steps"], record["settings"]["loop"]["steps"]
            if now < before:
                raise TrainingError(f"{self.uri}: loop.steps may only grow: the run has {before}, the settings {now}")
        storage.write_bytes(uri, json.dumps(record, indent=2).encode() + b"\n")

    def record(self) -> State:
        """What `begin` noted last."""
        return cast(State, json.loads(storage.read_bytes(storage.join(self.uri, "settings.json"))))

    def detail(self) -> dict[str, float]:
        """What `keep_detail` noted: by clip, how much detail its mouth has; nothing where that wasn't measured yet."""
        uri = storage.join(self.uri, "sharpness.json")
        return cast(dict[str, float], json.loads(storage.read_bytes(uri))) if storage.exists(uri) else {}

    def keep_detail(self, detail: dict[str, float]) -> None:
        """Note it: for people, and so that a run that goes on needn't measure again."""
        uri = storage.join(self.uri, "sharpness.json")
        storage.write_bytes(uri, json.dumps(detail, indent=1).encode() + b"\n")

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, ascending."""
        names = [uri.rpartition("/")[2] for uri in storage.list_files(storage.join(self.uri, "checkpoints"))]
        return sorted(int(name[:-3]) for name in names if name.endswith(".pt") and name[:-3].isdigit())

    def save(self, step: int, state: State) -> None:
        """Publish a checkpoint: nested dictionaries of tensors and plain values."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.pt"
            torch.save(state, path)
            storage.publish(path, self._checkpoint(step))

    def load(self, step: int) -> State:
        """Read a checkpoint onto the CPU; raises TrainingError where it is damaged."""
        uri = self._checkpoint(step)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.pt"
            storage.fetch(uri, path)
            try:
                return cast(State, torch.load(path, map_location="cpu", weights_only=True))
            except (RuntimeError, OSError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
                reason = str(error).partition("\n")[0]
                raise TrainingError(f"{uri}: damaged; delete it to go on from the one before: {reason}") from error

    def forget(self, keep: int) -> None:
        """Delete all checkpoints but the newest `keep` and the best one."""
        best = self.best()
        steps = self.steps()
        for step in steps[:-keep]:
            if best is None or step != best.step:
                storage.delete(self._checkpoint(step))

    def best(self) -> Best | None:
        """The checkpoint that was judged best so far."""
        uri = storage.join(self.uri, "best.json")
        return Best.model_validate_json(storage.read_bytes(uri)) if storage.exists(uri) else None

    def judge(self, step: int, score: float, figures: dict[str, float]) -> None:
        """Note a judgement, if it is better than all before; one that is no number never is."""
        best = self.best()
        if score == score and (best is None or score > best.score):
            found = Best(step=step, score=score, figures=figures)
            storage.write_bytes(storage.join(self.uri, "best.json"), found.model_dump_json().encode() + b"\n")

    @property
    def network_uri(self) -> str:
        """Directory of the finished network."""
        return storage.join(self.uri, "network")

    def finished(self) -> State | None:
        """What `finish` noted; None while there is something left to do."""
        uri = storage.join(self.uri, "finished.json")
        return cast(State, json.loads(storage.read_bytes(uri))) if storage.exists(uri) else None

    def finish(self, network: Path, note: State) -> None:
        """Publish the network's files, then the note that says so; `note` holds `step`, the run's last."""
        marker = storage.join(self.uri, "finished.json")
        storage.delete(marker)
        for path in sorted(path for path in network.rglob("*") if path.is_file()):
            storage.publish(path, storage.join(self.network_uri, path.relative_to(network).as_posix()))
        storage.write_bytes(marker, json.dumps(note, indent=2).encode() + b"\n")

    def _checkpoint(self, step: int) -> str:
        return storage.join(self.uri, "checkpoints", f"{step:08d}.pt")


def _what_counts(record: State) -> State:
    """The record without what may differ between two calls that go on with each other."""
    counted = json.loads(json.dumps(record))
    # The same data and the same weights may have moved.
    counted.pop("data", None)
    if isinstance(counted.get("autoencoder"), dict):
        counted["autoencoder"].pop("uri", None)
    for name in MAY_CHANGE:
        counted["settings"]["loop"].pop(name, None)
    return cast(State, counted)


def _difference(old: Any, new: Any, key: str = "") -> str:
    """The first place where two nested values differ, in words; empty where none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            where = f"{key}.{name}" if key else name
            if found := _difference(old.get(name), new.get(name), where):
                return found
        return ""
    return "" if old == new else f"{key}: the run has {old!r}, now it is {new!r}"
