"""Where each millisecond of rendering and of a whole dub goes on a GPU, and how many CPU cores one GPU keeps busy.

    python -m benchmarks.gpu_stages --prepare .gpu/bench [--video V --audio A]     where an analysis can be made
    python benchmarks/gpu_stages.py --carried .gpu/bench [--minutes 2.5] [--jsonl bench.jsonl] [--toy]

Each result is printed as it comes; what there is no time for is said to be missing. Outputs are checked before
anything is timed: as many frames as went in, the mouth another, the rest equal to the bit.
"""

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu_work import Opened, carry, open_scaled
from benchmarks.machine import name
from dreamhead.faces import topology
from dreamhead.media.video import probe
from dreamhead.pipelines import landmarks_to_frames
from dreamhead.records import Chunk, ShotAnalysis
from dreamhead.stages import render
from dreamhead.stages.finalize import finalize
from dreamhead.stages.landmarks import MakeLandmarks
from dreamhead.stages.render import RenderChunk
from dreamhead.stages.results import Tally

SIZES = {"512x512": (512, 512), "1920x1080": (1920, 1080), "3840x2160": (3840, 2160)}
TOY_SIZES = {"320x180": (320, 180)}
FRAMES = {"1920x1080": 32, "3840x2160": 10}
"""Of the sizes that take long: all that is done with each takes six times what one rendering does."""
MOST_FRAMES, TOY_FRAMES = 56, 2
SHARED = "1920x1080"
"""Size that several processes render at once."""
PROCESSES, TOY_PROCESSES = (1, 2, 4, 8, 16), (1, 2)
SHARED_FRAMES = 24
SHARED_S, TOY_SHARED_S = 5.0, 1.0
READY_S, TOY_READY_S = 120.0, 600.0
SECTIONS = ("decode", "example", "networks", "composite", "encode", "rest")
LEAST_CHANGE = 1.0
"""Mean difference of a dubbed mouth's pixels, in levels; no less would be worth the name."""

Picture = NDArray[np.uint8]


class Clock:
    """Seconds by section; what runs within another section counts in its own only."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def section(self, which: str) -> Iterator[None]:
        """Count what runs in here."""
        self._turn()
        self._open.append(which)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def around(self, which: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, counted."""

        def counted(*arguments: Any, **named: Any) -> Any:
            with self.section(which):
                return call(*arguments, **named)

        return counted

    def each(self, which: str, call: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        """The call, each of whose items is counted while it is waited for."""

        def counted(*arguments: Any, **named: Any) -> Iterator[Any]:
            items = iter(call(*arguments, **named))
            while True:
                with self.section(which):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return counted

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Results:
    """Prints tables row by row, and keeps each result as a line of JSON."""

    def __init__(self, path: Path | None, deadline: float) -> None:
        self._path = path
        self._deadline = deadline
        self._heading: tuple[str, ...] = ()

    def begin(self, title: str, *heading: str) -> None:
        """Start a table."""
        print(f"\n### {title}\n\n| {' | '.join(heading)} |\n{'|---' * len(heading)}|", flush=True)
        self._heading = heading

    def row(self, *values: object) -> None:
        """Add a result to the table."""
        print("| " + " | ".join(_shown(value) for value in values) + " |", flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(zip(self._heading, values, strict=True))) + "\n")

    def lacks_time(self, what: str, needed_s: float) -> bool:
        """Whether there is none left; says what isn't measured."""
        left_s = self._deadline - time.monotonic()
        if left_s < needed_s:
            print(f"- not measured: {what}; {max(0, left_s):.0f} s were left of {needed_s:.0f} s needed", flush=True)
        return left_s < needed_s


def main() -> None:
    """Prepare or measure."""
    arguments = _arguments()
    if arguments.prepare:
        prepare(arguments.prepare, arguments.video, arguments.audio)
    else:
        results = Results(arguments.jsonl, time.monotonic() + arguments.minutes * 60)
        with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as folder:
            measure(arguments.carried, Path(folder), results, arguments.toy)


def prepare(folder: Path, video: str, audio: str) -> None:
    """Make what is carried; of the demonstration's clip unless told otherwise."""
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as samples:
        if not (video and audio):
            from dreamhead.demo.samples import make_samples  # needs the demo extra, which a lent machine lacks

            make_samples(Path(samples))
            video, audio = (str(Path(samples) / part) for part in ("clip.mp4", "english.wav"))
        print(f"{folder}: {carry(folder, video, audio)} bytes")


def measure(carried: Path, folder: Path, results: Results, toy: bool) -> None:
    """All tables."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if toy:
        # Busy cores: threads that wait for each other would take most of the time.
        torch.set_num_threads(1)
    print(f"## Stages\n\n{name(device)}; torch {torch.__version__}{'; toy sizes' if toy else ''}", flush=True)
    opened: dict[str, Opened] = {}
    results.begin("Rendering: ms a frame", "render", "frames", *SECTIONS, "all", "frames/s", *GPU_COLUMNS)
    for which, size in (TOY_SIZES if toy else SIZES).items():
        if results.lacks_time(f"rendering at {which}", 5.0 if toy else 20.0):
            continue
        count = TOY_FRAMES if toy else FRAMES.get(which, MOST_FRAMES)
        opened[which] = open_scaled(carried, folder / which, size, count, threads=1 if toy else 2)
        results.row(which, count, *rendered(opened[which], device))
    results.begin("A whole dub but for the analysis: s", "dub", "frames", "landmarks", "render", "finalize", "frames/s")
    for which, its in opened.items():
        if not results.lacks_time(f"a dub at {which}", 3.0 if toy else 10.0):
            results.row(which, *dubbed(its))
    shared(carried, folder, results, toy)


GPU_COLUMNS = ("GPU ms", "GPU idle %", "CPU ms", "CPU cores that fill the GPU", "allocated MiB", "reserved MiB")


def rendered(opened: Opened, device: torch.device) -> list[object]:
    """Check one rendering, time the next, and watch what the GPU does in a third."""
    chunk = with_landmarks(opened)
    stage = RenderChunk(opened.work.settings, "", opened.work.uri)
    checked(stage, chunk, opened.shot)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clock, cpu_s, frames = Clock(), time.process_time(), chunk.stop - chunk.start
    with watched_sections(clock), clock.section("rest"):
        _done(stage(chunk))
    cpu_ms = 1e3 * (time.process_time() - cpu_s) / frames
    missing = [which for which in SECTIONS if not clock.seconds[which]]
    if missing:
        raise SystemExit(f"nothing was timed as {missing}: the pipeline isn't built any more as is believed here")
    ms = [1e3 * clock.seconds[which] / frames for which in SECTIONS]
    row: list[object] = [*ms, sum(ms), 1e3 / sum(ms)]
    if device.type != "cuda":
        return [*row, None, None, cpu_ms, None, None, None]
    gpu_ms = 1e3 * _kernel_seconds(lambda: _done(stage(chunk))) / frames
    memory = (torch.cuda.max_memory_allocated() / 2**20, torch.cuda.max_memory_reserved() / 2**20)
    return [*row, gpu_ms, 100 * (1 - gpu_ms / sum(ms)), cpu_ms, cpu_ms / gpu_ms, *memory]


def with_landmarks(opened: Opened) -> Chunk:
    """The chunk, its landmarks published."""
    return _done(MakeLandmarks(opened.work.settings, "", opened.work.uri)(opened.chunk))


def checked(stage: RenderChunk, chunk: Chunk, shot: ShotAnalysis) -> None:
    """Render once, and compare every frame with the one that it was made of."""
    kept: deque[Picture] = deque()
    read, encode, compared = render.read_frames, render.encode_chunk, 0

    def reading(*arguments: Any) -> Iterator[Picture]:
        for frame in read(*arguments):
            kept.append(frame.copy())
            yield frame

    def comparing(frames: Iterable[Picture]) -> Iterator[Picture]:
        nonlocal compared
        for number, frame in enumerate(frames):
            _compare(frame, kept.popleft(), shot, number)
            compared += 1
            yield frame

    def encoding(path: Path, frames: Iterable[Picture], *rest: Any) -> int:
        return encode(path, comparing(frames), *rest)

    with patch.object(render, "read_frames", reading), patch.object(render, "encode_chunk", encoding):
        done = _done(stage(chunk))
    expected = chunk.stop - chunk.start
    found = compared, done.dubbed_frames, probe(done.chunk_uri).frame_count
    if found != (expected,) * 3:
        raise SystemExit(f"{expected} frames were expected; compared, dubbed and encoded were {found}")


def dubbed(opened: Opened) -> list[object]:
    """Seconds of each stage from the carried analysis to the published output, which is then looked at."""
    settings, uri = opened.work.settings, opened.work.uri
    stages = MakeLandmarks(settings, "", uri), RenderChunk(settings, "", uri)
    Path(opened.chunk.job.output_uri).unlink(missing_ok=True)
    landmarks = opened.work.landmarks_uri(opened.chunk)
    # Warm, and then all of it anew.
    _done(stages[1](_done(stages[0](opened.chunk))))
    Path(landmarks).unlink()
    times = [time.perf_counter()]
    chunk = opened.chunk
    for stage in stages:
        chunk = _done(stage(chunk))
        times.append(time.perf_counter())
    row = finalize(opened.prepared, opened.work, "benchmark", Tally().plus(chunk))
    times.append(time.perf_counter())
    if row["status"] != "succeeded":
        raise SystemExit(f"{row['error_type']}: {row['error']}")
    frames, output = chunk.stop - chunk.start, probe(chunk.job.output_uri)
    if output.frame_count != frames or not output.has_audio:
        raise SystemExit(f"{output.uri}: {output.frame_count} frames, sound: {output.has_audio}; expected {frames}")
    return [frames, *np.diff(times).tolist(), frames / (times[-1] - times[0])]


def shared(carried: Path, folder: Path, results: Results, toy: bool) -> None:
    """Frames a second of several processes that render at once, each with one thread and a job of its own."""
    counts, seconds = (TOY_PROCESSES, TOY_SHARED_S) if toy else (PROCESSES, SHARED_S)
    needed_s = 10.0 if toy else 45.0
    if results.lacks_time("several processes on one GPU", needed_s):
        return
    heading = "processes", "frames", "seconds", "frames/s", "frames/s a process", "GPU utilisation %"
    which = next(reversed(TOY_SIZES)) if toy else SHARED
    results.begin(f"Processes that render {which} at once, sharing the device", *heading)
    shared_folder = folder / "shared"
    size, frames = (TOY_SIZES if toy else SIZES)[which], TOY_FRAMES if toy else SHARED_FRAMES
    open_scaled(carried, shared_folder, size, frames, threads=1)
    with ExitStack() as stack:
        crew = [stack.enter_context(_Worker(n, carried, shared_folder, toy)) for n in range(max(counts))]
        for worker in crew:
            worker.answer(TOY_READY_S if toy else READY_S)
        for count in counts:
            if results.lacks_time(f"{count} processes at once", seconds + 2):
                continue
            with utilisation() as seen:
                began = time.monotonic()
                for worker in crew[:count]:
                    worker.tell(seconds)
                # Each ends with the frame that it is at.
                told = [worker.answer() for worker in crew[:count]]
            if not all(frames for frames, _ in told):
                raise SystemExit(f"{count} processes: one of them rendered nothing")
            rate = sum(frames / taken for frames, taken in told)
            total, took = sum(frames for frames, _ in told), time.monotonic() - began
            results.row(count, total, took, rate, rate / count, float(np.mean(seen)) if seen else None)


class _Worker:
    """One of several processes that render at once."""

    def __init__(self, number: int, carried: Path, folder: Path, toy: bool) -> None:
        # Sixteen imports take long, but what has used CUDA can't be forked.
        context = multiprocessing.get_context("spawn")
        self._told, its = context.Pipe()
        self._process = context.Process(target=work_as_told, args=(its, number, carried, folder, toy), daemon=True)
        self._process.start()
        its.close()

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()

    def tell(self, seconds: float) -> None:
        """Have it render for so long."""
        self._told.send(seconds)

    def answer(self, within_s: float = READY_S) -> tuple[int, float]:
        """Frames and seconds of what it did; raises SystemExit where it died, or doesn't answer."""
        try:
            if self._told.poll(within_s):
                found: tuple[int, float] = self._told.recv()
                return found
        except EOFError:
            self._process.join()
            raise SystemExit(f"a rendering process ended with {self._process.exitcode}") from None
        raise SystemExit(f"a rendering process didn't answer in {within_s:g} s")


def work_as_told(told: Connection, number: int, carried: Path, folder: Path, toy: bool) -> None:
    """Open the shared clip under a job of one's own, and render for each number of seconds that comes."""
    torch.set_num_threads(1)
    size = TOY_SIZES[next(reversed(TOY_SIZES))] if toy else SIZES[SHARED]
    opened = open_scaled(carried, folder, size, TOY_FRAMES if toy else SHARED_FRAMES, threads=1, number=number + 1)
    stage, chunk, frames = RenderChunk(opened.work.settings, "", opened.work.uri), with_landmarks(opened), 0
    composite = landmarks_to_frames.composite

    def counting(*arguments: Any) -> Picture:
        nonlocal frames
        if frames and time.monotonic() >= end:
            raise _TimeIsUpError
        frames += 1
        return composite(*arguments)

    _done(stage(chunk))
    told.send((0, 0.0))
    while True:
        seconds = told.recv()
        frames, began = 0, time.monotonic()
        end = began + seconds
        with patch.object(landmarks_to_frames, "composite", counting), suppress(_TimeIsUpError):
            while True:
                _done(stage(chunk))
        told.send((frames, time.monotonic() - began))


class _TimeIsUpError(Exception):
    """Ends a rendering that is measured; not one of ours, so that no stage takes it for a failed chunk."""


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """Per cent of the time in which the GPU had something to do, looked at all the while; empty where none tells."""
    seen: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.25):
            seen.append(float(torch.cuda.utilization()))

    thread = threading.Thread(target=look, daemon=True)
    able = torch.cuda.is_available() and _can_tell()
    if able:
        thread.start()
    yield seen
    over.set()
    if able:
        thread.join()


def _can_tell() -> bool:
    try:
        torch.cuda.utilization()
    except (ImportError, ModuleNotFoundError, RuntimeError) as error:
        print(f"- GPU utilisation isn't known: {error}", flush=True)
        return False
    return True


@contextmanager
def watched_sections(clock: Clock) -> Iterator[None]:
    """Have the stage's and the pipeline's parts counted."""
    pipeline = landmarks_to_frames.LandmarksToFrames
    with ExitStack() as stack:

        def watch(owner: Any, attribute: str, counted: Callable[..., Any]) -> None:
            stack.enter_context(patch.object(owner, attribute, counted))

        watch(render, "read_frames", clock.each("decode", render.read_frames))
        watch(render, "encode_chunk", clock.around("encode", render.encode_chunk))
        watch(landmarks_to_frames, "composite", clock.around("composite", landmarks_to_frames.composite))
        watch(pipeline, "_made", clock.around("example", pipeline._made))
        watch(pipeline, "_references", clock.around("example", pipeline._references))
        watch(pipeline, "_painted", clock.around("networks", pipeline._painted))
        yield


def _compare(frame: Picture, source: Picture, shot: ShotAnalysis, number: int) -> None:
    """The mouth must have changed, and nothing outside the crop."""
    height, width = source.shape[:2]
    transform, side = shot.crops[number], shot.reference_crops.shape[1]
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float32)
    inverse = np.linalg.inv(transform[:, :2])
    placed = (corners - transform[:, 2]) @ inverse.T
    left, top = np.clip(np.floor(placed.min(axis=0)) - 1, 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(placed.max(axis=0)) + 2, 0, (width, height)).astype(int)
    outside = np.ones((height, width), np.bool_)
    outside[top:bottom, left:right] = False
    if (frame[outside] != source[outside]).any():
        raise SystemExit(f"frame {number}: pixels outside the crop have changed")
    lips = shot.landmarks[number][list(topology.OUTER_LOWER_LIP + topology.OUTER_UPPER_LIP), :2]
    (x0, y0), (x1, y1) = lips.min(axis=0).astype(int), lips.max(axis=0).astype(int)
    change = np.abs(frame[y0:y1, x0:x1].astype(int) - source[y0:y1, x0:x1]).mean()
    if not change > LEAST_CHANGE:
        raise SystemExit(f"frame {number}: the mouth changed by {change:.2f} levels; it isn't dubbed")


def _kernel_seconds(call: Callable[[], Any]) -> float:
    """Seconds of the device's kernels and copies, which run one after the other here."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        call()
    # What launched a kernel bears its time too.
    ran = [event for event in found.events() if event.device_type == DeviceType.CUDA]
    if not ran:
        raise SystemExit("the profiler saw nothing run on the GPU")
    return sum(event.self_device_time_total for event in ran) / 1e6


def _done(chunk: Chunk) -> Chunk:
    if chunk.error:
        raise SystemExit(chunk.error)
    return chunk


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="make what is carried there, and no more")
    parser.add_argument("--video", default="", help="to prepare: of one shot, with a face")
    parser.add_argument("--audio", default="", help="to prepare")
    parser.add_argument("--carried", type=Path, default=Path(".gpu/bench"))
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--jsonl", type=Path)
    parser.add_argument("--toy", action="store_true", help="small and short, to see that it runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
