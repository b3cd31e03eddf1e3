"""Fuzz the readers of media by coverage: mutated files go through `probe`, `probe_audio` and what these promise.

    pip install -e .[fuzz]
    python -m scripts.fuzz_media --seconds 600 [--findings DIR] [--corpus DIR]
    python -m scripts.fuzz_media --replay FILE ...      what became of findings

Each run of libFuzzer is a process of its own, limited in memory and in time for an input, and ends with the first input
that crashes it, hangs it, fills its memory, or raises what isn't a DreamheadError. That input is kept in the folder of
findings, and another run goes on until the time is over. Exit status: 0 nothing found, 1 something found.

Coverage is that of the package's own Python: FFmpeg's code isn't instrumented, so that what leads deeper into a
decoder is found by chance only.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dreamhead.errors import DreamheadError

ROOT = Path(__file__).resolve().parents[1]
MODULES = ["dreamhead.media", "dreamhead.records"]
"""Whose branches are counted."""
MOST_BYTES = 64 * 1024
"""Of one input: the valid files of the corpus are smaller."""
READ_S = 2.0
"""Seconds of speech that are read at each end of a file."""
FRAMES = 40
RATE = 16_000
FUZZER = ("-print_final_stats=1", "-detect_leaks=0", "-close_fd_mask=2", "-use_value_profile=1")


def main() -> int:
    """Fuzz until the time is over, or look at given files once."""
    options = _options()
    if options.replay:
        return max(_replay(path) for path in options.replay)
    if options.inside:
        _fuzz(options)
        return 0
    found = list(_rounds(options))
    print(f"{len(found)} findings in {options.findings}" if found else "nothing found")
    for path in found:
        print(f"  {path}")
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="how long to fuzz")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where offending inputs are kept")
    parser.add_argument("--corpus", type=Path, help="inputs that reach new code, kept for the next time")
    parser.add_argument("--timeout-s", type=int, default=20, help="limit of one input")
    parser.add_argument("--memory-mb", type=int, default=2048, help="limit of the process")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each following one adds one")
    parser.add_argument("--replay", type=Path, nargs="+", default=[], help="look at these files instead of fuzzing")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _rounds(options: argparse.Namespace) -> Iterator[Path]:
    """Run libFuzzer until the time is over; yields what each run leaves."""
    options.findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or Path(folder) / "corpus"
        _fill(corpus)
        end = time.monotonic() + options.seconds
        for number in itertools.count():
            left = round(end - time.monotonic())
            if left < 1:
                return
            before = set(options.findings.iterdir())
            _round(options, corpus, left, options.seed + number)
            yield from sorted(set(options.findings.iterdir()) - before)


def _fill(corpus: Path) -> None:
    """The seeds: a small valid file of each family."""
    from tests.media.damage import make_valid_files

    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        make_valid_files(corpus)


def _round(options: argparse.Namespace, corpus: Path, seconds: int, seed: int) -> None:
    command = [sys.executable, "-m", "scripts.fuzz_media", "--inside", "--seconds", str(seconds), "--seed", str(seed)]
    command += ["--findings", str(options.findings), "--corpus", str(corpus)]
    command += ["--timeout-s", str(options.timeout_s), "--memory-mb", str(options.memory_mb)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)


def _fuzz(options: argparse.Namespace) -> None:
    """In a process of its own, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=MODULES):
        from dreamhead.media import audio, video  # noqa: F401 - imported now, they are instrumented.

    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / name for name in ("input", "input.png", "input.jpg")]

        def one(data: bytes) -> None:
            # A picture's kind is told by its suffix, every other file's by its content.
            path = names[1 if data[:4] == b"\x89PNG" else 2 if data[:2] == b"\xff\xd8" else 0]
            path.write_bytes(data)
            look(path)

        limits = [f"-max_total_time={options.seconds}", f"-timeout={options.timeout_s}"]
        limits += [f"-rss_limit_mb={options.memory_mb}", f"-max_len={MOST_BYTES}", f"-seed={options.seed}"]
        arguments = [sys.argv[0], *FUZZER, *limits, f"-artifact_prefix={options.findings.resolve()}/"]
        atheris.Setup([*arguments, str(options.corpus)], one)
        atheris.Fuzz()


def look(path: Path) -> list[str]:
    """Probe and read one file; says how each was refused. Whatever else is raised is a finding."""
    from dreamhead.media.audio import probe_audio, read_speech
    from dreamhead.media.video import probe, read_frames

    refusals = []
    try:
        info = probe(str(path))
        for _ in read_frames(info, range(min(info.frame_count, FRAMES))):
            pass
    except DreamheadError as error:
        refusals.append(f"{type(error).__name__}: {error}")
    try:
        sound = probe_audio(str(path))
        for start_s in (0.0, max(0.0, sound.duration_s - READ_S)):
            samples = read_speech(str(path), start_s, min(start_s + READ_S, sound.duration_s), RATE)
            if not abs(samples).max(initial=0.0) < float("inf"):
                raise ValueError(f"samples from {start_s:g} s aren't numbers")
    except DreamheadError as error:
        refusals.append(f"{type(error).__name__}: {error}")
    return refusals


def _replay(path: Path) -> int:
    """Look at one file in a process of its own, which may die of it."""
    script = "import sys, pathlib; from scripts.fuzz_media import look; print(look(pathlib.Path(sys.argv[1])))"
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script, str(path.resolve())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    print(f"{path}: " + ("as it should be" if not ended.returncode else f"exit status {ended.returncode}"))
    return int(ended.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
