"""Open a job's two inputs: what they hold, and the timeline that they make."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from dreamhead.errors import InputError, StorageError
from dreamhead.media.audio import AudioInfo, probe_audio
from dreamhead.media.video import probe
from dreamhead.records import Job, LongerAudio, VideoInfo
from dreamhead.stages.timeline import Timeline, build_timeline


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A job's two inputs, probed, and the output's timeline."""

    video: VideoInfo
    audio: AudioInfo
    timeline: Timeline


def open_source(job: Job) -> Source:
    """Probe a job's inputs; the last few are kept, since each chunk of a job needs them.

    Raises InputError or MediaError that names the manifest's column.
    """
    digests = (job.video_digest, job.audio_digest)
    return _open_source(job.video_uri, job.audio_uri, job.on_longer_audio, digests)


@contextmanager
def naming_column(name: str) -> Iterator[None]:
    """Name the manifest's column in an error that an input caused."""
    try:
        yield
    except StorageError as error:
        raise InputError(f"{name}: {error}") from error
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


@lru_cache(maxsize=8)
def _open_source(video_uri: str, audio_uri: str, policy: LongerAudio, digests: tuple[str, str]) -> Source:
    # The digests are there as the cache's key: a file that changed is opened again.
    with naming_column("video_uri"):
        video = probe(video_uri)
    with naming_column("audio_uri"):
        audio = probe_audio(audio_uri)
    with naming_column("on_longer_audio"):
        timeline = build_timeline(video, audio.duration_s, policy)
    return Source(video=video, audio=audio, timeline=timeline)
