"""Stage 3: decode one chunk's frames, paint them, encode them, publish the chunk and its sidecar."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings
from dreamhead.errors import MediaError
from dreamhead.faces.overlay import covered
from dreamhead.media.encode import encode_chunk
from dreamhead.media.video import read_frames
from dreamhead.pipelines.landmarks_to_frames import LandmarksToFrames
from dreamhead.records import Chunk, ShotAnalysis
from dreamhead.scratch import scratch_folder
from dreamhead.stages.artefacts import load_arrays, load_shot
from dreamhead.stages.attempts import HERE, ChunkAttempts, Place
from dreamhead.stages.device import use_device
from dreamhead.stages.source import Source, open_source
from dreamhead.stages.strength import routes_of, strength_of
from dreamhead.stages.work import Work


class RenderChunk:
    """Chunk to chunk with `chunk_uri` and its counts set, once the chunk is published."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str, place: Place = HERE) -> None:
        checkpoint = Checkpoint.load(checkpoint_uri)
        self._settings = settings
        self._attempts = ChunkAttempts("render", settings.pools.max_attempts, settings.pools.chunk_timeout_s, place)
        self._work = Work(work_uri, settings, checkpoint)
        self._pipeline = LandmarksToFrames.from_checkpoint(checkpoint, settings.render, use_device(settings))
        # Chunks of a shot follow each other, and a long shot's analysis is tens of megabytes.
        self._load_shot = lru_cache(maxsize=2)(load_shot)

    def __call__(self, chunk: Chunk) -> Chunk:
        """Pass on a chunk that failed or is rendered; else publish it. A failure is the chunk's `error`."""
        if chunk.error or chunk.chunk_uri:
            return chunk
        uri = self._work.attempts_uri(chunk.job, "render", chunk.start, chunk.stop)
        return self._attempts(chunk, uri, self._work.failed_uri(chunk.job), self._publish)

    def _publish(self, chunk: Chunk) -> Chunk:
        began = time.perf_counter()
        source, shot = open_source(chunk.job, self._work), self._load_shot(chunk.analysis_uri)
        strength = strength_of(chunk, source, shot, self._settings.render.fade_s)
        frames = self._frames(chunk, source, shot, strength)
        uri = self._work.chunk_uri(chunk)
        with scratch_folder() as folder:
            path = folder / "chunk.mp4"
            self._encode(path, chunk, source, frames)
            storage.publish(path, uri)
            digest = storage.content_digest(str(path))
        done = replace(
            chunk,
            chunk_uri=uri,
            dubbed_frames=int(np.count_nonzero(strength)),
            overlay_frames=_overlay_frames(chunk, source, shot, strength),
            route_counts=routes_of(chunk, source, shot),
            seconds={**chunk.seconds, "render": time.perf_counter() - began},
        )
        self._work.finish_chunk(done, digest)
        return done

    def _frames(
        self, chunk: Chunk, source: Source, shot: ShotAnalysis, strength: NDArray[np.float32]
    ) -> Iterator[NDArray[np.uint8]]:
        shown = source.timeline.source[chunk.start : chunk.stop]
        decoded = read_frames(source.video, shown.tolist())
        if not strength.any():
            return decoded
        (targets,) = load_arrays(chunk.landmarks_uri, "targets")
        return self._pipeline(decoded, shown.tolist(), strength, shot, targets, chunk.job.seed)

    def _encode(self, path: Path, chunk: Chunk, source: Source, frames: Iterator[NDArray[np.uint8]]) -> None:
        timeline = source.timeline
        pts, end_pts = timeline.pts[chunk.start : chunk.stop], timeline.end_pts_of(chunk.stop)
        written = encode_chunk(path, frames, source.video, pts, end_pts, self._settings.output)
        if written != len(pts):
            raise MediaError(
                f"{source.video.uri}: {written} frames were encoded for frames {chunk.start} to {chunk.stop} "
                f"of the output; expected {len(pts)}"
            )


def _overlay_frames(chunk: Chunk, source: Source, shot: ShotAnalysis, strength: NDArray[np.float32]) -> int:
    shown = source.timeline.source[chunk.start : chunk.stop][strength > 0]
    return sum(bool(covered(shot.overlay_spans, int(number)).any()) for number in shown)
