"""What the farm costs beside processes without one: the same clips, settings and cores, start-up apart.

    python -m benchmarks.overhead [--few 4] [--many 16] [--seconds 6] [--cores 0,1] [--most 0.05]

Dubs few clips and many. Without a farm: one process a core, each bound to its core, which keeps the stages loaded and
runs them one after the other on its share of the clips. With it: the batch job, bound to the same cores, with a render
worker a core and one worker for each of the other stages. Both ways use the cores to the full, so that all that the
farm adds takes wall time; CPU seconds (user and system, of every process: driver, actors, Ray's own) are counted
besides, since others on the machine disturb them less, and by what the process does.

What many cost beyond few, divided by the frames between them, is the cost of a frame in steady state; the rest is
start-up, and few are enough of them that every process that the farm starts is started by then. Clips are short, a
chunk or two each: what the farm does a chunk and a job weighs more than on films. Fails when a frame costs more than
`--most` above those without a farm, in wall time or in CPU seconds.
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
ALONE, FARM = "one process a core", "farm"


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
    parser.add_argument("--many", type=int, default=16, help="clips of the long run; both are shared by the cores")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each clip")
    parser.add_argument("--cores", default=",".join(map(str, sorted(os.sched_getaffinity(0)))))
    parser.add_argument("--most", type=float, default=0.05)
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cores = arguments.cores.split(",")
    if arguments.share is not None:
        return dub_share(arguments.alone, arguments.share, len(cores))
    if arguments.alone:
        return dub_alone(arguments.alone, cores)
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
    one, farm = costs[ALONE], costs[FARM]
    report.at_most("overhead in wall time", farm.frame_s / one.frame_s - 1, arguments.most)
    report.at_most("overhead in CPU seconds", farm.frame_cpu_s / one.frame_cpu_s - 1, arguments.most)
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
    write_manifest(folder / "manifest.jsonl", rows)


def measure(folder: Path, few: int, many: int, seconds: float, cores: str) -> dict[str, Cost]:
    """Both ways, short and long; what changes on the machine meanwhile meets both alike."""
    short, long = folder / str(few), folder / str(many)
    frames_a_clip = round(seconds * RATE)
    used: dict[tuple[str, Path], Usage] = {}
    for way, inputs in ((ALONE, short), (FARM, short), (FARM, long), (ALONE, long)):
        used[way, inputs] = watch(command(way, inputs, cores), inputs / "log.txt", cores=cores)
    return {
        way: _cost(used[way, short], used[way, long], few * frames_a_clip, many * frames_a_clip)
        for way in (ALONE, FARM)
    }


def command(way: str, inputs: Path, cores: str) -> list[str]:
    """The command that dubs these inputs."""
    if way == ALONE:
        return [sys.executable, "-m", "benchmarks.overhead", "--alone", str(inputs), "--cores", cores]
    batch = [sys.executable, str(ROOT / "ray_jobs" / "batch_render.py"), str(inputs / "manifest.jsonl")]
    return [*batch, "--config", str(inputs / "config.yaml"), "--work", str(inputs / "farm-work")]


def dub_alone(inputs: Path, cores: Sequence[str]) -> int:
    """Dub all jobs by a process a core; the largest exit status."""
    whole = command(ALONE, inputs, ",".join(cores))
    shares = [[*whole, "--share", str(share)] for share in range(len(cores))]
    processes = [subprocess.Popen(["taskset", "-c", core, *share]) for core, share in zip(cores, shares, strict=True)]
    return max(process.wait() for process in processes)


def dub_share(inputs: Path, share: int, of: int) -> int:
    """Dub every `of`-th job with stages that are loaded once."""
    settings = load_yaml(inputs / "config.yaml", DubSettings)
    stages = LoadedStages(settings, "", str(inputs / f"work-{share}"))
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
