"""Free what a finished job no longer needs; its result stays, so that no run does it again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dreamhead import storage
from dreamhead.records import Job
from dreamhead.stages.work import Work

KEPT = ("result.json", "review.json", "sheet.jpg")
"""What tells a job's outcome."""


@dataclass(frozen=True)
class Freed:
    """Files that were deleted, or would be."""

    files: int = 0
    size: int = 0
    """Bytes."""

    def plus(self, other: "Freed") -> "Freed":
        """Both together."""
        return Freed(self.files + other.files, self.size + other.size)


def free_job(job: Job, work: Work, *, dry_run: bool = False) -> Freed:
    """Delete a published job's chunks and landmarks, of the work directory's settings only; raises StorageError."""
    return _free([work.render_dir(job), work.landmarks_dir(job)], dry_run)


def free_other_settings(job: Job, work: Work, *, dry_run: bool = False) -> Freed:
    """Delete what was made for a job with other settings, weights or inputs, results included."""
    own = tuple(uri.rstrip("/") + "/" for uri in (work.render_dir(job), work.landmarks_dir(job)))
    sizes = storage.list_sizes(work.job_dir(job))
    return _delete({uri: size for uri, size in sizes.items() if not uri.startswith(own)}, dry_run)


def free_analysis(jobs: Iterable[Job], work: Work, *, dry_run: bool = False) -> Freed:
    """Delete the analysis of these jobs' videos; another language of one of them would have it walked again."""
    freed = Freed()
    for directory in sorted({work.analysis_dir(job) for job in jobs}):
        freed = freed.plus(_delete(storage.list_sizes(directory), dry_run))
    return freed


def free_abandoned(jobs: Iterable[Job], work: Work, *, dry_run: bool = False) -> Freed:
    """Delete what killed processes left half-written in the work directory, and beside these jobs' outputs."""
    sizes = storage.abandoned(work.uri, recursive=True)
    for directory in sorted({storage.canonical(job.output_uri).rpartition("/")[0] for job in jobs}):
        sizes |= storage.abandoned(directory, recursive=False)
    return _delete(sizes, dry_run)


def free_everything(job: Job, work: Work) -> Freed:
    """Delete all that was made for a job alone, its result too, whatever its settings and inputs were."""
    return _delete(storage.list_sizes(work.job_dir(job)), dry_run=False)


def free_input(kind: Literal["video", "audio"], digest: str, work: Work) -> Freed:
    """Delete what was made of a video or a speech; no job that uses it may be running."""
    directory = work.video_dir(digest) if kind == "video" else work.speech_dir(digest)
    return _delete(storage.list_sizes(directory), dry_run=False)


def _free(directories: Sequence[str], dry_run: bool) -> Freed:
    sizes = {uri: size for directory in directories for uri, size in storage.list_sizes(directory).items()}
    return _delete({uri: size for uri, size in sizes.items() if uri.rpartition("/")[2] not in KEPT}, dry_run)


def _delete(sizes: dict[str, int], dry_run: bool) -> Freed:
    if not dry_run:
        # What marks a chunk as done goes first: half a deletion must not look like a finished chunk.
        storage.delete_many(uri for uri in sizes if uri.endswith(".json"))
        storage.delete_many(uri for uri in sizes if not uri.endswith(".json"))
    return Freed(len(sizes), sum(sizes.values()))
