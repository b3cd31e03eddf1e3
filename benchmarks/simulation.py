"""What breaks first with 10, 100 and 1,000 GPUs: a simulation of one manifest of 10,000 rows, event by event.

    python -m benchmarks.simulation [--rows 10000] [--gpus 10 100 1000] [--frames-s 100]

No machine takes part: what one object costs was measured here (each constant names the command) or is assumed (and
says so); how thousands of them meet is worked out. Videos of a few minutes come in ten languages, analysed once.
Chunks go through the pools as on the farm: analysers that wait once enough chunks are ahead, landmarks, rendering,
a task that finalises each job; each step's row costs the one driver process its time, each chunk and job so many
requests to object storage, whose limits hold for one prefix. GPUs are spot machines, taken away and replaced.

The first table tells how busy each part was: what is near 100 % is what held the others up. The second one changes
what holds 1,000 GPUs up, one thing after the other. Fails when the whole cluster of the first table's smallest size
isn't used for `--least` of the time.
"""

import argparse
import heapq
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from benchmarks.report import Report
from dreamhead.cluster.backpressure import WAITING_RATIO
from dreamhead.cluster.pools import FINALIZE_CPUS, FINALIZE_SHARE, RENDER_GPUS_PER_LANDMARKS
from dreamhead.config import AnalysisSettings

LANGUAGES = 10
RATE = 25.0
MEDIAN_S, SPREAD = 300.0, 0.8
"""Assumed: log-normal lengths of the videos, in seconds."""

DRIVER_CHUNK_S, DRIVER_JOB_S = 0.0169, 0.0038
"""Driver's CPU of a chunk's three tasks and rows, and of a job's end: 0.0207 together in `python -m
benchmarks.planning`, and 0.173 with ten chunks a job (`--videos 50 --speeches 10 --chunks 10`)."""
CHECK_CPU_S, CHECKS_DRIVER_S = 0.004, 0.0001
"""CPU of checking one row: of the tasks under a profiler, of the driver by the same command."""
ANALYSE_FRAMES_S = 39.0
"""Of one core: `python -m benchmarks.pipeline`."""
SPEECH_CPU_S = 0.07
"""CPU a second of speech, encoded once for each row: two cores take 1.1 s for 30 s."""
LANDMARKS_FRAMES_S = 2000.0
"""Assumed for a share of a GPU; 307 were measured on two cores by the same command."""
FINALIZE_FRAMES_S = 168.0
"""Of one core, the review included: the same command."""
WRITES_CHUNK, READS_CHUNK = 5, 15
"""Requests: `python -m benchmarks.storage_requests`."""
WRITES_JOB, READS_JOB = 12, 52
"""The same."""
S3_WRITES_S, S3_READS_S = 3500.0, 5500.0
"""What S3 promises for one prefix; it splits prefixes by itself, but not within minutes."""
TAKEN_AN_HOUR = 0.05
"""Assumed: share of the spot GPUs that are taken away within an hour."""
REPLACED_S = 240.0
"""Assumed: until another machine is there and its actor has loaded the networks."""


@dataclass(frozen=True)
class Farm:
    """A cluster and how it is used."""

    gpus: int
    frames_s: float
    """Of one GPU's render actor, decoding and encoding included."""
    cpus_a_gpu: float = 4.0
    drivers: int = 1
    """Manifests that run side by side, each with a driver of its own."""
    chunk_s: float = 10.0
    span_s: float = AnalysisSettings().span_s
    gpus_a_landmarks_actor: int = RENDER_GPUS_PER_LANDMARKS
    prefixes: int = 1
    """Over which storage spreads the work directory."""
    finalize_share: float = FINALIZE_SHARE

    @property
    def cpus(self) -> float:
        """Of the cluster."""
        return max(2.0, self.gpus * self.cpus_a_gpu)


@dataclass
class Server:
    """Takes one request after the other."""

    share: float = 1.0
    """So many of them work side by side, as one that is as much faster."""
    free_s: float = 0.0
    busy_s: float = 0.0

    def serve(self, now_s: float, cost_s: float) -> float:
        """When a request that comes now is done."""
        taken_s = cost_s / self.share
        self.busy_s += taken_s
        self.free_s = max(now_s, self.free_s) + taken_s
        return self.free_s


@dataclass
class Pool:
    """Workers, and what waits for them."""

    size: int
    free: int = 0
    busy_s: float = 0.0
    waiting: deque["Chunk"] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.free = self.size


@dataclass
class Job:
    """One row: a video in one language."""

    frames: float
    chunks: int
    left: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a job; `walk_s` is what it takes to analyse."""

    job: Job
    frames: float
    walk_s: float


class Simulation:
    """One manifest on one farm, from the first row to the last output."""

    def __init__(self, farm: Farm, rows: int) -> None:
        self._farm = farm
        self._rows = rows
        self._random = random.Random(0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.now_s = 0.0
        room = farm.cpus * (1 - farm.finalize_share)
        self.driver = Server(farm.drivers)
        self.writes, self.reads = Server(S3_WRITES_S * farm.prefixes), Server(S3_READS_S * farm.prefixes)
        self.analyse = Pool(max(1, int(room)))
        self.landmarks = Pool(max(1, -(-farm.gpus // farm.gpus_a_landmarks_actor)))
        self.render = Pool(farm.gpus)
        self.finalize = Pool(max(1, int(farm.cpus * farm.finalize_share / FINALIZE_CPUS)))
        self._groups = deque(self._videos(rows))
        self._paused: list[deque[Chunk]] = []
        self._ahead = 0

    def run(self) -> None:
        """Until nothing is left to do."""
        checked_s = self._rows * max(CHECK_CPU_S / self._farm.cpus, CHECKS_DRIVER_S / self._farm.drivers)
        for _ in range(self.analyse.size):
            self._at(checked_s, lambda: self._walk(deque()))
        while self._events:
            self.now_s, _, event = heapq.heappop(self._events)
            event()

    def busy(self) -> dict[str, float]:
        """Share of the time that each part worked."""
        pools = {"render": self.render, "analyse": self.analyse, "landmarks": self.landmarks}
        shares = {name: pool.busy_s / pool.size / self.now_s for name, pool in pools.items()}
        shares["finalize"] = self.finalize.busy_s / self.finalize.size / self.now_s
        servers = {"driver": self.driver, "storage writes": self.writes, "storage reads": self.reads}
        return shares | {name: server.busy_s / self.now_s for name, server in servers.items()}

    def _videos(self, rows: int) -> list[deque[Chunk]]:
        """Chunks of each span of each video, one language after the other; the longest video first."""
        lengths = [self._random.lognormvariate(0, SPREAD) * MEDIAN_S for _ in range(-(-rows // LANGUAGES))]
        return [group for length_s in sorted(lengths, reverse=True) for group in self._spans(length_s)]

    def _spans(self, length_s: float) -> Iterator[deque[Chunk]]:
        spans = math.ceil(length_s / self._farm.span_s)
        pieces = max(1, round(length_s / spans / self._farm.chunk_s))
        seconds = length_s / spans / pieces
        jobs = [Job(length_s * RATE, spans * pieces, spans * pieces) for _ in range(LANGUAGES)]
        for _ in range(spans):
            chunks: deque[Chunk] = deque()
            for language, job in enumerate(jobs):
                walk_s = seconds * SPEECH_CPU_S + (0.0 if language else seconds * RATE / ANALYSE_FRAMES_S)
                chunks.extend(Chunk(job, seconds * RATE, walk_s) for _ in range(pieces))
            yield chunks

    def _at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def _tell_driver(self, cost_s: float, event: Callable[[], None]) -> None:
        self._at(self.driver.serve(self.now_s, cost_s), event)

    def _walk(self, group: deque[Chunk]) -> None:
        """An analyser goes on with its video, takes the next one, or waits while enough chunks are ahead."""
        if self._ahead > WAITING_RATIO * (self.render.size + self.landmarks.size):
            self._paused.append(group)
            return
        if not group:
            if not self._groups:
                return
            group = self._groups.popleft()
        chunk = group.popleft()
        self._ahead += 1
        self.analyse.busy_s += chunk.walk_s
        self._at(self.now_s + chunk.walk_s, lambda: self._walked(chunk, group))

    def _walked(self, chunk: Chunk, group: deque[Chunk]) -> None:
        self._walk(group)
        self._tell_driver(DRIVER_CHUNK_S / 3, lambda: self._enter(self.landmarks, chunk, self._make_landmarks))

    def _enter(self, pool: Pool, chunk: Chunk, begin: Callable[[Chunk], None]) -> None:
        pool.waiting.append(chunk)
        self._begin(pool, begin)

    def _begin(self, pool: Pool, begin: Callable[[Chunk], None]) -> None:
        while pool.free and pool.waiting:
            pool.free -= 1
            begin(pool.waiting.popleft())

    def _make_landmarks(self, chunk: Chunk) -> None:
        seconds = chunk.frames / LANDMARKS_FRAMES_S
        self.landmarks.busy_s += seconds

        def done() -> None:
            self.landmarks.free += 1
            self._begin(self.landmarks, self._make_landmarks)
            self._tell_driver(DRIVER_CHUNK_S / 3, lambda: self._enter(self.render, chunk, self._paint))

        self._at(self.now_s + seconds, done)

    def _paint(self, chunk: Chunk) -> None:
        seconds = chunk.frames / self._farm.frames_s
        lost_s = self._random.expovariate(TAKEN_AN_HOUR / 3600)
        self._ahead -= 1
        if self._paused:
            self._walk(self._paused.pop())
        if lost_s < seconds:
            self._at(self.now_s + lost_s, lambda: self._lose(chunk))
            return
        self.render.busy_s += seconds
        self._at(self.now_s + seconds, lambda: self._painted(chunk))

    def _lose(self, chunk: Chunk) -> None:
        """The machine is taken away: another one does the chunk again, and this one's place stays empty for a while."""
        self._ahead += 1
        self.render.waiting.appendleft(chunk)
        self._begin(self.render, self._paint)
        self._at(self.now_s + REPLACED_S, self._replaced)

    def _replaced(self) -> None:
        self.render.free += 1
        self._begin(self.render, self._paint)

    def _painted(self, chunk: Chunk) -> None:
        """Published: storage must have taken the chunk before its actor is free again."""
        stored_s = max(self.writes.serve(self.now_s, WRITES_CHUNK), self.reads.serve(self.now_s, READS_CHUNK))

        def done() -> None:
            self.render.free += 1
            self._begin(self.render, self._paint)
            self._tell_driver(DRIVER_CHUNK_S / 3, lambda: self._count(chunk))

        self._at(stored_s, done)

    def _count(self, chunk: Chunk) -> None:
        chunk.job.left -= 1
        if not chunk.job.left:
            self._enter(self.finalize, chunk, self._join)

    def _join(self, chunk: Chunk) -> None:
        seconds = chunk.job.frames / FINALIZE_FRAMES_S
        self.finalize.busy_s += seconds
        self.writes.serve(self.now_s, WRITES_JOB)
        # Each chunk is read once more.
        self.reads.serve(self.now_s, READS_JOB + chunk.job.chunks)

        def done() -> None:
            self.finalize.free += 1
            self._begin(self.finalize, self._join)
            self._tell_driver(DRIVER_JOB_S, lambda: None)

        self._at(self.now_s + seconds, done)


def main() -> int:
    """Print the tables; 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--frames-s", type=float, default=100.0, help="of one GPU; assumed")
    parser.add_argument("--least", type=float, default=0.9)
    arguments = parser.parse_args()
    report = Report(f"Simulation: {arguments.rows:,} rows, {arguments.frames_s:g} frames/s a GPU")
    farms = {f"{gpus:,} GPUs": Farm(gpus, arguments.frames_s) for gpus in arguments.gpus}
    shares = simulate(report, farms, arguments.rows)
    simulate(report, changed(Farm(max(arguments.gpus), arguments.frames_s)), arguments.rows)
    report.at_least(f"render pool busy with {arguments.gpus[0]} GPUs", shares[0]["render"], arguments.least)
    return report.exit_status


def changed(farm: Farm) -> dict[str, Farm]:
    """The same farm, and one change after the other on top."""
    steps: Sequence[tuple[str, dict[str, float]]] = (
        ("chunks of 30 s", {"chunk_s": 30.0}),
        ("and 4 manifests side by side", {"drivers": 4}),
        ("and a landmarks actor for 16 GPUs", {"gpus_a_landmarks_actor": 16}),
        ("and spans of 2 minutes", {"span_s": 120.0}),
    )
    farms = {f"{farm.gpus:,} GPUs": farm}
    for name, change in steps:
        farm = replace(farm, **change)
        farms[name] = farm
    return farms


def simulate(report: Report, farms: dict[str, Farm], rows: int) -> list[dict[str, float]]:
    """A table of farms; how busy the parts of each were."""
    lines, all_shares = [], []
    for name, farm in farms.items():
        simulation = Simulation(farm, rows)
        simulation.run()
        shares = simulation.busy()
        all_shares.append(shares)
        fullest = max(shares, key=lambda part: shares[part])
        lines.append([name, simulation.now_s / 3600, *(f"{share:.0%}" for share in shares.values()), fullest])
    report.table(["", "hours", *all_shares[0], "held up by"], lines)
    return all_shares


if __name__ == "__main__":
    sys.exit(main())
