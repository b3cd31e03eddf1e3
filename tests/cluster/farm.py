"""A small farm for tests: a manifest, settings and tiny weights in one folder, and the batch command on them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from dreamhead.cluster import batch
from tests.tiny import CROP_SIZE, tiny_checkpoint

ROOT = Path(__file__).parents[2]
ONE = {"min_size": 1, "max_size": 1, "num_cpus": 0.5}
TWO = {"min_size": 2, "max_size": 2, "num_cpus": 0.5}

Row = dict[str, Any]


class Farm:
    """Jobs for one clip, a language each, named job0, job1 and so on; their outputs are out/0.mp4 and so on."""

    def __init__(self, folder: Path, video_uri: str, speeches: list[str]) -> None:
        self.folder = folder
        self.checkpoint = str(tiny_checkpoint(folder / "checkpoint"))
        self.rows: list[Row] = [
            {"job_id": f"job{index}", "video_uri": video_uri, "audio_uri": speech, "output_uri": f"out/{index}.mp4"}
            for index, speech in enumerate(speeches)
        ]
        self.manifest = folder / "manifest.jsonl"
        self.config = folder / "config.yaml"
        self.results = folder / "results.parquet"
        self.write_manifest()
        self.configure(ONE)

    def write_manifest(self) -> None:
        """Write the rows as they are now."""
        self.manifest.write_text("\n".join(map(json.dumps, self.rows)))

    def configure(self, pool: Mapping[str, Any], *, pools: Mapping[str, Any] | None = None, **render: Any) -> None:
        """Write the settings: the pools of analyse and render, other settings of pools, those of rendering."""
        values = {
            "cpu_threads": 1,
            "analysis": {"crop_size": CROP_SIZE, "chunk_s": 0.25, "span_s": 0.5, "reference_frames": 3},
            "landmarks": {"num_inference_steps": 1},
            "render": {"num_inference_steps": 1, **render},
            "output": {"preset": "ultrafast", "encoder_threads": 1},
            "pools": {"analyse": dict(pool), "landmarks": ONE, "render": dict(pool), **(pools or {})},
        }
        self.config.write_text(yaml.safe_dump(values))

    def arguments(self, work: str = "work", *more: str) -> list[str]:
        """The batch command's arguments."""
        return [
            *(str(self.manifest), "--config", str(self.config), "--checkpoint", self.checkpoint),
            *("--work", str(self.folder / work), "--results", str(self.results), *more),
        ]

    def run(self, work: str = "work", *more: str) -> tuple[int, list[Row]]:
        """The batch command's exit status and its results, on the tests' Ray."""
        return batch.main(self.arguments(work, *more)), self.rows_of_results()

    def start(self, work: str = "work", *more: str, **environment: str) -> "subprocess.Popen[str]":
        """The batch command as a process of its own."""
        return self.start_with(self.arguments(work, *more), **environment)

    @staticmethod
    def start_with(arguments: Sequence[str], **environment: str) -> "subprocess.Popen[str]":
        """The same, with other arguments."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "ray_jobs" / "batch_render.py"), *arguments],
            env=environment_with(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rows_of_results(self) -> list[Row]:
        """What results.parquet holds."""
        rows: list[Row] = pq.read_table(self.results).to_pylist()
        return rows

    def frames(self, count: int = 2) -> list[NDArray[np.uint8]]:
        """(T, H, W, 3) of the first outputs."""
        return [decode(self.folder / "out" / f"{index}.mp4") for index in range(count)]

    def sidecars(self, work: str = "work") -> list[Path]:
        """The marks of all chunks that are done."""
        return sorted((self.folder / work / "jobs").rglob("chunk-*.json"))


def environment_with(**more: str) -> dict[str, str]:
    """This process's environment, with the checkout's package first."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    quiet = {"RAY_ADDRESS": "local", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**os.environ, **quiet, "PYTHONPATH": path, **more}


def decode(path: Path) -> NDArray[np.uint8]:
    """(T, H, W, 3) of a video file."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
