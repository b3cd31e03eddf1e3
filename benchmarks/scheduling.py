"""How well eight logical nodes are used: the batch job's driver and graph on stages of fixed cost and uneven jobs.

    python -m benchmarks.scheduling [--jobs 40] [--nodes 8] [--render-s 2.5] [--least 0.9]

The nodes are Ray's own for tests, on this machine, each with one CPU and one GPU that isn't there; the head works
nothing. Stages sleep: a chunk takes 0.2 s to analyse, 0.05 s for its landmarks, `--render-s` to render. Ray Data looks
every tenth of a second for what ended, and an actor waits so long for its next chunk: shorter chunks cost more. Jobs
have 1 to 120 chunks, drawn from a log-normal distribution with a fixed seed; spans are of 60 chunks. Everything else is
the real thing: checks, longest first, Ray Data's graph and pools, the ends of jobs.

Start-up ends once all actors of the render pool could work. From there the ideal is the work that was left, of the
pool that has most of it for each of its actors, or one span's own chain where that is longer. Efficiency is the ideal
over what it took. Two more figures: the most chunks that waited for rendering (a fast stage must not run ahead over
all videos), and how much of all frames belonged to finished videos at half time (videos must appear as they finish).
Fails where one of the three misses its target.
"""

import argparse
import io
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from benchmarks.inputs import write_settings
from benchmarks.processes import environment
from benchmarks.report import Report
from benchmarks.standins import STAGES, Event, finish, read_events, work_of, write_costs
from benchmarks.tiny_inputs import write_manifest, write_videos
from dreamhead.cluster.backpressure import WAITING_RATIO
from dreamhead.cluster.driver import BatchRun
from dreamhead.cluster.places import find_places
from dreamhead.cluster.progress import BatchProgress
from dreamhead.cluster.session import LOCAL_OBJECT_STORE_BYTES
from dreamhead.cluster.table import ResultsTable
from dreamhead.stages.results import Row

SPAN_CHUNKS = 60
MOST_CHUNKS = 120
ANALYSE_S, LANDMARKS_S = 0.2, 0.05
ANALYSERS, LANDMARKERS = 4, 2
LEAST_FINISHED = 0.3
"""Share of all frames in finished videos at half time; with jobs that all end at the end it is 0."""

Events = Mapping[str, Sequence[Event]]
"""Of one pool, by actor."""


class TimedProgress(BatchProgress):
    """Shows nothing, and keeps when each job ended."""

    def __init__(self, jobs: int) -> None:
        super().__init__(Console(file=io.StringIO()), jobs)
        self.began_s = time.time()
        self.ended: list[tuple[float, int]] = []
        """Second of the machine's clock, and frames."""

    def job(self, row: Row) -> None:
        """One job ended."""
        self.ended.append((time.time(), row["frames"] or 0))
        super().job(row)


def main() -> int:
    """Print the tables; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--render-s", type=float, default=2.5, help="ten seconds of video at 100 frames a second")
    parser.add_argument("--least", type=float, default=0.9)
    arguments = parser.parse_args()
    os.environ.update(environment())
    chunks = job_lengths(arguments.jobs)
    report = Report(f"Scheduling on {arguments.nodes} logical nodes: {arguments.jobs} jobs, {sum(chunks)} chunks")
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as name:
        folder = Path(name)
        manifest = write_manifest(folder, write_videos(folder, chunks), 1)
        write_config(folder, arguments.nodes)
        write_costs(folder / "work", analyse=ANALYSE_S, landmarks=LANDMARKS_S, render=arguments.render_s)
        with cluster(arguments.nodes):
            progress, rows = run(folder, manifest)
        pools = {stage: read_events(folder / "work", stage) for stage in ("analyse", "landmarks", "render")}
    tell(report, pools, progress, arguments.least)
    report.at_least("jobs that succeeded", sum(row["status"] == "succeeded" for row in rows), arguments.jobs)
    return report.exit_status


def job_lengths(jobs: int) -> list[int]:
    """Chunks of each job: many short ones, a few long ones."""
    drawn = np.random.default_rng(0).lognormal(mean=2.3, sigma=0.9, size=jobs)
    return [min(MOST_CHUNKS, max(1, round(float(length)))) for length in drawn]


def write_config(folder: Path, nodes: int) -> None:
    """A GPU of each node renders; what it has left is for landmarks."""
    pools = {
        "analyse": {"min_size": ANALYSERS, "max_size": ANALYSERS, "num_cpus": 1.0},
        "landmarks": {"min_size": LANDMARKERS, "max_size": LANDMARKERS, "num_cpus": 0.0, "num_gpus": 0.2},
        "render": {"min_size": nodes, "max_size": nodes, "num_cpus": 0.0, "num_gpus": 0.8},
    }
    write_settings(folder / "config.yaml", device="auto", analysis={"span_s": SPAN_CHUNKS}, pools=pools)


@contextmanager
def cluster(nodes: int) -> Iterator[None]:
    """Ray on logical nodes, this process connected."""
    memory = LOCAL_OBJECT_STORE_BYTES // 2
    logical = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": memory})
    try:
        for _ in range(nodes):
            logical.add_node(num_cpus=1, num_gpus=1, object_store_memory=memory)
        ray.init(address=logical.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        ray.shutdown()
        logical.shutdown()


def run(folder: Path, manifest: Path) -> tuple[TimedProgress, list[Row]]:
    """The batch job with stand-ins."""
    places = find_places(
        str(manifest), config=folder / "config.yaml", checkpoint="", work=str(folder / "work"), results=str(folder)
    )
    table = ResultsTable(places.results_uri)
    with TimedProgress(len(places.manifest.jobs)) as progress:
        batch = BatchRun(places.settings, "", places.work_uri, table, progress, stages=STAGES, finish=finish)
        batch(places.manifest.jobs)
    return progress, table.rows


def tell(report: Report, pools: Mapping[str, Events], progress: TimedProgress, least: float) -> None:
    """Figures of a run."""
    rendered = [event for events in pools["render"].values() for event in work_of(events)]
    first_s, end_s = min(event.began_s for event in rendered), max(event.ended_s for event in rendered)
    ready_s = max(first_s, *(events[0].ended_s for events in pools["render"].values()))
    left = {name: busy_s(events, ready_s, end_s) for name, events in pools.items()}
    ideal_s = {name: left[name] / len(events) for name, events in pools.items()}
    rows = [[name, len(events), left[name], ideal_s[name]] for name, events in pools.items()]
    report.table(["pool", "actors", "work beyond start-up, s", "a share of it, s"], rows)
    halfway_s = (ready_s + end_s) / 2
    by_half = sum(frames for ended_s, frames in progress.ended if ended_s <= halfway_s)
    most = most_waiting(pools["analyse"], pools["render"])
    report.table(
        ["start-up, s", "beyond it, s", "jobs finished at half time", "most chunks waiting"],
        [
            [
                ready_s - progress.began_s,
                end_s - ready_s,
                sum(ended_s <= halfway_s for ended_s, _ in progress.ended),
                most,
            ]
        ],
    )
    report.at_least("efficiency", max(*ideal_s.values(), chain_s(pools)) / (end_s - ready_s), least)
    allowed = waiting_allowed(len(pools["landmarks"]), len(pools["render"]))
    report.at_most("chunks that waited between analysis and rendering", most, allowed)
    finished = by_half / sum(frames for _, frames in progress.ended)
    report.at_least("share of frames in videos finished at half time", finished, LEAST_FINISHED)


def busy_s(events: Events, begin_s: float, end_s: float) -> float:
    """Seconds that all actors of a pool worked within [begin_s, end_s)."""
    parts = (event for actor in events.values() for event in work_of(actor))
    return sum(max(0.0, min(event.ended_s, end_s) - max(event.began_s, begin_s)) for event in parts)


def chain_s(pools: Mapping[str, Events]) -> float:
    """What the last chunk of a whole span needs by itself: its span's walk up to it, then the other two stages."""
    walks = [len(work_of(events)) for events in pools["analyse"].values()]
    means = {name: busy_s(events, 0.0, float("inf")) / _count(events) for name, events in pools.items()}
    return min(SPAN_CHUNKS, max(walks)) * means["analyse"] + means["landmarks"] + means["render"]


def most_waiting(analysed: Events, rendered: Events) -> int:
    """Most chunks at any time that were analysed, and whose rendering hadn't begun."""
    came = [(event.ended_s, 1) for events in analysed.values() for event in work_of(events)]
    went = [(event.began_s, -1) for events in rendered.values() for event in work_of(events)]
    return max(accumulate(step for _, step in sorted(came + went)))


def waiting_allowed(landmarkers: int, renderers: int) -> int:
    """Chunks that back-pressure lets wait: each of two queues, and one in each hand between and before them."""
    hands = ANALYSERS + landmarkers + renderers
    return WAITING_RATIO * (landmarkers + renderers) + hands


def _count(events: Events) -> int:
    return max(1, sum(len(work_of(actor)) for actor in events.values()))


if __name__ == "__main__":
    sys.exit(main())
