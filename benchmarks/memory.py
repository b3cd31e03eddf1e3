"""Whether memory grows with a video's length: the peak of all processes for ten minutes against ten seconds.

    python -m benchmarks.memory [--seconds 600] [--most 1.2]

Each video is dubbed by the batch job with one worker a pool, with the usual spans (5 minutes) and chunks (10 s).
Frames are 256 x 256 and only the first and the last five seconds are dubbed (the manifest's `segments`), so that ten
minutes take minutes: all the rest is decoded, analysed, encoded, joined and muxed like any other frame, and dubbing
takes the same memory for every chunk. Memory is the proportional set size of the driver, the actors and Ray's own
processes, looked at each second: what they share counts once. The long video is one shot of which two spans are
walked, so the longest analysis that there can be is part of it. Fails when the long one's peak exceeds `--most` times
the short one's.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.inputs import write_clip, write_manifest, write_settings, write_speech
from benchmarks.processes import ROOT, Usage, watch
from benchmarks.report import Report

SHORT_S = 10.0
DUBBED_S = 5.0
SIZE = 256
MB = 1e6


def main() -> int:
    """Print the table; 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--most", type=float, default=1.2)
    arguments = parser.parse_args()
    report = Report(f"Memory: {arguments.seconds:g} s of video against {SHORT_S:g} s")
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as name:
        short, long = (dub(Path(name) / f"{seconds:g}", seconds) for seconds in (SHORT_S, arguments.seconds))
    roles = sorted({*short.peak_by_role, *long.peak_by_role}, key=lambda role: -long.peak_by_role.get(role, 0))
    rows = [[role, *(usage.peak_by_role.get(role, 0) / MB for usage in (short, long))] for role in roles]
    rows.append(["all at the peak", short.peak_bytes / MB, long.peak_bytes / MB])
    rows.append(["wall time, s", short.wall_s, long.wall_s])
    report.table(["MB", f"{SHORT_S:g} s", f"{arguments.seconds:g} s"], rows)
    report.at_most("peak, a ratio", long.peak_bytes / short.peak_bytes, arguments.most)
    return report.exit_status


def dub(folder: Path, seconds: float) -> Usage:
    """One run on one video."""
    folder.mkdir()
    write_clip(folder / "video.mp4", seconds, SIZE)
    write_speech(folder / "speech.wav", seconds)
    write_settings(folder / "config.yaml")
    segments = [{"start_s": 0.0, "end_s": DUBBED_S}, {"start_s": seconds - DUBBED_S, "end_s": seconds}]
    row = {"job_id": "job", "video_uri": "video.mp4", "audio_uri": "speech.wav", "output_uri": "out.mp4"}
    manifest = write_manifest(folder / "manifest.jsonl", [row | {"segments": segments}])
    batch = [sys.executable, str(ROOT / "ray_jobs" / "batch_render.py"), str(manifest)]
    command = [*batch, "--config", str(folder / "config.yaml"), "--work", str(folder / "work")]
    return watch(command, folder / "log.txt", memory=True)


if __name__ == "__main__":
    sys.exit(main())
