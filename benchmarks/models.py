"""Frames per second of the networks alone, by resolution and steps, and their share of what the machine can compute.

    python benchmarks/models.py [--device cuda] [--sizes 256 512] [--steps 1 2 4] [--batch-sizes 8 32]
        [--layouts channels_last contiguous] [--compile] [--graphs] [--minutes 1] [--jsonl bench.jsonl] [--toy]

The peak is measured on a product of two large matrices in the same precision; FLOPs are counted by torch. Times are
medians once warm: what compiling or capturing takes is left out. Results of `--compile` and `--graphs` are compared
with those of the plain network before they are timed.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import name as name_of
from benchmarks.machine import peak, seconds, short
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import LandmarkSettings
from dreamhead.diffusion.objective import make_scheduler
from dreamhead.diffusion.sampling import keyed_noise, sample
from dreamhead.faces import topology
from dreamhead.models.latent_denoiser import FACTOR, GUIDE_CHANNELS
from dreamhead.pipelines.audio_to_landmarks import TICK_RATE, WINDOW, AudioToLandmarks
from dreamhead.pipelines.example import painted_rows
from dreamhead.pipelines.landmarks_to_frames import START
from dreamhead.records import SpeechTrack

SPEECH_S = 20.0
LEAST_S = {"cuda": 0.3, "cpu": 1.0}
"""What is timed again and again for so long."""
SEED = 0
LAYOUTS = ["channels_last", "contiguous"]
PLAIN, COMPILED, GRAPHS = "plain", "compiled", "CUDA graph"
COMPILE_S = 25.0
"""What compiling a network takes at most."""
NEAR = 0.05
"""||a - b|| / ||b|| of two ways to compute the same in bfloat16; another function is off by one."""


@dataclass(frozen=True)
class Part:
    """Something to time: a call and the frames that it makes."""

    name: str
    size: int | None
    steps: int | None
    frames: int
    call: Callable[[], Any]


def main() -> None:
    """Print one table for each precision, memory layout and way to call."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    device, end = torch.device(arguments.device), time.monotonic() + 60 * arguments.minutes
    print(f"## Networks\n\n{name_of(device)}; torch {torch.__version__}", flush=True)
    peaks: dict[torch.dtype, float] = {}
    for precision, layout, way in _tables(arguments):
        if precision not in peaks:
            peaks[precision] = peak(device, precision)
        report(arguments, device, precision, layout, way, peaks[precision], end)


def _tables(arguments: argparse.Namespace) -> Iterator[tuple[torch.dtype, Any, str]]:
    """What tells most comes first, and what takes long to begin with last."""
    half, full, last, contiguous = torch.bfloat16, torch.float32, torch.channels_last, torch.contiguous_format
    # A CPU without bfloat16 takes seconds for a toy.
    precisions = (full,) if arguments.toy else (half, full)
    if "channels_last" in arguments.layouts:
        yield from ((precision, last, PLAIN) for precision in precisions)
    if arguments.graphs:
        yield from ((precision, last, GRAPHS) for precision in precisions)
    if "contiguous" in arguments.layouts:
        yield from ((precision, contiguous, PLAIN) for precision in precisions)
    if arguments.compile:
        yield from ((precision, last, COMPILED) for precision in precisions)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--landmark-steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8])
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS, help="of what is timed plain")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--compile", action="store_true", help="time the image networks through torch.compile too")
    parser.add_argument("--graphs", action="store_true", help="time them as CUDA graphs too; on a GPU only")
    parser.add_argument("--minutes", type=float, default=60.0, help="no table or row begins later")
    parser.add_argument("--jsonl", type=Path, help="file that each row is added to")
    parser.add_argument("--toy", action="store_true", help="one small row of a kind, to see that it runs")
    arguments = parser.parse_args()
    if arguments.graphs and torch.device(arguments.device).type != "cuda":
        parser.error("--graphs: CUDA graphs need --device cuda")
    if arguments.toy:
        arguments.sizes, arguments.steps, arguments.landmark_steps = [128], [1], [1]
        arguments.batch_sizes, arguments.threads = [1], 1
    return arguments


def report(
    arguments: argparse.Namespace,
    device: torch.device,
    precision: torch.dtype,
    layout: Any,
    way: str,
    best: float,
    end: float,
) -> None:
    """One table."""
    least_s = 0.0 if arguments.toy else LEAST_S[device.type]
    heading = "part", "size", "batch", "steps", "ms a frame", "frames/s", "GFLOP a frame", "share of peak %"
    print(f"\n### {short(precision)}, {short(layout)}, {way}; peak {best / 1e12:.3g} TFLOP/s\n")
    print(f"| {' | '.join(heading)} |\n{'|---' * len(heading)}|", flush=True)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        for part in parts(arguments, device, layout, way):
            if time.monotonic() + (COMPILE_S if way == COMPILED else 0.0) >= end:
                print("- not measured: the rest of this table; the time was up", flush=True)
                return
            with FlopCounterMode(display=False) as counter:
                part.call()
            call = made_fast(part, way) if part.size else part.call
            rate = part.frames / seconds(call, device, least_s)
            work = counter.get_total_flops() / part.frames
            row = [part.name, part.size, part.frames if part.size else None, part.steps]
            row += [1e3 / rate, rate, work / 1e9, 100 * rate * work / best]
            print("| " + " | ".join(_shown(value) for value in row) + " |", flush=True)
            if arguments.jsonl:
                how = {"precision": short(precision), "layout": short(layout), "way": way}
                with arguments.jsonl.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(how | dict(zip(heading, row, strict=True))) + "\n")


def made_fast(part: Part, way: str) -> Callable[[], Any]:
    """The call, compiled or as a graph; raises SystemExit where its result is another."""
    if way == PLAIN:
        return part.call
    reference = _first(part.call()).float().clone()
    call = torch.compile(part.call) if way == COMPILED else captured(part.call)
    found = _first(call()).float()
    distance = float((found - reference).norm() / reference.norm())
    if not distance <= NEAR:
        raise SystemExit(f"{part.name}, {way}: ||a - b|| / ||b|| to the plain call is {distance:.2g}, allowed {NEAR}")
    return call


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """A replay of all that the call launches; its result lies where the first one's did."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def parts(arguments: argparse.Namespace, device: torch.device, layout: Any, way: str) -> Iterator[Part]:
    """What is timed."""
    checkpoint = Checkpoint.load(arguments.checkpoint)
    networks = [
        network.to(memory_format=layout)
        for network in (checkpoint.autoencoder(device), checkpoint.latent_denoiser(device))
    ]
    # Each shape is compiled anew.
    some = slice(1) if way == COMPILED else slice(None)
    for size in arguments.sizes[some]:
        for count in arguments.batch_sizes[::-1][some]:
            # Capturing copies from the CPU isn't possible, and the sampler's loop does that.
            yield from images(*networks, count, size, arguments.steps if way == PLAIN else [])
    if layout == torch.channels_last and way == PLAIN:
        for steps in arguments.landmark_steps:
            yield landmarks(checkpoint, device, steps)


def landmarks(checkpoint: Checkpoint, device: torch.device, steps: int) -> Part:
    """The whole first stage on some seconds of speech."""
    settings = LandmarkSettings(num_inference_steps=steps)
    pipeline = AudioToLandmarks.from_checkpoint(checkpoint, settings, device)
    count = int(SPEECH_S * TICK_RATE)
    features = np.random.default_rng(0).standard_normal((count * 2, 512)).astype(np.float32)
    speech = SpeechTrack(features=features, level_db=np.zeros(len(features), np.float32), start_s=0.0, rate=50.0)
    times_s, neutral = np.arange(count - WINDOW) / TICK_RATE, topology.face_model().canonical
    return Part("audio to landmarks", None, steps, len(times_s), lambda: pipeline(speech, times_s, neutral, seed=0))


def images(autoencoder: Any, denoiser: Any, count: int, size: int, all_steps: list[int]) -> Iterator[Part]:
    """The second stage's parts on the rows that are painted, and all of them in a few steps."""
    rows = len(range(size)[painted_rows(size)])
    device, encode, decode, paint = denoiser.device, autoencoder.encode, autoencoder.decode, denoiser
    pixels = torch.rand(count, 3, rows, size, device=device) * 2 - 1
    guides = torch.rand(count, GUIDE_CHANNELS, rows, size, device=device) * 2 - 1
    channels = denoiser.config["latent_channels"]
    noise = keyed_noise(SEED, [0], (channels, rows // FACTOR, size // FACTOR)).to(device).expand(count, -1, -1, -1)
    timestep = torch.full((count,), 500, device=device)

    def whole(steps: int) -> Tensor:
        reference, masked = encode(torch.cat([pixels, pixels])).chunk(2)
        clean = sample(
            lambda noisy, step: paint(noisy, step, reference, masked, guides)[0],
            make_scheduler(),
            noise,
            steps,
            begin=reference,
            start=START,
        )
        return decode(clean)

    yield Part("encode, 2 pictures a frame", size, None, count, lambda: encode(torch.cat([pixels, pixels])))
    yield Part("denoise", size, 1, count, lambda: paint(noise, timestep, noise, noise, guides))
    yield Part("decode", size, None, count, lambda: decode(noise))
    for steps in all_steps:
        yield Part("landmarks to image", size, steps, count, lambda steps=steps: whole(steps))


def _first(result: Any) -> Tensor:
    first: Tensor = result[0] if isinstance(result, tuple) else result
    return first


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
