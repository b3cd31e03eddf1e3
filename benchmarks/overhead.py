"""What the farm costs beside one process: the same clips, settings and core, start-up apart.

    python -m benchmarks.overhead [--clips 5] [--seconds 6] [--core 0] [--most 0.05]

Dubs few clips and many, each time by one process that keeps the stages loaded and runs them one after the other,
and by the batch job with one worker a pool. What many cost beyond few, divided by the frames between them, is the
cost of a frame in steady state; the rest is start-up. Both ways every process is bound to one core: three actors on
several cores overlap, and would hide what the farm adds; on one core all that it adds takes wall time. CPU seconds
(user and system, of every process: driver, actors, Ray's own) are counted besides, since others on the machine
disturb them less. Clips are short, a chunk each: what the farm does a chunk and a job weighs more than on films.
Fails when a frame costs more than `--most` above one process, in wall time or in CPU seconds.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inputs import write_clip, write_manifest, write_settings, write_speech
from benchmarks.processes import ROOT, Usage, watch
from benchmarks.report import Report
from dreamhead.cluster.manifest import read_manifest
from dreamhead.config import DubSettings, load_yaml
from dreamhead.demo.samples import RATE
from dreamhead.evaluation.dubbing import LoadedStages

VOICE_S = 2.0
"""How far the camera's way of one clip is ahead of the one before."""
ONE_PROCESS, FARM = "one process", "farm, one worker a pool"


@dataclass(frozen=True)
class Cost:
    """Of one way to dub: start-up, and a frame beyond it."""

    start_s: float
    frame_s: float
    frame_cpu_s: float


def main() -> int:
    """Print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=5, help="of the long run; the short one has one")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each clip")
    parser.add_argument("--core", default="0")
    parser.add_argument("--most", type=float, default=0.05)
    parser.add_argument("--one-process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_process:
        return dub_in_one_process(arguments.one_process)
    report = Report("Overhead of the farm")
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as name:
        folder = Path(name)
        for clips in (1, arguments.clips):
            write_inputs(folder / str(clips), clips, arguments.seconds)
        costs = measure(folder, arguments.clips, arguments.seconds, arguments.core)
    rows = [[way, cost.start_s, 1 / cost.frame_s, 1000 * cost.frame_cpu_s] for way, cost in costs.items()]
    report.table(["", "start-up, s", "frames/s beyond it", "CPU, ms a frame"], rows)
    one, farm = costs[ONE_PROCESS], costs[FARM]
    report.at_most("overhead in wall time on one core", farm.frame_s / one.frame_s - 1, arguments.most)
    report.at_most("overhead in CPU seconds", farm.frame_cpu_s / one.frame_cpu_s - 1, arguments.most)
    return report.exit_status


def write_inputs(folder: Path, clips: int, seconds: float) -> None:
    """A folder with clips, speech, settings and manifest."""
    folder.mkdir()
    rows = []
    for index in range(clips):
        video = write_clip(folder / f"{index}.mp4", seconds, begin_s=index * VOICE_S)
        rows.append({"job_id": f"job{index}", "video_uri": video.name, "audio_uri": "speech.wav"})
        rows[-1]["output_uri"] = f"out/{index}.mp4"
    write_speech(folder / "speech.wav", seconds)
    write_settings(folder / "config.yaml")
    write_manifest(folder / "manifest.jsonl", rows)


def measure(folder: Path, clips: int, seconds: float, core: str) -> dict[str, Cost]:
    """Both ways, short and long; what changes on the machine meanwhile meets both alike."""
    short, long = folder / "1", folder / str(clips)
    frames = (clips - 1) * round(seconds * RATE)
    used: dict[tuple[str, Path], Usage] = {}
    for way, inputs in ((ONE_PROCESS, short), (FARM, short), (FARM, long), (ONE_PROCESS, long)):
        used[way, inputs] = watch(command(way, inputs), inputs / "log.txt", cores=core)
    return {way: _cost(used[way, short], used[way, long], frames, clips) for way in (ONE_PROCESS, FARM)}


def command(way: str, inputs: Path) -> list[str]:
    """The command that dubs these inputs."""
    if way == ONE_PROCESS:
        return [sys.executable, "-m", "benchmarks.overhead", "--one-process", str(inputs)]
    batch = [sys.executable, str(ROOT / "ray_jobs" / "batch_render.py"), str(inputs / "manifest.jsonl")]
    return [*batch, "--config", str(inputs / "config.yaml"), "--work", str(inputs / "farm-work")]


def dub_in_one_process(inputs: Path) -> int:
    """Dub all jobs with stages that are loaded once."""
    settings = load_yaml(inputs / "config.yaml", DubSettings)
    stages = LoadedStages(settings, "", str(inputs / "one-work"))
    for job in read_manifest(str(inputs / "manifest.jsonl")).jobs:
        stages.dub(job)
    stages.close()
    return 0


def _cost(short: Usage, long: Usage, frames: int, clips: int) -> Cost:
    frame_s = (long.wall_s - short.wall_s) / frames
    start_s = short.wall_s - frame_s * frames / (clips - 1)
    return Cost(start_s, frame_s, (long.cpu_s - short.cpu_s) / frames)


if __name__ == "__main__":
    sys.exit(main())
