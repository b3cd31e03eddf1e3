"""Stage 1: walk a span of a video once, publish its shots and speech features, hand on its chunks."""

import time
from collections.abc import Iterator
from dataclasses import replace

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings
from dreamhead.errors import ClusterError, DiskFullError, DreamheadError
from dreamhead.media.video import read_frames
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.records import Chunk, Span
from dreamhead.stages.artefacts import load_json, save_shot
from dreamhead.stages.attempts import HERE, Place, Trial, attempt, describe, publish_failure
from dreamhead.stages.device import limit_threads
from dreamhead.stages.plan import chunks_of_shots
from dreamhead.stages.source import Source, open_source
from dreamhead.stages.speech import EncodeSpeech
from dreamhead.stages.work import Work


class AnalyseSpan:
    """Span to chunks. Shots that an earlier run or another language's job published are not walked again."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str, place: Place = HERE) -> None:
        limit_threads(settings)
        checkpoint = Checkpoint.load(checkpoint_uri)
        self._settings = settings
        self._place = place
        self._work = Work(work_uri, settings, checkpoint)
        self._analyser = VideoAnalyser(settings.analysis, settings.weights)
        self._encode_speech = EncodeSpeech(
            self._work, checkpoint.config.speech_encoder, settings.weights, settings.cpu_threads
        )

    def __call__(self, span: Span) -> Iterator[Chunk]:
        """Yield the span's chunks, shot by shot, those already rendered as they were; a failure is the last chunk.

        A second try yields the same chunks in the same order from the first on, since whoever streams them skips
        as many as it has seen.
        """
        pools, failed_uri = self._settings.pools, self._work.failed_uri(span.job)
        uri = self._work.attempts_uri(span.job, "analyse", span.start, span.stop)
        what = f"source frames {span.start} to {span.stop} of job {span.job.job_id}"
        try:
            if storage.exists(failed_uri):
                yield _failed(span, load_json(failed_uri)["error"])
                return
            with attempt(uri, pools.max_attempts, what, self._place, pools.span_timeout_s) as trial:
                yield from self._analyse(span, trial)
        except DiskFullError as error:
            yield _failed(span, describe(error))
        except ClusterError as error:
            text = publish_failure(failed_uri, error)
            for chunk in self._known_chunks(span):
                yield replace(chunk, error=text)
            yield _failed(span, text)
        except DreamheadError as error:
            yield _failed(span, publish_failure(failed_uri, error))

    def close(self) -> None:
        """Free the detector; one that is left to Python's collector can wait for ever for a thread of its own."""
        self._analyser.close()

    def _analyse(self, span: Span, trial: Trial) -> Iterator[Chunk]:
        source = open_source(span.job, self._work)
        shots = self._work.shots(span.job, span.start, span.stop)
        began = time.perf_counter()
        for start, stop in self._walk(span, source) if shots is None else shots:
            for chunk in chunks_of_shots(span.job, source, [(start, stop)], self._work):
                self._publish_speech(chunk, source)
                seconds = {"analyse": time.perf_counter() - began}
                ready = self._work.finished(chunk) or replace(chunk, seconds=seconds)
                with trial.paused():
                    yield ready
                began = time.perf_counter()

    def _walk(self, span: Span, source: Source) -> Iterator[tuple[int, int]]:
        frames = read_frames(source.video, range(span.start, span.stop))
        times_s = source.video.times_s[span.start : span.stop]
        shots: list[tuple[int, int]] = []
        for shot in self._analyser(frames, span.start, times_s, span.job.face):
            save_shot(self._work.shot_uri(span.job, shot.start, shot.stop), shot)
            shots.append((shot.start, shot.stop))
            yield shots[-1]
        self._work.finish_span(span.job, span.start, span.stop, shots)

    def _known_chunks(self, span: Span) -> Iterator[Chunk]:
        shots = self._work.published_shots(span.job, span.start, span.stop)
        return chunks_of_shots(span.job, open_source(span.job, self._work), shots, self._work)

    def _publish_speech(self, chunk: Chunk, source: Source) -> None:
        times_s = source.timeline.times_s
        self._encode_speech(chunk.job, float(times_s[chunk.start]), float(times_s[chunk.stop - 1]))


def _failed(span: Span, error: str) -> Chunk:
    return Chunk(
        job=span.job,
        start=span.start,
        stop=span.stop,
        shot_start=span.start,
        shot_stop=span.stop,
        analysis_uri="",
        error=error,
    )
