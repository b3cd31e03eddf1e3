"""The stages of a dub kept loaded, for many dubs in one process."""

from collections.abc import Iterator

from dreamhead.config import DubSettings
from dreamhead.errors import InputError
from dreamhead.records import Chunk, Job, ShotAnalysis, Span
from dreamhead.stages.analyse import AnalyseSpan
from dreamhead.stages.artefacts import load_shot
from dreamhead.stages.finalize import finalize
from dreamhead.stages.landmarks import MakeLandmarks
from dreamhead.stages.opening import open_work
from dreamhead.stages.plan import spans_of
from dreamhead.stages.prepare import prepare
from dreamhead.stages.render import RenderChunk
from dreamhead.stages.results import Tally
from dreamhead.stages.source import open_source


class LoadedStages:
    """Dubs jobs one after the other, as `stages.dub` does; raises CheckpointError, ConfigError when it is built."""

    def __init__(self, settings: DubSettings, checkpoint_uri: str, work_uri: str) -> None:
        self.work, self._digest = open_work(settings, checkpoint_uri, work_uri)
        self._analyse = AnalyseSpan(settings, checkpoint_uri, work_uri)
        self._make_landmarks = MakeLandmarks(settings, checkpoint_uri, work_uri)
        self._render = RenderChunk(settings, checkpoint_uri, work_uri)

    def dub(self, job: Job) -> None:
        """Publish the job's output, if it isn't there. Raises InputError with the reason that it can't be."""
        prepared = prepare(job, self.work)
        if prepared.result is not None:
            return
        tally = Tally()
        for span in prepared.spans:
            for planned in self._chunks(span):
                chunk = self._render(self._make_landmarks(planned))
                tally = tally.plus(chunk)
                if chunk.error:
                    raise InputError(chunk.error)
        row = finalize(prepared, self.work, self._digest, tally)
        if row["status"] == "failed":
            raise InputError(f"{row['error_type']}: {row['error']}")

    def shots(self, job: Job) -> list[ShotAnalysis]:
        """The analysis of the job's video, which is walked unless a dub of it was made before."""
        job = prepare(job, self.work).job
        shots: list[ShotAnalysis] = []
        for span in spans_of(job, open_source(job, self.work), self.work.settings.analysis.span_s):
            if self.work.shots(job, span.start, span.stop) is None:
                for _ in self._chunks(span):
                    pass
            bounds = self.work.shots(job, span.start, span.stop) or []
            shots += [load_shot(self.work.shot_uri(job, start, stop)) for start, stop in bounds]
        return shots

    def close(self) -> None:
        """Free the detector."""
        self._analyse.close()

    def _chunks(self, span: Span) -> Iterator[Chunk]:
        for chunk in self._analyse(span):
            if chunk.error:
                raise InputError(chunk.error)
            yield chunk
