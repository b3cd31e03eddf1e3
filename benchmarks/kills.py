"""Kill the batch job again and again: the outputs must be those of a run that nobody disturbed.

    python benchmarks/kills.py --clips DIR --speeches DIR [--kills 5] [--seed 0] [--segment-s 0.4] [--keep DIR]

Every clip is dubbed with every speech, twice: left alone, and with SIGKILL at random moments, by turns to the driver
alone and to all of its processes, each time followed by the same command; the killed run also has two render actors
instead of one. All stages and the bundled weights are real;
that it takes minutes and not hours, only the first `--segment-s` seconds of each video are dubbed, and the other frames
pass through the same decoder and encoder. Prints a table; exit status 1 unless every output of the two runs is the same
to the byte, and no chunk that was done before a kill was rendered again.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parents[1]
VIDEOS, SOUNDS = (".mp4", ".mov", ".mkv"), (".wav", ".mp3", ".m4a", ".flac")
SETTINGS = {
    "output": {"preset": "ultrafast", "encoder_threads": 1},
    "review": {"gate": "off"},
    "cpu_threads": 1,
    "analysis": {"chunk_s": 5},
}

POOLS = {
    "analyse": {"num_cpus": 0.5},
    "landmarks": {"num_cpus": 0.25},
    "render": {"min_size": 2, "max_size": 2, "num_cpus": 0.5},
}
"""Of the run that is killed; the other one has an actor a pool. They fit two cores."""


class Run:
    """One run's folder: manifest, settings, work, outputs."""

    def __init__(self, folder: Path, clips: list[Path], speeches: list[Path], segment_s: float, pools: object) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        with (folder / "manifest.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["job_id", "video_uri", "audio_uri", "output_uri", "segments"])
            segments = json.dumps([{"start_s": 0, "end_s": segment_s}])
            for clip in clips:
                for speech in speeches:
                    name = f"{clip.stem}-{speech.stem}"
                    table.writerow([name, clip.absolute(), speech.absolute(), f"out/{name}.mp4", segments])
        (folder / "settings.yaml").write_text(yaml.safe_dump({**SETTINGS, "pools": pools}))
        self.seconds: list[float] = []

    def start(self) -> "subprocess.Popen[bytes]":
        """The batch command."""
        arguments = [str(self.folder / "manifest.csv"), "--config", str(self.folder / "settings.yaml")]
        places = ["--work", str(self.folder / "work"), "--results", str(self.folder / "results")]
        log = (self.folder / "log.txt").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "ray_jobs" / "batch_render.py"), *arguments, *places],
                stdout=log,
                stderr=log,
                env={**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)},
            )

    def finish(self) -> int:
        """The batch command to its end: its exit status."""
        began = time.monotonic()
        status = self.start().wait()
        self.seconds.append(time.monotonic() - began)
        return status

    def kill_after(self, seconds: float, everything: bool) -> bool:
        """The batch command, killed after a while; False where it had ended before."""
        began = time.monotonic()
        process = self.start()
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            victims = [process.pid, *(descendants(process.pid) if everything else [])]
        finally:
            self.seconds.append(time.monotonic() - began)
        for pid in victims:
            kill(pid)
        process.wait()
        return True

    def sidecars(self) -> dict[Path, int]:
        """When each chunk that is done was done."""
        return {path: path.stat().st_mtime_ns for path in (self.folder / "work" / "jobs").rglob("chunk-*.json")}

    def outputs(self) -> dict[str, str]:
        """SHA-256 by name."""
        found = sorted((self.folder / "out").glob("*.mp4"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    def results(self) -> list[dict[str, object]]:
        """Rows of results.parquet."""
        rows: list[dict[str, object]] = pq.read_table(self.folder / "results" / "results.parquet").to_pylist()
        return rows


def descendants(pid: int) -> list[int]:
    """All processes that come from this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))

    def below(parent: int) -> Iterator[int]:
        for child in children.get(parent, []):
            yield child
            yield from below(child)

    return list(below(pid))


def kill(pid: int) -> None:
    """End one process at once."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def disturb(run: Run, kills: int, alone_s: float, draw: random.Random) -> tuple[list[str], int]:
    """Kill and repeat, then let it end; a line on each kill, and chunks that were done twice."""
    lines, redone = [], 0
    before: dict[Path, int] = {}
    for number in range(kills):
        everything = number % 2 == 1
        seconds = draw.uniform(0.3, 1.7) * alone_s / (kills + 1)
        if not run.kill_after(seconds, everything):
            lines.append(f"| {number + 1} | had ended after {run.seconds[-1]:.0f} s | | |")
            break
        # Actors outlive their driver by a moment, and may publish what they were at.
        time.sleep(5)
        now = run.sidecars()
        redone += sum(now.get(path) != written for path, written in before.items())
        who = "all processes" if everything else "the driver"
        lines.append(f"| {number + 1} | {who} | after {run.seconds[-1]:.0f} s | {len(now)} chunks |")
        before = now
    run.finish()
    now = run.sidecars()
    redone += sum(now.get(path) != written for path, written in before.items())
    return lines, redone


def main() -> int:
    """Run twice, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--speeches", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--segment-s", type=float, default=0.4)
    parser.add_argument("--keep", type=Path, help="a new folder for the runs; else they are deleted in the end")
    arguments = parser.parse_args()
    clips = sorted(path for path in arguments.clips.iterdir() if path.suffix in VIDEOS)
    speeches = sorted(path for path in arguments.speeches.iterdir() if path.suffix in SOUNDS)
    with tempfile.TemporaryDirectory(prefix="dreamhead-kills-") as name:
        folder = arguments.keep or Path(name)
        alone, killed = (
            Run(folder / part / "run", clips, speeches, arguments.segment_s, pools)
            for part, pools in (("alone", {}), ("killed", POOLS))
        )
        status = alone.finish()
        rows = alone.results()
        frames = sum(int(str(row["frames"] or 0)) for row in rows)
        print(f"{len(clips)} clips x {len(speeches)} speeches: {len(rows)} jobs, {frames} frames\n")
        lines, redone = disturb(killed, arguments.kills, alone.seconds[0], random.Random(arguments.seed))
        wanted, got = alone.outputs(), killed.outputs()
        same = sum(got.get(output) == digest for output, digest in wanted.items())
        print("| kill | of | when | done by then |\n|---|---|---|---|")
        print("\n".join(lines))
        good = [sum(row["status"] == "succeeded" for row in run.results()) for run in (alone, killed)]
        times = sum("had ended" not in line for line in lines)
        print(f"\n| | left alone | killed {times} times |\n|---|---|---|")
        print(f"| jobs succeeded | {good[0]} | {good[1]} |")
        print(f"| chunks | {len(alone.sidecars())} | {len(killed.sidecars())} |")
        print(f"| chunks rendered again though they were done | | {redone} |")
        print(f"| seconds | {alone.seconds[0]:.0f} | {sum(killed.seconds):.0f} |")
        print(f"| outputs equal to the byte | | {same} of {len(wanted)} |")
        jobs = len(clips) * len(speeches)
        return int(not (status == 0 and good == [jobs, jobs] and same == jobs and not redone))


if __name__ == "__main__":
    sys.exit(main())
