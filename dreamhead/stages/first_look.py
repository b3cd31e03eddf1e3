"""Have a job's inputs looked into by another process, before this one, which may hold other work, reads them."""

from dreamhead.media.probing import look_first
from dreamhead.records import Job
from dreamhead.stages.prepare import with_digests
from dreamhead.stages.source import known_source
from dreamhead.stages.work import Work


def look_at_inputs(job: Job, work: Work) -> None:
    """Raise MediaError, which names column and file, where a decoder crashes over an input of a job.

    Inputs that an earlier run read to the end are left alone. Raises InputError and StorageError likewise.
    """
    if known_source(with_digests(job, work), work) is None:
        look_first({"video_uri": ("video", job.video_uri), "audio_uri": ("audio", job.audio_uri)})
