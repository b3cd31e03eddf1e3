"""Load on the online service: real clips at rising rates, then hours of kills.

    python -m benchmarks.serve --clips DIR --speeches DIR [--rates 2,6,12] [--minutes 3] [--picture FILE.png]
    python -m benchmarks.serve --clips DIR --speeches DIR --soak-minutes 30 [--rates 4]

Starts Ray and the service of `serve_config.yaml` on this machine, in a storage of its own, with the bundled weights.
Rates are jobs a minute: each for `--minutes`, a job a clip with a speech, uploaded, of which the first `--segment-s`
seconds are dubbed, and the rest passes through. Each job is a client of its own: it uploads, opens the stream as soon
as there is one, waits for the end and downloads the result. A client that is answered 429 goes away: it counts as
refused. Anything else that isn't a result is an error.

Times are seconds from the begin of the upload. The picture shows, over time, the jobs that wait and run and the
replicas of each stage. `--soak-minutes` keeps to the first rate and kills a replica of a stage, the workers or the API
each minute, with `--pairs` of a clip and a speech that come again and again: every job that was accepted must end with
the same file as any other of its pair. Fails on any error, and in a soak on a job that is lost or differs.
"""

import argparse
import hashlib
import itertools
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import requests
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ray import serve
from ray.serve.schema import ServeDeploySchema

from benchmarks.kills import SOUNDS, VIDEOS
from benchmarks.processes import environment
from benchmarks.report import Report

ROOT = Path(__file__).parents[1]
STAGES = ("Analyse", "Landmarks", "Render")
VICTIMS = (*STAGES, "Dubber", "Api")
NAME = "dreamhead"
POLL_S = 1.0
SAMPLE_S = 1.0
REQUEST_S = 120.0
END_WITHIN_S = 1800.0
"""After the last submission."""
ENDED = ("succeeded", "failed", "cancelled")
LOST = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
"""What a client sees while a replica of the API dies; it asks again."""


@dataclass
class Outcome:
    """What one client saw; times are seconds from its begin."""

    clip: Path
    speech: Path
    begun_s: float
    status: str = ""
    """Of the job; or `refused`, or what went wrong."""
    fragment_s: float | None = None
    result_s: float | None = None
    frames: int = 0
    digest: str = ""


@dataclass
class Moment:
    """The service at one time."""

    at_s: float
    replicas: dict[str, int]
    """Running ones, by deployment."""
    active: int
    """Clients whose job isn't over."""


class Client:
    """One job, from the upload to the result."""

    def __init__(self, base: str, outcome: Outcome, segment_s: float, *, patient: bool) -> None:
        self._base, self.outcome, self._segment_s, self._patient = base, outcome, segment_s, patient
        self._began = time.monotonic()
        self._key = os.urandom(16).hex()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._dub()
        except Exception as error:  # noqa: BLE001  Whatever it is, it is counted.
            self.outcome.status = f"{type(error).__name__}: {error}"[:200]

    def _dub(self) -> None:
        response = self._ask("POST", "/v1/dubs", is_upload=True)
        if response.status_code == 429:
            self.outcome.status = "refused" if response.headers.get("Retry-After") else "429 without Retry-After"
            return
        if response.status_code != 202:
            self.outcome.status = f"{response.status_code} {response.text[:100]}"
            return
        path = response.headers["Location"]
        job = self._follow(path)
        self.outcome.status, self.outcome.frames = job["status"], job["progress"]["frames"]
        if job["status"] != "succeeded":
            self.outcome.status += f": {(job['error'] or {}).get('detail')}"
            return
        video = self._ask("GET", f"{path}/video")
        self.outcome.result_s = time.monotonic() - self._began
        self.outcome.digest = hashlib.sha256(video.content).hexdigest()
        if video.status_code != 200:
            self.outcome.status = f"{video.status_code} instead of the video"

    def _follow(self, path: str) -> dict[str, Any]:
        """Watch the job to its end, and the stream's begin."""
        while True:
            if self.outcome.fragment_s is None:
                self._open_stream(path)
            job: dict[str, Any] = self._ask("GET", path).json()
            if job.get("status") in ENDED:
                if self.outcome.fragment_s is None and job["status"] == "succeeded":
                    self.outcome.fragment_s = time.monotonic() - self._began
                return job
            time.sleep(POLL_S)

    def _open_stream(self, path: str) -> None:
        """Take the time of the stream's first bytes, and read it to its end; not there yet is no fault."""
        try:
            with self._session().get(self._base + f"{path}/stream", stream=True, timeout=REQUEST_S) as response:
                if response.status_code == 200:
                    for _ in response.iter_content(None):
                        if self.outcome.fragment_s is None:
                            self.outcome.fragment_s = time.monotonic() - self._began
        except LOST:
            # The job is what counts: it is asked for next.
            return

    def _ask(self, method: str, path: str, *, is_upload: bool = False) -> requests.Response:
        while True:
            try:
                response = (
                    self._upload()
                    if is_upload
                    else self._session().request(method, self._base + path, timeout=REQUEST_S)
                )
                if not (self._patient and response.status_code in (500, 502, 503)):
                    return response
            except LOST:
                if not self._patient:
                    raise
            time.sleep(POLL_S)

    def _upload(self) -> requests.Response:
        with self.outcome.clip.open("rb") as video, self.outcome.speech.open("rb") as audio:
            return self._session().post(
                f"{self._base}/v1/dubs",
                files={"video": (self.outcome.clip.name, video), "audio": (self.outcome.speech.name, audio)},
                data={"segments": f'[{{"start_s": 0, "end_s": {self._segment_s}}}]', "on_longer_audio": "trim"},
                headers={"Idempotency-Key": self._key},
                timeout=REQUEST_S,
            )

    @staticmethod
    def _session() -> requests.Session:
        return requests.Session()


@dataclass
class Load:
    """The clients of one run, and the service meanwhile."""

    base: str
    pairs: Iterator[tuple[Path, Path]]
    segment_s: float
    patient: bool
    began_s: float = field(default_factory=time.monotonic)
    clients: list[Client] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    def submit(self, per_minute: float, minutes: float, each_minute: Callable[[], None] | None = None) -> list[Outcome]:
        """Clients at a steady rate for so long; what they will have seen once they are done."""
        outcomes: list[Outcome] = []
        begin, count = time.monotonic(), round(per_minute * minutes)
        minute = 1
        for index in range(count):
            due = begin + index * 60 / per_minute
            while (wait := due - time.monotonic()) > 0:
                time.sleep(min(wait, 1.0))
                if each_minute is not None and time.monotonic() - begin > minute * 60:
                    each_minute()
                    minute += 1
            clip, speech = next(self.pairs)
            outcome = Outcome(clip, speech, time.monotonic() - self.began_s)
            client = Client(self.base, outcome, self.segment_s, patient=self.patient)
            self.clients.append(client)
            outcomes.append(outcome)
            client.thread.start()
        return outcomes

    def wait(self) -> None:
        """Until all clients are done; those that never are count as lost."""
        end = time.monotonic() + END_WITHIN_S
        for client in self.clients:
            client.thread.join(max(0.0, end - time.monotonic()))
            if client.thread.is_alive():
                client.outcome.status = f"not over after {END_WITHIN_S:g} s"

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note replicas and jobs meanwhile."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(SAMPLE_S):
                application = serve.status().applications.get(NAME)
                parts = application.deployments if application else {}
                replicas = {name: part.replica_states.get("RUNNING", 0) for name, part in parts.items()}
                active = sum(client.thread.is_alive() for client in self.clients)
                self.moments.append(Moment(time.monotonic() - self.began_s, replicas, active))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def service(storage: Path, chunk_s: float) -> Iterator[str]:
    """The service as `serve_config.yaml` has it, on a free port; its address."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    config["http_options"]["port"] = port
    config["applications"][0]["args"] |= {"storage": str(storage), "dub": {"analysis": {"chunk_s": chunk_s}}}
    ServeDeploySchema.model_validate(config)
    ray.init(address="local", num_cpus=max(4, os.cpu_count() or 1), include_dashboard=True, log_to_driver=False)
    try:
        from ray._private.worker import global_worker
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        serve.start(http_options={"host": "127.0.0.1", "port": port})
        ServeSubmissionClient(f"http://{global_worker.node.webui_url}").deploy_applications(config)
        base = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 300
        while not _is_up(base):
            if time.monotonic() > end:
                raise SystemExit(f"the service isn't up after 300 s: {serve.status()}")
            time.sleep(POLL_S)
        yield base
    finally:
        serve.shutdown()
        ray.shutdown()


def _is_up(base: str) -> bool:
    try:
        return requests.get(f"{base}/healthz", timeout=10).status_code == 200
    except LOST:
        return False


def kill_one(draw: random.Random, killed: Counter[str]) -> None:
    """End one replica as a crash would."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    name = draw.choice(VICTIMS)
    replicas = [actor for actor in actors if actor["name"].startswith(f"SERVE_REPLICA::{NAME}#{name}#")]
    if replicas:
        victim = draw.choice(replicas)
        ray.kill(ray.get_actor(victim["name"], namespace=victim["namespace"]), no_restart=True)
        killed[name] += 1


def tell(report: Report, rows: Sequence[tuple[float, float, list[Outcome]]]) -> None:
    """A row a rate."""
    table = []
    for rate, seconds, outcomes in rows:
        good = [outcome for outcome in outcomes if outcome.status == "succeeded"]
        refused = sum(outcome.status == "refused" for outcome in outcomes)
        table.append(
            [
                rate,
                len(outcomes),
                len(good),
                refused,
                len(outcomes) - len(good) - refused,
                len(good) / seconds * 60,
                percentiles([outcome.fragment_s for outcome in good]),
                percentiles([outcome.result_s for outcome in good]),
            ]
        )
    headings = ["jobs a minute", "sent", "done", "refused (429)", "errors", "done a minute"]
    report.table([*headings, "first fragment, s: p50 / p95 / p99", "result, s: p50 / p95 / p99"], table)


def percentiles(seconds: Sequence[float | None]) -> str:
    """The three of some times."""
    known = [value for value in seconds if value is not None]
    return " / ".join(f"{value:.1f}" for value in np.percentile(known, (50, 95, 99))) if known else "–"


def draw_picture(path: Path, moments: Sequence[Moment]) -> None:
    """Jobs and replicas over time."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    jobs, replicas = figure.subplots(2, 1, sharex=True)
    minutes = [moment.at_s / 60 for moment in moments]
    jobs.plot(minutes, [moment.active for moment in moments], color="black")
    jobs.set_ylabel("jobs waiting and running")
    for name, offset in zip(STAGES, (-0.04, 0.0, 0.04), strict=True):
        counts = [moment.replicas.get(name, 0) + offset for moment in moments]
        replicas.step(minutes, counts, where="post", label=name)
    replicas.set_ylabel("running replicas")
    replicas.set_xlabel("minutes")
    replicas.yaxis.get_major_locator().set_params(integer=True)
    # Beside the lines, which lie on whole numbers and often on each other.
    replicas.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for axes in (jobs, replicas):
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
    FigureCanvasAgg(figure).print_png(str(path))


def main() -> int:
    """Run, print the tables; 1 where a job failed, was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--speeches", type=Path, required=True)
    parser.add_argument("--rates", default="2,6,12", help="jobs a minute, one after the other")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each rate")
    parser.add_argument("--segment-s", type=float, default=0.4)
    parser.add_argument("--chunk-s", type=float, default=1.0)
    parser.add_argument("--soak-minutes", type=float, default=0.0)
    parser.add_argument("--pairs", type=int, default=8, help="of a clip and a speech, in a soak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    os.environ.update(environment())
    rates = [float(rate) for rate in arguments.rates.split(",")]
    clips = sorted(path for path in arguments.clips.iterdir() if path.suffix in VIDEOS)
    speeches = sorted(path for path in arguments.speeches.iterdir() if path.suffix in SOUNDS)
    draw = random.Random(arguments.seed)
    pairs = list(itertools.product(clips, speeches))
    draw.shuffle(pairs)
    is_soak = arguments.soak_minutes > 0
    if is_soak:
        pairs = pairs[: arguments.pairs]
    report = Report("Soak of the online service" if is_soak else "Load on the online service")
    with tempfile.TemporaryDirectory(prefix="dreamhead-serve-") as name, service(Path(name), arguments.chunk_s) as base:
        load = Load(base, itertools.cycle(pairs), arguments.segment_s, patient=is_soak)
        killed: Counter[str] = Counter()
        rows = []
        with load.watched():
            if is_soak:
                began = time.monotonic()
                outcomes = load.submit(rates[0], arguments.soak_minutes, lambda: kill_one(draw, killed))
                load.wait()
                rows.append((rates[0], time.monotonic() - began, outcomes))
            else:
                for rate in rates:
                    began = time.monotonic()
                    outcomes = load.submit(rate, arguments.minutes)
                    load.wait()
                    rows.append((rate, time.monotonic() - began, outcomes))
    tell(report, rows)
    if arguments.picture:
        draw_picture(arguments.picture, load.moments)
    everything = [outcome for _, _, outcomes in rows for outcome in outcomes]
    for outcome in everything:
        if outcome.status not in ("succeeded", "refused"):
            print(f"- {outcome.clip.name} with {outcome.speech.name}: {outcome.status}")
    errors = sum(outcome.status not in ("succeeded", "refused") for outcome in everything)
    report.at_most("errors other than 429", errors, 0)
    if is_soak:
        print(f"- killed: {dict(killed)}")
        digests: dict[tuple[Path, Path], set[str]] = {}
        for outcome in everything:
            if outcome.digest:
                digests.setdefault((outcome.clip, outcome.speech), set()).add(outcome.digest)
        again = sum(outcome.status == "succeeded" for outcome in everything) - len(digests)
        report.at_least("jobs of a pair that had come before", again, 1)
        report.at_most("pairs whose files differ", sum(len(found) > 1 for found in digests.values()), 0)
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
