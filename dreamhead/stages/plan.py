"""Cut one job's work: the source into spans, each span's shots into chunks."""

import math
from collections.abc import Iterable, Iterator

from dreamhead.records import Chunk, Job, Span
from dreamhead.stages.source import Source
from dreamhead.stages.timeline import STILL_RATE, chunks_of_shot
from dreamhead.stages.work import Work


def spans_of(job: Job, source: Source, span_s: float) -> Iterator[Span]:
    """Cut the source's frames evenly into spans of about `span_s` seconds at most."""
    video = source.video
    frames = video.frame_count
    count = 1 if video.is_still else min(frames, math.ceil(video.duration_s / span_s))
    for index in range(count):
        yield Span(job=job, start=frames * index // count, stop=frames * (index + 1) // count)


def chunks_of_shots(job: Job, source: Source, shots: Iterable[tuple[int, int]], work: Work) -> Iterator[Chunk]:
    """The chunks that show these shots, in order, with their analysis named."""
    rate = STILL_RATE if source.video.is_still else source.video.average_rate
    most = max(1, round(work.settings.analysis.chunk_s * float(rate)))
    for shot_start, shot_stop in shots:
        uri = work.shot_uri(job, shot_start, shot_stop)
        for start, stop in chunks_of_shot(source.timeline, shot_start, shot_stop, most):
            yield Chunk(job=job, start=start, stop=stop, shot_start=shot_start, shot_stop=shot_stop, analysis_uri=uri)
