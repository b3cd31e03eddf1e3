"""Make thousands of tiny videos and speeches, each with a content of its own, and their manifest."""

import json
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.inputs import CHEAP
from dreamhead.config import OutputSettings
from dreamhead.media.audio import write_wav
from dreamhead.media.encode import encode_chunk
from dreamhead.records import VideoInfo

SIZE = 64
SPEECH_RATE = 16_000
SPEECH_SAMPLES = 800


def write_videos(folder: Path, frame_counts: Sequence[int]) -> list[str]:
    """Grey videos of one frame a second; their names. Those of one length differ in a box that players pass over."""
    folder.mkdir(parents=True, exist_ok=True)
    names, first = [], dict[int, Path]()
    for index, count in enumerate(frame_counts):
        path = folder / f"video{index}.mp4"
        if count not in first:
            first[count] = _encode(folder / f"frames{count}.mp4", count)
        shutil.copyfile(first[count], path)
        with path.open("ab") as file:
            file.write((16).to_bytes(4, "big") + b"free" + index.to_bytes(8, "big"))
        names.append(path.name)
    return names


def write_manifest(folder: Path, videos: Sequence[str], speeches: int) -> Path:
    """A row for each video and each of its speeches, every one a file of its own."""
    rows = []
    for video_index, video in enumerate(videos):
        for index in range(speeches):
            name = f"speech{video_index}-{index}.wav"
            samples = np.zeros(SPEECH_SAMPLES, np.float32)
            samples[:32] = [(len(rows) >> bit) & 1 for bit in range(32)]
            write_wav(folder / name, samples, SPEECH_RATE)
            job_id = f"{Path(video).stem}-{index}"
            row = {"job_id": job_id, "video_uri": video, "audio_uri": name, "output_uri": f"out/{job_id}.mp4"}
            rows.append(row | {"language": f"language{index}"})
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def _encode(path: Path, count: int) -> Path:
    info = VideoInfo(
        uri=str(path),
        width=SIZE,
        height=SIZE,
        rotation=0,
        sample_aspect_ratio=Fraction(1),
        average_rate=Fraction(1),
        time_base=Fraction(1),
        pts=np.arange(count),
        end_pts=count,
        color=(1, 1, 1, 1),
        has_audio=False,
    )
    frames = (np.full((SIZE, SIZE, 3), 128, np.uint8) for _ in range(count))
    encode_chunk(path, frames, info, info.pts, info.end_pts, OutputSettings.model_validate(CHEAP))
    return path
