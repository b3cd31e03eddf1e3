"""A stage doesn't run ahead of the next one, though that is slow or not there yet, and nothing stands still."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamhead.cluster.actors import Batch, Rows, chunks_of, spans_from_json, to_rows
from dreamhead.cluster.backpressure import WAITING_RATIO
from dreamhead.cluster.flow import Stages, flow
from dreamhead.cluster.pools import Pools
from dreamhead.config import DubSettings, PoolSettings
from dreamhead.records import Chunk, Job, Span

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning"),
]

CHUNKS = 40
ONE = PoolSettings(min_size=1, max_size=1, num_cpus=0.5)
RENDERERS = 2
WATCHED_S = 5.0
"""Below the ten seconds after which Ray lets one more row through when nothing moves."""


class Quick:
    """A stage that only notes what it does, in a file of its own."""

    stage = ""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str) -> None:
        self._notes = Path(work_uri) / self.stage

    def _note(self, chunk: Chunk) -> None:
        with self._notes.open("a") as notes:
            notes.write(f"{chunk.job.job_id} {chunk.start}\n")


class Analyse(Quick):
    """A span to one chunk a frame."""

    stage = "analyse"

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for span in (span for text in batch["spans"] for span in spans_from_json(str(text))):
            for start in range(span.start, span.stop):
                chunk = Chunk(
                    job=span.job,
                    start=start,
                    stop=start + 1,
                    shot_start=span.start,
                    shot_stop=span.stop,
                    analysis_uri="",
                )
                self._note(chunk)
                yield to_rows(chunk, "analyse")


class Landmarks(Quick):
    """A chunk to itself."""

    stage = "landmarks"

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for chunk in chunks_of(batch):
            self._note(chunk)
            yield to_rows(chunk, "landmarks")


class LateRender(Quick):
    """A chunk to itself, by an actor that isn't ready before it is told."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str) -> None:
        super().__init__(settings, checkpoint_uri, work_uri)
        while not (Path(work_uri) / "go").exists():
            time.sleep(0.05)

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        for chunk in chunks_of(batch):
            yield to_rows(chunk, "render")


def test_what_waits_for_a_pool_that_starts_is_bounded(ray_session: None, tmp_path: Path) -> None:
    jobs = [Job(job_id=f"job{index}", row=index, video_uri="v", audio_uri="a", output_uri="o") for index in range(2)]
    groups = [[Span(job=job, start=0, stop=CHUNKS)] for job in jobs]
    renderers = ONE.model_copy(update={"min_size": RENDERERS, "max_size": RENDERERS})
    pools = Pools(analyse=ONE, landmarks=ONE, render=renderers)
    constructor = (DubSettings(), "", str(tmp_path))
    stages = Stages(analyse=Analyse, landmarks=Landmarks, render=LateRender)
    with ThreadPoolExecutor(1) as executor:
        run = executor.submit(lambda: list(flow(groups, pools, constructor, stages)))
        try:
            made = settled(tmp_path / "landmarks", run)
        finally:
            (tmp_path / "go").touch()
        chunks = run.result()
    # Those that wait, and the one in the hand of the stage before.
    assert WAITING_RATIO * RENDERERS <= made <= WAITING_RATIO * RENDERERS + 1
    assert sorted((chunk.job.job_id, chunk.start) for chunk in chunks) == [
        (job.job_id, start) for job in jobs for start in range(CHUNKS)
    ]


def settled(notes: Path, run: "Future[list[Chunk]]") -> int:
    """Lines of a file once it hasn't grown for a while."""
    deadline_s = time.monotonic() + 120
    lines, since_s = 0, time.monotonic()
    while time.monotonic() < deadline_s and not run.done():
        now = len(notes.read_text().splitlines()) if notes.exists() else 0
        if now != lines:
            lines, since_s = now, time.monotonic()
        elif lines and time.monotonic() - since_s > WATCHED_S:
            return lines
        time.sleep(0.1)
    if run.done():
        run.result()
    raise AssertionError(f"{notes} still grows, or never began: {lines} lines")
