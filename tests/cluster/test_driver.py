"""The order of the work."""

from typing import Any

from dreamhead.cluster.driver import group_spans, longest_first
from dreamhead.records import Job, Span
from dreamhead.stages.prepare import PreparedJob


class AnyWork:
    """Names an analysis by the video alone."""

    def analysis_fingerprint(self, job: Job) -> str:
        return job.video_uri


def prepared(row: int, video: str, frames: int, spans: int = 1) -> PreparedJob:
    job = Job(job_id=f"{video}-{row}", row=row, video_uri=video, audio_uri="", output_uri="", video_digest=video)
    size = frames // spans
    parts = tuple(Span(job=job, start=index * size, stop=(index + 1) * size) for index in range(spans))
    return PreparedJob(job=job, frames=frames, spans=parts)


def test_the_longest_job_comes_first_and_equals_keep_the_manifests_order() -> None:
    jobs = [prepared(0, "short", 10), prepared(1, "film", 900), prepared(2, "trailer", 100), prepared(3, "spot", 100)]
    assert [job.job.row for job in longest_first(jobs)] == [1, 2, 3, 0]


def test_a_video_is_walked_once_for_all_its_languages_and_in_order() -> None:
    work: Any = AnyWork()
    film = [prepared(row, "film", 900, spans=3) for row in range(2)]
    groups = group_spans([*film, prepared(2, "short", 10)], work)
    walked = [[(span.job.row, span.start, span.stop) for span in group] for group in groups]
    assert walked == [
        [(0, 0, 300), (1, 0, 300)],
        [(0, 300, 600), (1, 300, 600)],
        [(0, 600, 900), (1, 600, 900)],
        [(2, 0, 10)],
    ]
