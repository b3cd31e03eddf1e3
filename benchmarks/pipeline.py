"""Frames per second of every step of a dub, in one process on this machine, and where rendering's milliseconds go.

    python -m benchmarks.pipeline [--video V --audio A] [--config F] [--checkpoint C]

Without files of your own it dubs the demonstration's clip. Steps are measured twice: within a whole dub, and alone.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_stages import SECTIONS, Clock, watched_sections
from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings, load_yaml
from dreamhead.demo.samples import make_samples
from dreamhead.evaluation.baselines import own_targets
from dreamhead.media.encode import encode_chunk
from dreamhead.media.video import probe, read_frames
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.pipelines.landmarks_to_frames import LandmarksToFrames
from dreamhead.records import Job, VideoInfo
from dreamhead.stages.device import use_device
from dreamhead.stages.dub import dub

FRAMES_ALONE = 64


def main() -> None:
    """Print one table for the whole dub and one for its parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video")
    parser.add_argument("--audio")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--checkpoint", default="")
    arguments = parser.parse_args()
    settings = load_yaml(arguments.config, DubSettings) if arguments.config else DubSettings()
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as name:
        folder = Path(name)
        video, audio = arguments.video, arguments.audio
        if not (video and audio):
            make_samples(folder / "samples")
            video, audio = str(folder / "samples/clip.mp4"), str(folder / "samples/english.wav")
        info = probe(storage.resolve(video, "."))
        device = use_device(settings)
        print(f"{_machine(device)}; {info.width}x{info.height}, {info.frame_count} frames; {_how(settings)}\n")
        clock = Clock()
        with watched_sections(clock), clock.section("rest"):
            frames = whole(info, storage.resolve(audio, "."), settings, arguments.checkpoint, folder)
        print("\n| part of rendering | ms a frame |\n|---|---|")
        for section in SECTIONS[:-1]:
            print(f"| {section} | {1e3 * clock.seconds[section] / frames:.1f} |")
        alone(info, settings, arguments.checkpoint, device, folder)


def whole(info: VideoInfo, audio: str, settings: DubSettings, checkpoint: str, folder: Path) -> int:
    """Dub once, cold, and divide the frames by each stage's seconds; loading of weights counts in the whole only.

    Returns how many frames there were.
    """
    output = str(folder / "output.mp4")
    job = Job(job_id="benchmark", row=0, video_uri=info.uri, audio_uri=audio, output_uri=output)
    began = time.perf_counter()
    row = dub(job, settings, checkpoint, str(folder / "work"))
    seconds = {**row["seconds"], "all stages": sum(row["seconds"].values()), "with start": time.perf_counter() - began}
    if row["status"] != "succeeded":
        raise SystemExit(f"{row['error_type']}: {row['error']}")
    print("| stage of a dub | frames/s |\n|---|---|")
    for stage, taken in seconds.items():
        print(f"| {stage} | {row['frames'] / taken:.1f} |")
    return int(row["frames"])


def alone(info: VideoInfo, settings: DubSettings, uri: str, device: torch.device, folder: Path) -> None:
    """Time parts on the same few frames, once warm."""
    frames = list(read_frames(info, range(min(info.frame_count, FRAMES_ALONE))))
    analyser = VideoAnalyser(settings.analysis, settings.weights)
    times_s = info.times_s[: len(frames)]
    shot = next(iter(analyser(frames, 0, times_s, "largest", info.pixel_aspect)))
    checkpoint = Checkpoint.load(uri)
    pipeline = LandmarksToFrames.from_checkpoint(checkpoint, settings.render, device)
    parts: dict[str, Callable[[], object]] = {
        "decode": lambda: list(read_frames(info, range(len(frames)))),
        "find and follow the face": lambda: list(analyser(frames, 0, times_s, "largest", info.pixel_aspect)),
        "example, networks, composite": lambda: list(
            pipeline(iter(frames), range(len(frames)), np.ones(len(frames), np.float32), shot, own_targets(shot), 0)
        ),
        "encode": lambda: encode_chunk(
            folder / "part.mp4", frames, info, info.pts[: len(frames)], int(info.end_pts), settings.output
        ),
    }
    print("\n| part alone | frames/s |\n|---|---|")
    for name, part in parts.items():
        part()
        began = time.perf_counter()
        part()
        print(f"| {name} | {len(frames) / (time.perf_counter() - began):.1f} |")
    analyser.close()


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _how(settings: DubSettings) -> str:
    render = settings.render
    return f"{render.renderer}, {render.num_inference_steps} steps, {render.precision} precision"


if __name__ == "__main__":
    main()
