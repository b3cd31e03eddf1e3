"""Damaged files end in right output or in an error of ours: no crash, no hang, no other exception, no half a file.

Every variant follows from its seed: `python -m tests.media.test_damaged SEED ...` writes and looks at some.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.media import damage

VARIANTS = 200
LEAST_MISSING_S = 0.1
"""What is missing of a sound that is cut short is said from this on."""
PATIENCE_S = 20.0
"""For one variant; a process's start comes on top for its first."""
START_S = 60.0

Report = dict[str, Any]


@pytest.mark.slow
def test_two_hundred_damaged_files(tmp_path: Path) -> None:
    wrong = {seed: text for seed, text in look_at(range(VARIANTS), tmp_path).items() if text}
    listed = "\n".join(f"seed {seed}: {text}" for seed, text in sorted(wrong.items()))
    assert not wrong, f"{len(wrong)} of {VARIANTS} variants:\n{listed}"


def test_valid_files_are_read_whole(tmp_path: Path) -> None:
    files = damage.make_valid_files(tmp_path)
    for path, report in run_workers(files).items():
        assert "fault" not in {**report["video"], **report["audio"]}, (path.name, report)
        frames = {".wav": None, ".jpg": 1, ".png": 1}.get(path.suffix, damage.FRAMES)
        assert report["video"].get("frames") == frames, (path.name, report)
        if path.suffix not in (".jpg", ".png"):
            assert report["audio"]["seconds"] == pytest.approx(1.0, abs=0.06), (path.name, report)


def test_a_worker_that_dies_or_hangs_is_told_of_and_the_rest_is_done(tmp_path: Path) -> None:
    names = ("good", "SIGSEGV", "fine", "hangs", "last")
    script = (
        "import json, os, signal, sys, time\n"
        "for path in sys.argv[1:]:\n"
        "    print(json.dumps({'begin': path}), flush=True)\n"
        "    if 'SIGSEGV' in path: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if 'hangs' in path: time.sleep(600)\n"
        "    print(json.dumps({'end': path, 'video': {}, 'audio': {}}), flush=True)\n"
    )
    worker = (sys.executable, "-c", script)
    found = run_workers([tmp_path / name for name in names], worker, patience_s=3.0)
    told = {path.name: report["video"].get("fault", "") for path, report in found.items()}
    assert told == {
        "good": "",
        "SIGSEGV": "the process died (SIGSEGV)",
        "fine": "",
        "hangs": "isn't done after 3 s",
        "last": "",
    }


def look_at(seeds: Sequence[int], folder: Path) -> dict[int, str]:
    """What is wrong with each seed's variant; empty for those that end as they should."""
    valid = folder / "valid"
    valid.mkdir()
    files = damage.make_valid_files(valid)
    whole = run_workers(files)
    made: dict[Path, tuple[int, Path, str]] = {}
    for seed in seeds:
        origin, how, data = damage.damage(files, seed)
        # The seed stands in front: a picture's kind is told by its suffix.
        path = folder / f"{seed}_{origin.name}"
        path.write_bytes(data)
        made[path] = (seed, origin, how)
    found = run_workers(list(made))
    return {
        seed: wrong and f"{origin.name}, {how}: {wrong}"
        for path, (seed, origin, how) in made.items()
        for wrong in ["; ".join(_faults(found[path], whole[origin], origin, how))]
    }


def _faults(report: Report, whole: Report, origin: Path, how: str) -> list[str]:
    faults = [f"{kind}: {report[kind]['fault']}" for kind in ("video", "audio") if "fault" in report[kind]]
    if how == "cut" and origin.suffix in damage.TELLS_ITS_LENGTH:
        for kind, what in (("video", "frames"), ("audio", "seconds")):
            intact, left = whole[kind].get(what), report[kind].get(what)
            is_said = any("cut short" in text for text in report[kind].get("warnings", ()))
            least = LEAST_MISSING_S * (damage.RATE if what == "frames" else 1)
            if left is not None and left < intact - least and not is_said:
                faults.append(f"{kind}: half a file: {left:g} {what} of {intact:g}")
    return faults


def run_workers(
    paths: Sequence[Path],
    worker: Sequence[str] = (sys.executable, "-m", "tests.media.damage_worker"),
    patience_s: float = PATIENCE_S,
) -> dict[Path, Report]:
    """What workers say of every file; one that dies or hangs is told of in its file's report, and another goes on."""
    found: dict[Path, Report] = {}
    while left := [path for path in paths if path not in found]:
        found |= _run_worker(left, worker, patience_s)
    return found


def _run_worker(paths: Sequence[Path], worker: Sequence[str], patience_s: float) -> dict[Path, Report]:
    """Reports up to the first file that the process doesn't survive."""
    process = subprocess.Popen(
        [*worker, *map(str, paths)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True)
    thread.start()
    found: dict[Path, Report] = {}
    try:
        # What ends a process before its first file is no file's fault.
        begun = Path(json.loads(lines.get(timeout=START_S))["begin"])
        while len(found) < len(paths):
            try:
                text = lines.get(timeout=patience_s)
            except queue.Empty:
                return {**found, begun: _broken(f"isn't done after {patience_s:g} s")}
            if not text:
                return {**found, begun: _broken(f"the process died ({_ending(process.wait())})")}
            line = json.loads(text)
            if "begin" in line:
                begun = Path(line["begin"])
            else:
                found[begun] = line
        return found
    finally:
        process.kill()
        process.wait()
        thread.join()


def _pass_on(stream: Any, lines: "queue.Queue[str]") -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put("")


def _broken(fault: str) -> Report:
    return {"video": {"fault": fault}, "audio": {}}


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for number, fault in look_at([int(text) for text in sys.argv[1:]], Path(temporary)).items():
            sys.stdout.write(f"{number} {fault or 'as it should be'}\n")
