"""Plan and keep the books of a long manifest: seconds and memory of the driver, the stages replaced by instant ones.

    python -m benchmarks.planning [--videos 1000] [--speeches 10] [--most-s 60] [--most-mb 1000] [--chunks 1]

Every row has a video (shared by its speeches) and a speech of its own, tiny but real files, which are digested and
probed as always. The driver is the batch job's own: the manifest is read, jobs are checked, spans grouped, the graph
built, chunk rows counted, each job finished in a task, the results table kept. Only the three stages and the joining
do nothing. "Planned" is the time from reading the manifest to the first chunk out of the last pool, so with the
pools' start; Ray itself is started before. Memory is the driver process's peak resident set, of all phases. A second
run finds everything done. Fails when planning takes longer than `--most-s`, the driver more than `--most-mb`, a row
isn't there in the end, or the second run renders anything.
"""

import argparse
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.inputs import write_settings
from benchmarks.processes import environment
from benchmarks.report import Report
from benchmarks.standins import STAGES, finish, write_costs
from benchmarks.tiny_inputs import write_manifest, write_videos
from dreamhead.cluster.driver import BatchRun
from dreamhead.cluster.places import Places, find_places
from dreamhead.cluster.pools import Pools
from dreamhead.cluster.progress import BatchProgress
from dreamhead.cluster.session import ray_session
from dreamhead.cluster.table import ResultsTable
from dreamhead.records import Chunk
from dreamhead.stages.results import Row


@dataclass
class Marks:
    """Seconds from the begin of a run to what is told of it, and the driver's CPU seconds by then."""

    began_s: float = field(default_factory=time.monotonic)
    began_cpu_s: float = field(default_factory=time.process_time)
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the first and the last time, by what was told."""
    cpu_s: dict[str, float] = field(default_factory=dict)

    def mark(self, what: str) -> None:
        """It happened now."""
        passed_s, cpu_s = time.monotonic() - self.began_s, time.process_time() - self.began_cpu_s
        for name in (f"first {what}", f"last {what}"):
            if name not in self.seconds or name.startswith("last"):
                self.seconds[name], self.cpu_s[name] = passed_s, cpu_s


class MarkedProgress(BatchProgress):
    """Shows nothing, and marks when things happen."""

    def __init__(self, marks: Marks, jobs: int) -> None:
        super().__init__(Console(file=io.StringIO()), jobs)
        self._marks = marks

    def plan(self, jobs: int, frames: int, frames_done: int, pools: Pools) -> None:
        """All are checked."""
        self._marks.mark("plan")
        super().plan(jobs, frames, frames_done, pools)

    def chunk(self, chunk: Chunk) -> None:
        """One chunk came out."""
        self._marks.mark("chunk")
        super().chunk(chunk)

    def job(self, row: Row) -> None:
        """One job ended."""
        self._marks.mark("job")
        super().job(row)


def main() -> int:
    """Print the tables; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--speeches", type=int, default=10)
    parser.add_argument("--chunks", type=int, default=1, help="of each job")
    parser.add_argument("--most-s", type=float, default=60.0)
    parser.add_argument("--most-mb", type=float, default=1000.0)
    arguments = parser.parse_args()
    os.environ.update(environment())
    jobs = arguments.videos * arguments.speeches
    report = Report(f"A manifest of {jobs:,} rows")
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as name:
        folder = Path(name)
        manifest = write_manifest(
            folder, write_videos(folder, [arguments.chunks] * arguments.videos), arguments.speeches
        )
        write_settings(folder / "config.yaml")
        write_costs(folder / "work", analyse=0.0, landmarks=0.0, render=0.0)
        with ray_session(places_of(folder, manifest).settings.pools):
            first, rows = run(folder, manifest)
            again, rows_again = run(folder, manifest)
    report.table(["from the beginning to", "seconds", "driver's CPU, s"], _phases(first, again))
    report.table(["a row", "ms", "driver's CPU, ms"], _per_row(first, jobs))
    report.at_most("planned, seconds", first.seconds["first chunk"], arguments.most_s)
    report.at_most("driver's peak, MB", peak_bytes() / 1e6, arguments.most_mb)
    report.at_least("rows that succeeded", _succeeded(rows), jobs)
    report.at_most("rows rendered by the second run", sum(row["chunks_rendered"] for row in rows_again), 0)
    report.at_least("rows of the second run", _succeeded(rows_again), jobs)
    return report.exit_status


def places_of(folder: Path, manifest: Path) -> Places:
    """As the batch command finds them."""
    return find_places(
        str(manifest), config=folder / "config.yaml", checkpoint="", work=str(folder / "work"), results=str(folder)
    )


def run(folder: Path, manifest: Path) -> tuple[Marks, list[Row]]:
    """One run of the batch command's parts; when what happened, and the results."""
    marks = Marks()
    places = places_of(folder, manifest)
    marks.mark("manifest")
    table = ResultsTable(places.results_uri)
    with MarkedProgress(marks, len(places.manifest.jobs)) as progress:
        batch = BatchRun(places.settings, "", places.work_uri, table, progress, stages=STAGES, finish=finish)
        batch(places.manifest.jobs)
    table.write()
    marks.mark("table")
    return marks, table.rows


def peak_bytes() -> int:
    """This process's largest resident set so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _phases(first: Marks, again: Marks) -> Iterator[list[object]]:
    names = {
        "manifest read": "first manifest",
        "all rows checked": "first plan",
        "first chunk out of the pools": "first chunk",
        "last chunk": "last chunk",
        "last job finished": "last job",
        "results written": "last table",
    }
    for name, mark in names.items():
        yield [name, first.seconds[mark], first.cpu_s[mark]]
    yield ["all, of the finished manifest", again.seconds["last table"], again.cpu_s["last table"]]


def _per_row(first: Marks, jobs: int) -> Iterator[list[object]]:
    phases = {"check": ("first manifest", "first plan"), "chunk and end of job": ("first chunk", "last job")}
    for name, (begin, end) in phases.items():
        taken_s = (marks[end] - marks[begin] for marks in (first.seconds, first.cpu_s))
        yield [name, *(1000 * seconds / jobs for seconds in taken_s)]


def _succeeded(rows: list[Row]) -> int:
    return sum(row["status"] == "succeeded" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
