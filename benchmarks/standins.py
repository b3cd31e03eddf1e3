"""Stages that take a fixed time instead of working: what is left is the farm itself. They note when they did what."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from dreamhead import storage
from dreamhead.cluster.actors import Batch, Rows, chunks_of, spans_from_json, to_rows
from dreamhead.cluster.flow import Stages
from dreamhead.cluster.pools import FINALIZE_CPUS
from dreamhead.config import DubSettings
from dreamhead.records import Chunk, Route, Span
from dreamhead.stages import results
from dreamhead.stages.artefacts import save_json
from dreamhead.stages.prepare import PreparedJob
from dreamhead.stages.results import Row, Tally
from dreamhead.stages.work import Work

COSTS = "costs.json"
READY = ""
"""Noted instead of a job once an actor can work."""


@dataclass(frozen=True)
class Event:
    """One piece of work: times are seconds of the machine's clock."""

    began_s: float
    ended_s: float
    job_id: str
    frames: int


class StandIn:
    """What the stand-ins share: their cost, and a file of their events in the work directory."""

    stage = ""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str) -> None:
        folder = Path(work_uri)
        self._cost_s = float(json.loads((folder / COSTS).read_text())[self.stage])
        self._events = (folder / f"events-{self.stage}-{os.getpid()}.jsonl").open("a", buffering=1)
        self._note(time.time(), READY, 0)

    def _spend(self, chunk: Chunk) -> float:
        began = time.time()
        time.sleep(self._cost_s)
        self._note(began, chunk.job.job_id, chunk.stop - chunk.start)
        return time.time() - began

    def _note(self, began_s: float, job_id: str, frames: int) -> None:
        self._events.write(json.dumps([began_s, time.time(), job_id, frames]) + "\n")


class Analyse(StandIn):
    """A span to one chunk a frame."""

    stage = "analyse"

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for text in batch["spans"]:
            for span in spans_from_json(str(text)):
                for chunk in _chunks(span):
                    yield to_rows(replace(chunk, seconds={self.stage: self._spend(chunk)}), self.stage)


class Landmarks(StandIn):
    """A chunk to itself."""

    stage = "landmarks"

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for chunk in chunks_of(batch):
            yield to_rows(replace(chunk, seconds={**chunk.seconds, self.stage: self._spend(chunk)}), self.stage)


class Render(StandIn):
    """A chunk to itself, as if this run had rendered it."""

    stage = "render"

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for chunk in chunks_of(batch):
            seconds = {**chunk.seconds, self.stage: self._spend(chunk)}
            yield to_rows(replace(chunk, seconds=seconds, attempt=1), self.stage)


STAGES = Stages(analyse=Analyse, landmarks=Landmarks, render=Render)


@ray.remote(num_cpus=FINALIZE_CPUS)
def finish(prepared: PreparedJob, work: Work, weights_digest: str, tally: Tally, clean: bool) -> Row:
    """Publish a byte as the job's output, and its result, so that the next run finds the job done."""
    job = prepared.job
    whole = Chunk(job=job, start=0, stop=prepared.frames, shot_start=0, shot_stop=prepared.frames, analysis_uri="")
    whole = replace(whole, dubbed_frames=prepared.frames, route_counts={Route.DUB.name: prepared.frames})
    digests = {"weights_digest": weights_digest, "settings_digest": ""}
    row = results.succeeded(job, [whole], tally, duration_s=prepared.duration_s, warnings=(), digests=digests)
    storage.write_bytes(job.output_uri, b"x")
    save_json(work.result_uri(job), {"output_uri": job.output_uri, "bytes": 1, "row": row})
    return row


def write_costs(folder: Path, **costs_s: float) -> None:
    """Seconds that each stage takes for a chunk; the stand-ins read them when they start."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COSTS).write_text(json.dumps(costs_s))


def read_events(folder: Path, stage: str) -> dict[str, list[Event]]:
    """Events by actor of one stage, in order, the first of each that it was ready."""
    paths = sorted(folder.glob(f"events-{stage}-*.jsonl"))
    return {path.stem: [Event(*json.loads(line)) for line in path.read_text().splitlines()] for path in paths}


def work_of(events: Iterable[Event]) -> list[Event]:
    """Without those of actors that became ready."""
    return [event for event in events if event.job_id != READY]


def _chunks(span: Span) -> Iterator[Chunk]:
    whole: dict[str, Any] = {"job": span.job, "shot_start": span.start, "shot_stop": span.stop, "analysis_uri": ""}
    for start in range(span.start, span.stop):
        yield Chunk(start=start, stop=start + 1, **whole)
