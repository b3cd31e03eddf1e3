"""How fast a whole dub is beside that of another version, on one machine, by turns.

    python -m benchmarks.against CHECKOUT [--video V --audio A] [--config F] [--times 3] [--threads 1]

CHECKOUT is another clone of this repository, or a worktree. Both run in this environment with their own default
settings and weights, each dub in a process of its own; without files the demonstration's clip is dubbed. Seconds are
those of the stages, without the start. CPU seconds count where other work shares the machine: wall seconds then say
little.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.machine import name
from dreamhead.demo.samples import make_samples

ROOT = Path(__file__).parents[1]
STAGES = ("analyse", "landmarks", "render", "finalize")
DUB = """
import json, sys, time
from pathlib import Path
import torch
from dreamhead.config import DubSettings, load_yaml
from dreamhead.records import Job
from dreamhead.stages import dub as stage
video, audio, config, folder, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
settings = load_yaml(Path(config), DubSettings) if config else DubSettings()
settings = settings.model_copy(update={"cpu_threads": int(threads)})
job = dict(job_id="clip", row=0, video_uri=video, audio_uri=audio)
stage.dub(Job(**job, output_uri=folder + "/warm.mp4"), settings, "", folder + "/warm")
began = time.process_time()
row = stage.dub(Job(**job, output_uri=folder + "/dub.mp4"), settings, "", folder + "/work")
print(json.dumps({"status": row["status"], "error": row["error"], "frames": row["frames"], "seconds": row["seconds"],
                  "cpu": time.process_time() - began}))
"""
"""What each version runs: a dub to warm up, and one that counts."""


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--video")
    parser.add_argument("--audio")
    parser.add_argument("--config", default="", help="settings that both versions know")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not (arguments.checkout / "dreamhead").is_dir():
        parser.error(f"{arguments.checkout}: has no dreamhead/; give a clone or a worktree of this repository")
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as folder:
        video, audio = arguments.video, arguments.audio
        if not (video and audio):
            make_samples(Path(folder))
            video, audio = (f"{folder}/{part}" for part in ("clip.mp4", "english.wav"))
        found: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
        for _ in range(arguments.times):
            for which, root in (("before", arguments.checkout.resolve()), ("now", ROOT)):
                found[which].append(_dubbed(root, video, audio, arguments.config, arguments.threads))
    print(f"{name(torch.device('cpu'))}; {arguments.threads} threads; {arguments.times} times each, medians\n")
    print("| ms a frame | before | now | times as fast |\n|---|---|---|---|")
    for part in (*STAGES, "all stages", "CPU"):
        before, now = (statistics.median(row[part] for row in found[which]) for which in ("before", "now"))
        print(f"| {part} | {before:.1f} | {now:.1f} | {before / now:.2f} |")


def _dubbed(root: Path, video: str, audio: str, config: str, threads: int) -> dict[str, float]:
    """Milliseconds a frame by stage, of all stages, and of CPU."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as folder:
        run = subprocess.run(
            [sys.executable, "-c", DUB, video, audio, config, folder, str(threads)],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
        )
    if run.returncode:
        raise SystemExit(f"{root}: the dub ended with {run.returncode}:\n{run.stderr[-2000:]}")
    row = json.loads(run.stdout.splitlines()[-1])
    if row["status"] != "succeeded":
        raise SystemExit(f"{root}: {row['error']}")
    seconds = {stage: float(row["seconds"].get(stage, 0.0)) for stage in STAGES}
    seconds |= {"all stages": sum(row["seconds"].values()), "CPU": row["cpu"]}
    return {part: 1e3 * value / row["frames"] for part, value in seconds.items()}


if __name__ == "__main__":
    main()
