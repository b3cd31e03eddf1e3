"""A batch's metrics, which Ray exports to Prometheus with `ray_` before their names."""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from dreamhead.records import Chunk

STAGE_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
"""Bounds of the histogram's buckets."""


class BatchMetrics:
    """Counters since the run began, and gauges of what is left."""

    def __init__(self) -> None:
        self._frames = Counter("dreamhead_frames_total", "Frames of the chunks that were rendered.")
        self._chunks = Counter("dreamhead_chunks_total", "Chunks by how they ended.", ("status",))
        self._jobs = Counter("dreamhead_jobs_total", "Jobs by how they ended.", ("status",))
        self._retries = Counter("dreamhead_retries_total", "Tries of chunks beyond their first.", ("stage",))
        self._seconds = Histogram("dreamhead_stage_seconds", "Seconds of one chunk.", STAGE_SECONDS, ("stage",))
        self._jobs_left = Gauge("dreamhead_jobs_left", "Jobs that haven't ended.")
        self._frames_left = Gauge("dreamhead_frames_left", "Frames that aren't rendered.")
        self._eta = Gauge("dreamhead_eta_seconds", "Seconds until the end at the rate of the last minutes.")
        self._actors = Gauge("dreamhead_pool_actors", "Actors at work.", ("pool",))
        self._busy = Gauge("dreamhead_pool_busy", "Share of its actors' time that a pool works, 0 to 1.", ("pool",))

    def chunk(self, chunk: Chunk) -> None:
        """One chunk came out of the last stage."""
        self._chunks.inc(1, {"status": "failed" if chunk.error else "succeeded"})
        for stage, retries in chunk.retries.items():
            self._retries.inc(retries, {"stage": stage})
        if chunk.attempt and not chunk.error:
            self._frames.inc(chunk.stop - chunk.start)
            for stage, seconds in chunk.seconds.items():
                self._seconds.observe(seconds, {"stage": stage})

    def job(self, status: str) -> None:
        """One job ended."""
        self._jobs.inc(1, {"status": status})

    def left(self, jobs: int, frames: int, eta_s: float | None) -> None:
        """What is left."""
        self._jobs_left.set(jobs)
        self._frames_left.set(frames)
        if eta_s is not None:
            self._eta.set(eta_s)

    def pools(self, actors: Mapping[str, int], busy: Mapping[str, float]) -> None:
        """How the pools do."""
        for pool in actors:
            self._actors.set(actors[pool], {"pool": pool})
            self._busy.set(busy[pool], {"pool": pool})
