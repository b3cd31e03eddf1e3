"""The record of a run: lines of figures in a file, and the same as curves and pictures for TensorBoard."""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
from torch.utils.tensorboard import SummaryWriter

from dreamhead import storage
from dreamhead.training.task import Judgement

Line = dict[str, Any]


class Journal:
    """Writes `log.jsonl`, `pictures/` and `tensorboard/` below a directory uri.

    Args:
        uri: directory of the run's stage.
        step: the run goes on from here; what an interrupted one noted beyond is dropped.
        local: directory for TensorBoard's files: the one below `uri`, where that is a local path.
    """

    def __init__(self, uri: str, step: int, local: Path) -> None:
        self._uri = storage.join(uri, "log.jsonl")
        self._pictures_uri = storage.join(uri, "pictures")
        self._lines = [line for line in read_log(uri) if line["step"] <= step]
        self._local = local
        self._curves_uri = storage.join(uri, "tensorboard") if storage.is_remote(uri) else ""
        self._curves = SummaryWriter(str(local), purge_step=step + 1)

    def write(self, line: Line) -> None:
        """Add a line with `step`; its numbers become curves."""
        self._lines.append(line)
        self._save()
        for name, value in line.items():
            if name != "step":
                self._curves.add_scalar(f"training/{name}", value, line["step"])

    def judge(self, step: int, judgement: Judgement) -> None:
        """Add a validation's figures and pictures."""
        self._lines.append({"step": step, "validation": judgement.figures})
        self._save()
        for name, value in judgement.figures.items():
            self._curves.add_scalar(f"validation/{name}", value, step)
        for name, picture in judgement.pictures.items():
            self._curves.add_image(name, picture, step, dataformats="HWC")
            file = f"{step:08d}-{'-'.join(re.findall('[a-z0-9]+', name.lower()))}.jpg"
            _, encoded = cv2.imencode(".jpg", picture[..., ::-1])
            storage.write_bytes(storage.join(self._pictures_uri, file), encoded.tobytes())

    def publish(self) -> None:
        """Bring TensorBoard's files to where they can be looked at."""
        self._curves.flush()
        if self._curves_uri:
            for path in sorted(path for path in self._local.iterdir() if path.is_file()):
                storage.publish(path, storage.join(self._curves_uri, path.name))

    def close(self) -> None:
        """Publish the last of it."""
        self.publish()
        self._curves.close()

    def _save(self) -> None:
        storage.write_bytes(self._uri, "".join(json.dumps(line) + "\n" for line in self._lines).encode())


@contextmanager
def opened(uri: str, step: int) -> Iterator[Journal]:
    """The journal of a run that goes on from `step`."""
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) if storage.is_remote(uri) else storage.local_path(storage.join(uri, "tensorboard"))
        journal = Journal(uri, step, local)
        try:
            yield journal
        finally:
            journal.close()


def read_log(uri: str) -> list[Line]:
    """The lines of a run's log; none where there is no log yet."""
    log = storage.join(uri, "log.jsonl")
    if not storage.exists(log):
        return []
    return [json.loads(line) for line in storage.read_bytes(log).splitlines()]
