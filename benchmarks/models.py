"""Frames per second of the networks alone, by resolution and steps, and their share of what the machine can compute.

    python benchmarks/models.py [--device cuda] [--sizes 256 512] [--steps 1 2 4] [--batch-size 8] [--compile]

The peak is measured on a product of two large matrices in the same precision; FLOPs are counted by torch.
"""

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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
MATRIX = 2048
LEAST_S = 1.0


@dataclass(frozen=True)
class Part:
    """Something to time: a call and the frames that it makes."""

    name: str
    size: int | None
    steps: int | None
    frames: int
    call: Callable[[], Any]


def main() -> None:
    """Print one table for each precision and memory layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--landmark-steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--compile", action="store_true", help="time the image networks through torch.compile too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    print(f"{_machine(device)}; batches of {arguments.batch_size}; torch {torch.__version__}")
    for precision in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            for compiled in (False, True) if arguments.compile else (False,):
                report(arguments, device, precision, layout, compiled)


def report(
    arguments: argparse.Namespace, device: torch.device, precision: torch.dtype, layout: Any, compiled: bool
) -> None:
    """One table."""
    best = peak(device, precision)
    how = f"{_short(precision)}, {_short(layout)}{', compiled' if compiled else ''}"
    print(f"\n{how}; peak {best / 1e9:.0f} GFLOP/s\n")
    print("| part | size | steps | frames/s | GFLOP a frame | share of peak |\n|---|---|---|---|---|---|")
    for part in parts(arguments, device, layout, compiled):
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            with FlopCounterMode(display=False) as counter:
                part.call()
            rate = part.frames / seconds(part.call, device)
        work = counter.get_total_flops() / part.frames
        share = f"{100 * rate * work / best:.0f} %"
        print(f"| {part.name} | {part.size or ''} | {part.steps or ''} | {rate:.1f} | {work / 1e9:.2f} | {share} |")


def parts(arguments: argparse.Namespace, device: torch.device, layout: Any, compiled: bool) -> Iterator[Part]:
    """What is timed."""
    checkpoint = Checkpoint.load(arguments.checkpoint)
    if layout == torch.contiguous_format and not compiled:
        for steps in arguments.landmark_steps:
            yield landmarks(checkpoint, device, steps)
    networks = [
        network.to(memory_format=layout)
        for network in (checkpoint.autoencoder(device), checkpoint.latent_denoiser(device))
    ]
    for size in arguments.sizes:
        yield from images(*networks, arguments, size, compiled)


def landmarks(checkpoint: Checkpoint, device: torch.device, steps: int) -> Part:
    """The whole first stage on some seconds of speech."""
    settings = LandmarkSettings(num_inference_steps=steps)
    pipeline = AudioToLandmarks.from_checkpoint(checkpoint, settings, device)
    count = int(SPEECH_S * TICK_RATE)
    features = np.random.default_rng(0).standard_normal((count * 2, 512)).astype(np.float32)
    speech = SpeechTrack(features=features, level_db=np.zeros(len(features), np.float32), start_s=0.0, rate=50.0)
    times_s, neutral = np.arange(count - WINDOW) / TICK_RATE, topology.face_model().canonical
    return Part("audio to landmarks", None, steps, len(times_s), lambda: pipeline(speech, times_s, neutral, seed=0))


def images(autoencoder: Any, denoiser: Any, arguments: argparse.Namespace, size: int, compiled: bool) -> Iterator[Part]:
    """The second stage's parts on the rows that are painted, and all of them in a few steps."""
    count, rows = arguments.batch_size, len(range(size)[painted_rows(size)])
    device = denoiser.device
    pixels = torch.rand(count, 3, rows, size, device=device) * 2 - 1
    guides = torch.rand(count, GUIDE_CHANNELS, rows, size, device=device) * 2 - 1
    encode, decode, paint = (
        torch.compile(call) if compiled else call for call in (autoencoder.encode, autoencoder.decode, denoiser)
    )
    channels = denoiser.config["latent_channels"]
    noise = keyed_noise(0, [0], (channels, rows // FACTOR, size // FACTOR)).to(device).expand(count, -1, -1, -1)
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
    for steps in arguments.steps:
        yield Part("landmarks to image", size, steps, count, lambda steps=steps: whole(steps))


def peak(device: torch.device, precision: torch.dtype) -> float:
    """FLOP a second of a large matrix product."""
    first, second = (torch.rand(MATRIX, MATRIX, device=device).to(precision) for _ in range(2))
    product = nn.functional.linear
    return float(2 * MATRIX**3 / seconds(lambda: product(first, second), device))


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Median time of a call, once warm."""
    call()
    _wait(device)
    taken: list[float] = []
    while sum(taken) < LEAST_S or len(taken) < 3:
        began = time.perf_counter()
        call()
        _wait(device)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _short(value: object) -> str:
    return str(value).removeprefix("torch.").replace("_", " ")


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
