"""What this machine is, and what it computes and moves at most, measured: one line of JSON.

    python benchmarks/machine.py [--device cuda]

Datasheets promise more: shares of a peak are shares of what a large matrix product reaches here.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MATRIX = {"cuda": 8192, "cpu": 512}
"""Side of the matrices: those of a CPU's size wouldn't fill a GPU."""
COPIED_BYTES = {"cuda": 2 << 30, "cpu": 32 << 20}
"""Several times what a cache holds."""
LEAST_S, LEAST_TIMES = 0.5, 5


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(facts(torch.device(parser.parse_args().device))))


def facts(device: torch.device) -> dict[str, Any]:
    """Names, versions, and the two ceilings."""
    found: dict[str, Any] = {"cuda_device": torch.cuda.is_available(), "device": name(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"memory_gib": round(properties.total_memory / 2**30, 1), "driver": _driver()}
        found |= {"capability": f"{properties.major}.{properties.minor}", "cudnn": torch.backends.cudnn.version()}
    found |= {"cuda": torch.version.cuda, "torch": torch.__version__, "python": platform.python_version()}
    found |= {"cores": len(os.sched_getaffinity(0))}
    for precision in (torch.bfloat16, torch.float32):
        found[f"{short(precision)}_tflops"] = round(peak(device, precision) / 1e12, 3)
    return found | {"copy_gb_s": round(copy_rate(device) / 1e9, 1)}


def peak(device: torch.device, precision: torch.dtype) -> float:
    """FLOP a second of a large matrix product; of random numbers, since zeros run faster."""
    side = MATRIX[device.type]
    pairs = [[torch.randn(side, side, device=device).to(precision) for _ in range(2)] for _ in range(2)]
    turn = iter(range(1 << 30))

    def product() -> Tensor:
        first, second = pairs[next(turn) % len(pairs)]
        return torch.nn.functional.linear(first, second)

    return 2 * side**3 / seconds(product, device)


def copy_rate(device: torch.device) -> float:
    """Bytes a second, read and written, of a copy within the device."""
    source = torch.randint(256, (COPIED_BYTES[device.type],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source), device)


def seconds(call: Callable[[], Any], device: torch.device, least_s: float = LEAST_S) -> float:
    """Median time of a call, once warm; a GPU's by its own events."""
    for _ in range(2):
        call()
    timed = _timed_by_events if device.type == "cuda" else _timed_by_clock
    taken: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < least_s or len(taken) < LEAST_TIMES:
        taken.append(timed(call))
    return statistics.median(taken)


def name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def short(value: object) -> str:
    """A name of torch's without its package."""
    return str(value).removeprefix("torch.").replace("_", " ")


def _timed_by_events(call: Callable[[], Any]) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    call()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3


def _timed_by_clock(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"


if __name__ == "__main__":
    main()
