"""Open a job's two inputs: what they hold, found once for all processes and runs, and the timeline that they make."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

from dreamhead import storage
from dreamhead.errors import DiskFullError, InputError, StorageError
from dreamhead.media.audio import AudioInfo, probe_audio
from dreamhead.media.video import probe
from dreamhead.records import Job, LongerAudio, SpeechStart, VideoInfo
from dreamhead.stages.artefacts import load_audio_info, load_json, load_video_info, save_info, save_json
from dreamhead.stages.timeline import Timeline, build_timeline
from dreamhead.stages.work import Work


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A job's two inputs, probed, and the output's timeline."""

    video: VideoInfo
    audio: AudioInfo
    timeline: Timeline


def open_source(job: Job, work: Work) -> Source:
    """A job's inputs as probing finds them; the last few are kept, since each chunk of a job needs them.

    A video is read to its end to learn the times of its frames: that is done once, and kept in the work directory.
    Raises InputError, MediaError or StorageError that names the manifest's column.
    """
    with _telling_column("video_uri"):
        video = _video(job.video_uri, job.video_digest, work)
    with _telling_column("audio_uri"):
        audio = _audio(job.audio_uri, job.audio_digest, work)
    with _telling_column("on_longer_audio"):
        start = work.settings.landmarks.speech_start
        timeline = _timeline(video, audio.duration_s, job.on_longer_audio, start)
        return Source(video=video, audio=audio, timeline=timeline)


def known_source(job: Job, work: Work) -> Source | None:
    """A job's inputs as an earlier run found them, None where none has: to find them means to read them through.

    Raises StorageError.
    """
    known = (_video_facts(job.video_digest, work), _audio_facts(job.audio_digest, work))
    return open_source(job, work) if all(map(storage.exists, known)) else None


def known_digest(uri: str, work: Work) -> str | None:
    """Digest of a file's content, None where it would have to be read for it; raises StorageError."""
    return digest_of(uri, work) if all(map(storage.exists, _digest_facts(uri, work))) else None


def digest_of(uri: str, work: Work) -> str:
    """Digest of a file's content, read only where the file isn't the one that was read before; raises StorageError."""
    if storage.is_remote(uri):
        return storage.content_digest(uri)
    (known,) = _digest_facts(uri, work)
    if storage.exists(known):
        return str(load_json(known)["digest"])
    digest = storage.content_digest(uri)
    save_json(known, {"digest": digest, "uri": uri})
    return digest


def facts_of_video(job: Job, work: Work) -> list[str]:
    """The files of the work directory that keep what is known of a job's video, whose digest it has."""
    return [_video_facts(job.video_digest, work), *_digest_facts(job.video_uri, work)]


def facts_of_audio(job: Job, work: Work) -> list[str]:
    """The files of the work directory that keep what is known of a job's speech, whose digest it has."""
    return [_audio_facts(job.audio_digest, work), *_digest_facts(job.audio_uri, work)]


@contextmanager
def naming_column(name: str) -> Iterator[None]:
    """Name the manifest's column in an error that an input caused: what can't be read or written is wrong input."""
    try:
        with _telling_column(name):
            yield
    except DiskFullError:
        raise
    except StorageError as error:
        raise InputError(str(error)) from error


@contextmanager
def _telling_column(name: str) -> Iterator[None]:
    """Name the column, and leave the error's kind: storage that failed for once may be tried again."""
    try:
        yield
    except (StorageError, InputError) as error:
        raise type(error)(f"{name}: {error}") from error


@lru_cache(maxsize=8)
def _video(uri: str, digest: str, work: Work) -> VideoInfo:
    known = _video_facts(digest, work)
    if storage.exists(known):
        return replace(load_video_info(known), uri=uri)
    info = probe(uri)
    save_info(known, info)
    return info


@lru_cache(maxsize=64)
def _audio(uri: str, digest: str, work: Work) -> AudioInfo:
    known = _audio_facts(digest, work)
    if storage.exists(known):
        return replace(load_audio_info(known), uri=uri)
    info = probe_audio(uri)
    save_info(known, info)
    return info


@lru_cache(maxsize=8)
def _timeline(video: VideoInfo, speech_s: float, policy: LongerAudio, start: SpeechStart) -> Timeline:
    return build_timeline(video, speech_s, policy, start)


def _digest_facts(uri: str, work: Work) -> list[str]:
    """Where a local file's digest is kept; an object's is asked for each time."""
    return [] if storage.is_remote(uri) else [work.input_uri(".json", "digest", storage.identity(uri))]


def _video_facts(digest: str, work: Work) -> str:
    return work.input_uri(".npz", "video", digest)


def _audio_facts(digest: str, work: Work) -> str:
    return work.input_uri(".npz", "audio", digest)
