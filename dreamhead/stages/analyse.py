"""Stage 1: walk a span of a video once, publish its shots and speech features, hand on its chunks."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings
from dreamhead.errors import DiskFullError, DreamheadError, InputError, StorageError
from dreamhead.media.video import read_frames
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.records import Chunk, Span
from dreamhead.stages.artefacts import load_json, save_json, save_shot
from dreamhead.stages.attempts import HERE, Place, attempt, describe, pause_before_retry, publish_failure, retried
from dreamhead.stages.device import limit_threads
from dreamhead.stages.plan import chunks_of_shots
from dreamhead.stages.source import Source, open_source
from dreamhead.stages.speech import EncodeSpeech
from dreamhead.stages.work import Work

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ending:
    """How the analysis of a span of a failed job ends."""

    chunks: int
    """Chunks that come first, the error with those that weren't handed on before."""
    is_whole: bool
    """Whether these are all of the span's; otherwise a failure follows them."""
    error: str


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

        Whoever streams them skips, after a try that was cut off, as many as it has seen. So every later try yields
        the same chunks in the same order, whatever has failed meanwhile; what a failure comes after is written down.
        """
        given = 0
        try:
            known = self._with_retries(span, self._ending)
            if known is None:
                try:
                    for chunk in self._tried(span):
                        yield chunk
                        given += 1
                    return
                except DiskFullError:
                    raise
                except DreamheadError as error:
                    text = publish_failure(self._work.failed_uri(span.job), error)
                    known = self._with_retries(span, partial(self._end, error=text))
            for chunk in islice(self._with_retries(span, self._known_chunks), given, known.chunks):
                yield replace(chunk, error=known.error)
            if not known.is_whole:
                yield _failed(span, known.error)
        except StorageError as error:
            # How it ends can't be written down, so it ends as it would with all that is known to be there.
            logger.warning("%s: %s", _name(span), error)
            for chunk in islice(self._seen_before(span), given, None):
                yield replace(chunk, error=describe(error))
            yield _failed(span, describe(error))

    def close(self) -> None:
        """Free the detector; one that is left to Python's collector can wait for ever for a thread of its own."""
        self._analyser.close()

    def _ending(self, span: Span) -> _Ending | None:
        """How the span ends; None while it may go well."""
        uri = self._work.ending_uri(span.job, span.start, span.stop)
        if storage.exists(uri):
            return _Ending(**load_json(uri))
        failed_uri = self._work.failed_uri(span.job)
        if storage.exists(failed_uri):
            return self._end(span, load_json(failed_uri)["error"])
        return None

    def _end(self, span: Span, error: str) -> _Ending:
        """Write down how the span ends, before anybody is told of it."""
        ending = _Ending(0, False, error)
        if self._was_tried(span):
            # An earlier try has handed on nothing that isn't published: so many chunks or fewer, and, where all of
            # the span is there, perhaps all of them and no failure.
            is_whole = self._work.shots(span.job, span.start, span.stop) is not None
            ending = _Ending(sum(1 for _ in self._known_chunks(span)), is_whole, error)
        save_json(self._work.ending_uri(span.job, span.start, span.stop), asdict(ending))
        return ending

    def _tried(self, span: Span) -> Iterator[Chunk]:
        """The span's chunks; storage that fails is tried again, and goes on behind the chunks that are handed on."""
        pools, given = self._settings.pools, 0
        what = _name(span)
        for number in range(1, pools.max_attempts + 1):
            try:
                uri = self._attempts_uri(span)
                with attempt(uri, pools.max_attempts, what, self._place, pools.span_timeout_s) as trial:
                    for chunk in islice(self._analyse(span), given, None):
                        with trial.paused():
                            yield chunk
                        given += 1
                    return
            except DiskFullError:
                raise
            except StorageError as error:
                logger.warning("%s: %s", what, error)
                if number == pools.max_attempts:
                    raise
                pause_before_retry(number)

    def _with_retries(self, span: Span, look: Callable[[Span], ResultT]) -> ResultT:
        return retried(partial(look, span), self._settings.pools.max_attempts, _name(span))

    def _seen_before(self, span: Span) -> list[Chunk]:
        """Chunks that an earlier try may have handed on, as far as storage tells."""
        try:
            return list(self._known_chunks(span)) if self._was_tried(span) else []
        except StorageError:
            return []

    def _was_tried(self, span: Span) -> bool:
        return storage.exists(self._attempts_uri(span))

    def _attempts_uri(self, span: Span) -> str:
        return self._work.attempts_uri(span.job, "analyse", span.start, span.stop)

    def _analyse(self, span: Span) -> Iterator[Chunk]:
        source = open_source(span.job, self._work)
        shots = self._work.shots(span.job, span.start, span.stop)
        began = time.perf_counter()
        for start, stop in self._walk(span, source) if shots is None else shots:
            for chunk in chunks_of_shots(span.job, source, [(start, stop)], self._work):
                self._publish_speech(chunk, source)
                seconds = {"analyse": time.perf_counter() - began}
                yield self._work.finished(chunk) or replace(chunk, seconds=seconds)
                began = time.perf_counter()

    def _walk(self, span: Span, source: Source) -> Iterator[tuple[int, int]]:
        frames = read_frames(source.video, range(span.start, span.stop))
        times_s = source.video.times_s[span.start : span.stop]
        shots: list[tuple[int, int]] = []
        for shot in self._analyser(frames, span.start, times_s, span.job.face, source.video.pixel_aspect):
            save_shot(self._work.shot_uri(span.job, shot.start, shot.stop), shot)
            shots.append((shot.start, shot.stop))
            yield shots[-1]
        self._work.finish_span(span.job, span.start, span.stop, shots)

    def _known_chunks(self, span: Span) -> Iterator[Chunk]:
        try:
            source = open_source(span.job, self._work)
        except InputError:
            # What can't be opened was never walked.
            return iter(())
        shots = self._work.published_shots(span.job, span.start, span.stop)
        return chunks_of_shots(span.job, source, shots, self._work)

    def _publish_speech(self, chunk: Chunk, source: Source) -> None:
        times_s = source.timeline.speech_times_s
        self._encode_speech(chunk.job, float(times_s[chunk.start]), float(times_s[chunk.stop - 1]))


def _name(span: Span) -> str:
    return f"source frames {span.start} to {span.stop} of job {span.job.job_id}"


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
