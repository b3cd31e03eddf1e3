"""Stage 2: one chunk's speech to target landmarks, published."""

import time
from dataclasses import replace

import numpy as np

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings
from dreamhead.errors import CheckpointError
from dreamhead.pipelines.audio_to_landmarks import AudioToLandmarks
from dreamhead.records import Chunk
from dreamhead.stages.artefacts import load_arrays, save_arrays
from dreamhead.stages.attempts import HERE, ChunkAttempts, Place
from dreamhead.stages.device import use_device
from dreamhead.stages.source import open_source
from dreamhead.stages.speech import MARGIN_S, load_speech
from dreamhead.stages.strength import is_dubbed
from dreamhead.stages.work import Work


class MakeLandmarks:
    """Chunk to chunk with `landmarks_uri` set; one of which no frame is dubbed needs none."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str, place: Place = HERE) -> None:
        checkpoint = Checkpoint.load(checkpoint_uri)
        self._attempts = ChunkAttempts("landmarks", settings.pools.max_attempts, settings.pools.chunk_timeout_s, place)
        self._work = Work(work_uri, settings, checkpoint)
        self._pipeline = AudioToLandmarks.from_checkpoint(checkpoint, settings.landmarks, use_device(settings))
        if self._pipeline.context_s > MARGIN_S:
            raise CheckpointError(
                f"{checkpoint_uri or 'the bundled checkpoint'}: its landmarks need {self._pipeline.context_s} s of "
                f"speech around them; at most {MARGIN_S} s are encoded"
            )

    def __call__(self, chunk: Chunk) -> Chunk:
        """Pass on a chunk that failed or is rendered; else publish its landmarks. A failure is the chunk's `error`."""
        if chunk.error or chunk.chunk_uri:
            return chunk
        uri = self._work.attempts_uri(chunk.job, "landmarks", chunk.start, chunk.stop)
        return self._attempts(chunk, uri, self._work.failed_uri(chunk.job), self._publish)

    def _publish(self, chunk: Chunk) -> Chunk:
        began = time.perf_counter()
        uri = self._work.landmarks_uri(chunk)
        neutral, articulation, routes = load_arrays(chunk.analysis_uri, "neutral", "articulation", "routes")
        source = open_source(chunk.job, self._work)
        if not np.isfinite(neutral).all() or not is_dubbed(chunk, source, routes):
            return chunk
        if not storage.exists(uri):
            times_s = source.timeline.speech_times_s[chunk.start : chunk.stop]
            context_s = self._pipeline.context_s
            speech = load_speech(self._work, chunk.job, times_s[0] - context_s, times_s[-1] + context_s)
            targets = self._pipeline(speech, times_s, neutral, chunk.job.seed, float(articulation))
            save_arrays(uri, targets=targets, times_s=times_s)
        seconds = {**chunk.seconds, "landmarks": time.perf_counter() - began}
        return replace(chunk, landmarks_uri=uri, seconds=seconds)
