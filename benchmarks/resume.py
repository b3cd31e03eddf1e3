"""What a killed run costs: SIGKILL half-way, the same command again, and once more when all is done.

    python -m benchmarks.resume [--clips 2] [--seconds 20]

The batch job dubs clips in chunks of a second by the warp renderer, first undisturbed, then in another directory
until half of the chunks are published: there its driver is killed with SIGKILL, and its actors die with it. The same
command then goes on. A chunk counts as published by its sidecar, as begun and lost by the count of its tries without
a sidecar. Fails when a published chunk was done again, when more chunks were lost than the render pool had in its
hands (one an actor), when an output differs from that of the undisturbed run in a byte, or when a run of the finished
manifest renders anything.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.inputs import write_clip, write_manifest, write_settings, write_speech
from benchmarks.processes import ROOT, Usage, watch
from benchmarks.report import Report

CHUNK_S = 1.0
SIZE = 256
RENDER_ACTORS = 1


@dataclass(frozen=True)
class Run:
    """One start of the command in one directory."""

    folder: Path

    def command(self) -> list[str]:
        """The batch command."""
        batch = [sys.executable, str(ROOT / "ray_jobs" / "batch_render.py"), str(self.folder / "manifest.jsonl")]
        return [*batch, "--config", str(self.folder.parent / "config.yaml"), "--work", str(self.folder / "work")]

    def published(self) -> dict[str, float]:
        """When each chunk was published, in seconds of the machine's clock."""
        return {path.name + path.parts[-3]: path.stat().st_mtime for path in self._jobs("chunk-*.json")}

    def begun(self) -> set[str]:
        """Chunks that rendering was tried for."""
        tries = self._jobs("attempts/render-*.json")
        return {path.name.replace("render-", "chunk-") + path.parts[-4] for path in tries}

    def rendered(self) -> int:
        """Chunks that the last run says it rendered."""
        return sum(row["chunks_rendered"] for row in pq.read_table(self.folder / "out" / "results.parquet").to_pylist())

    def outputs(self) -> dict[str, bytes]:
        """What was published."""
        return {path.name: path.read_bytes() for path in (self.folder / "out").glob("*.mp4")}

    def _jobs(self, pattern: str) -> list[Path]:
        return list((self.folder / "work" / "jobs").glob(f"*/*/{pattern}"))


def main() -> int:
    """Print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    report = Report("A killed run, and the same command again")
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as name:
        folder = Path(name)
        write_inputs(folder, arguments.clips, arguments.seconds)
        measure(report, Run(folder / "alone"), Run(folder / "killed"), folder / "log.txt")
    return report.exit_status


def write_inputs(folder: Path, clips: int, seconds: float) -> None:
    """Clips and settings, and the same manifest in two directories."""
    rows = []
    for index in range(clips):
        write_clip(folder / f"{index}.mp4", seconds, SIZE, begin_s=2.0 * index)
        rows.append({"job_id": f"job{index}", "video_uri": f"../{index}.mp4", "audio_uri": "../speech.wav"})
        rows[-1]["output_uri"] = f"out/{index}.mp4"
    write_speech(folder / "speech.wav", seconds)
    write_settings(folder / "config.yaml", analysis={"chunk_s": CHUNK_S}, render={"renderer": "warp"})
    for name in ("alone", "killed"):
        write_manifest(folder / name / "manifest.jsonl", rows)


def measure(report: Report, alone: Run, killed: Run, log: Path) -> None:
    """Four starts of the command, and what they did."""
    whole = _start(alone, log)
    half = len(alone.published()) // 2
    until = watch(killed.command(), log, kill_when=lambda: len(killed.published()) >= half)
    before, lost = killed.published(), killed.begun() - set(killed.published())
    began_s = time.time()
    rest = _start(killed, log)
    after, rendered = killed.published(), killed.rendered()
    first_new_s = min(at_s for name, at_s in after.items() if name not in before) - began_s
    again = _start(killed, log)
    report.table(
        ["", "seconds", "chunks rendered"],
        [
            ["left alone", whole.wall_s, alone.rendered()],
            ["until it was killed", until.wall_s, len(before)],
            ["from the kill until all its processes were gone", until.gone_s, ""],
            ["the same command again", rest.wall_s, rendered],
            ["of that, until the first new chunk", first_new_s, ""],
            ["killed and resumed, above left alone", until.wall_s + rest.wall_s - whole.wall_s, ""],
            ["finished manifest again", again.wall_s, killed.rendered()],
        ],
    )
    report.at_most("published chunks done again", sum(after[name] != at_s for name, at_s in before.items()), 0)
    report.at_most("chunks rendered in both runs, above those there are", len(before) + rendered - len(after), 0)
    report.at_most("chunks begun and lost", len(lost), RENDER_ACTORS)
    report.at_most("chunks rendered for a finished manifest", killed.rendered(), 0)
    same = alone.outputs() == killed.outputs() and bool(alone.outputs())
    report.at_least("outputs equal to those of the run left alone", int(same), 1)


def _start(run: Run, log: Path) -> Usage:
    return watch(run.command(), log)


if __name__ == "__main__":
    sys.exit(main())
