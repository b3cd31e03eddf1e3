"""What the farm costs beside one process, and beside processes without a farm, on the same cores, start-up apart.

    python -m benchmarks.overhead [--few 4] [--many 12] [--seconds 6] [--cores 0,1] [--most 0.05]

Dubs few clips and many, in three ways, each bound to the same cores. One process keeps the stages loaded and runs them
one after the other, its networks on as many threads as there are cores. One process a core does the same with one
thread, on its share of the clips: the most that the cores give without a farm. The farm is the batch job with a render
worker a core and one worker for each of the other stages, of one thread each.

What many cost beyond few, divided by the frames between them, is the cost of a frame in steady state; the rest is
start-up, and few are enough of them that every process that the farm starts is started by then. Clips are short, a
chunk or two each: what the farm does a chunk and a job weighs more than on films. CPU seconds (user and system) are
counted of all processes, and told by what they do. Fails when a frame takes the farm more than `--most` above one
process, in wall time. What Ray's own processes and the driver use goes on whatever the frames cost: it is told in
cores, and weighs the less the more cores a machine has, while beside one process a core it weighs in full.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inputs import ONE, write_clip, write_manifest, write_settings, write_speech
from benchmarks.processes import ROOT, Usage, watch
from benchmarks.report import Report
from dreamhead.cluster.manifest import read_manifest
from dreamhead.config import DubSettings, load_yaml
from dreamhead.demo.samples import RATE
from dreamhead.evaluation.dubbing import LoadedStages

VOICE_S = 2.0
"""How far the camera's way of one clip is ahead of the one before."""
ONE_PROCESS, MANY_PROCESSES, FARM = "one process", "one process a core", "farm"
OF_ITSELF = ("Ray's own", "driver")
"""Roles of processes that dub nothing."""


@dataclass(frozen=True)
class Cost:
    """Of one way to dub: start-up, and a frame beyond it."""

    start_s: float
    frame_s: float
    frame_cpu_s: float
    frame_cpu_s_by_role: dict[str, float]


def main() -> int:
    """Print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=4, help="clips of the short run")
    parser.add_argument("--many", type=int, default=12, help="clips of the long run")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each clip")
    parser.add_argument("--cores", default=",".join(map(str, sorted(os.sched_getaffinity(0)))))
    parser.add_argument("--most", type=float, default=0.05)
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cores = arguments.cores.split(",")
    if arguments.share is not None:
        return dub(arguments.inputs, arguments.share, len(cores))
    if arguments.inputs:
        return dub_by_processes(arguments.inputs, cores)
    report = Report("Overhead of the farm")
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as name:
        folder = Path(name)
        for clips in (arguments.few, arguments.many):
            write_inputs(folder / str(clips), clips, arguments.seconds, len(cores))
        costs = measure(folder, arguments.few, arguments.many, arguments.seconds, arguments.cores)
    rows = [[way, cost.start_s, 1 / cost.frame_s, 1000 * cost.frame_cpu_s] for way, cost in costs.items()]
    report.table(["", "start-up, s", "frames/s beyond it", "CPU, ms a frame"], rows)
    roles = sorted(costs[FARM].frame_cpu_s_by_role.items(), key=lambda item: -item[1])
    report.table(["of the farm's CPU", "ms a frame"], [[name, 1000 * used_s] for name, used_s in roles])
    one, many, farm = costs[ONE_PROCESS], costs[MANY_PROCESSES], costs[FARM]
    own_s = sum(farm.frame_cpu_s_by_role.get(role, 0.0) for role in OF_ITSELF)
    print(f"- {' and '.join(OF_ITSELF)}: {own_s / farm.frame_s:.2f} cores, whatever the frames cost")
    print(f"- beside one process a core: {farm.frame_s / many.frame_s - 1:+.1%} wall time")
    print(f"- beside one process: {farm.frame_cpu_s / one.frame_cpu_s - 1:+.1%} CPU seconds")
    report.at_most("beside one process, wall time", farm.frame_s / one.frame_s - 1, arguments.most)
    return report.exit_status


def write_inputs(folder: Path, clips: int, seconds: float, renderers: int) -> None:
    """A folder with clips, speech, settings and manifest."""
    folder.mkdir()
    rows = []
    for index in range(clips):
        video = write_clip(folder / f"{index}.mp4", seconds, begin_s=index * VOICE_S)
        rows.append({"job_id": f"job{index}", "video_uri": video.name, "audio_uri": "speech.wav"})
        rows[-1]["output_uri"] = f"out/{index}.mp4"
    write_speech(folder / "speech.wav", seconds)
    pools = {"analyse": ONE, "landmarks": ONE, "render": ONE | {"min_size": renderers, "max_size": renderers}}
    write_settings(folder / "config.yaml", pools=pools)
    write_settings(folder / "one.yaml", cpu_threads=renderers)
    write_manifest(folder / "manifest.jsonl", rows)


def measure(folder: Path, few: int, many: int, seconds: float, cores: str) -> dict[str, Cost]:
    """All ways short, then all long, so that what changes on the machine meanwhile meets them alike."""
    short, long = folder / str(few), folder / str(many)
    frames_a_clip = round(seconds * RATE)
    used: dict[tuple[str, Path], Usage] = {}
    ways = (ONE_PROCESS, MANY_PROCESSES, FARM)
    for way, inputs in (*((way, short) for way in ways), *((way, long) for way in ways)):
        used[way, inputs] = watch(command(way, inputs, cores), inputs / "log.txt", cores=cores)
    return {way: _cost(used[way, short], used[way, long], few * frames_a_clip, many * frames_a_clip) for way in ways}


def command(way: str, inputs: Path, cores: str) -> list[str]:
    """The command that dubs these inputs."""
    if way == FARM:
        batch = [sys.executable, str(ROOT / "ray_jobs" / "batch_render.py"), str(inputs / "manifest.jsonl")]
        return [*batch, "--config", str(inputs / "config.yaml"), "--work", str(inputs / "farm-work")]
    without = [sys.executable, "-m", "benchmarks.overhead", "--inputs", str(inputs)]
    return [*without, "--cores", cores] if way == MANY_PROCESSES else [*without, "--cores", "all", "--share", "0"]


def dub_by_processes(inputs: Path, cores: Sequence[str]) -> int:
    """Dub all jobs by a process a core; the largest exit status."""
    whole = command(MANY_PROCESSES, inputs, ",".join(cores))
    shares = [[*whole, "--share", str(share)] for share in range(len(cores))]
    processes = [subprocess.Popen(["taskset", "-c", core, *share]) for core, share in zip(cores, shares, strict=True)]
    return max(process.wait() for process in processes)


def dub(inputs: Path, share: int, of: int) -> int:
    """Dub every `of`-th job with stages that are loaded once; one process that dubs all has threads for it."""
    settings = load_yaml(inputs / ("config.yaml" if of > 1 else "one.yaml"), DubSettings)
    stages = LoadedStages(settings, "", str(inputs / f"work-{share}-of-{of}"))
    for job in read_manifest(str(inputs / "manifest.jsonl")).jobs[share::of]:
        stages.dub(job)
    stages.close()
    return 0


def _cost(short: Usage, long: Usage, short_frames: int, long_frames: int) -> Cost:
    frames = long_frames - short_frames
    frame_s = (long.wall_s - short.wall_s) / frames
    before, after = short.cpu_by_role, long.cpu_by_role
    by_role = {name: (used_s - before.get(name, 0.0)) / frames for name, used_s in after.items()}
    return Cost(short.wall_s - frame_s * short_frames, frame_s, (long.cpu_s - short.cpu_s) / frames, by_role)


if __name__ == "__main__":
    sys.exit(main())
