"""Make the video of one condition: what is judged is always a file, as a viewer would get it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.errors import InputError
from dreamhead.evaluation.baselines import TrueLandmarks
from dreamhead.evaluation.dubbing import LoadedStages
from dreamhead.evaluation.folder import EvaluationFolder
from dreamhead.evaluation.records import Task
from dreamhead.evaluation.settings import ConditionName, EvaluationSettings
from dreamhead.evaluation.source import JudgedSource, publish_speech, upright
from dreamhead.media.encode import encode_chunk
from dreamhead.media.video import probe, read_frames
from dreamhead.models.audio_encoder import SAMPLE_RATE
from dreamhead.records import Job, VideoInfo
from dreamhead.scratch import scratch_folder
from dreamhead.stages.artefacts import load_json, save_json
from dreamhead.stages.device import use_device
from dreamhead.stages.work import fingerprint

DUBBED: tuple[ConditionName, ...] = ("self", "shuffled", "silent", "cross")
"""Made by the whole way of a dub."""
HAS_TRUTH: tuple[ConditionName, ...] = ("real", "reencoded", "self", "painted", "merged", "warp", "copy")
"""Each frame should look like the source's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Take:
    """One condition's video: T frames from number `first` on."""

    info: VideoInfo
    first: int
    frame_count: int
    speech: NDArray[np.float32] | None = None
    """(N,) at 16 kHz what the file should say; None where it has no sound."""
    truth: NDArray[np.float64] | None = None
    """(T,) lip opening that real lips had with this speech; NaN where that isn't known, None where it never is."""

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """T frames (H, W, 3) RGB, decoded afresh."""
        return read_frames(self.info, range(self.first, self.first + self.frame_count))


class ConditionMaker:
    """Makes takes; the networks stay loaded. A video that an earlier call made is reused."""

    def __init__(
        self, settings: EvaluationSettings, stages: LoadedStages, checkpoint: Checkpoint, folder: EvaluationFolder
    ) -> None:
        self._settings = settings
        self._stages = stages
        self._digest = checkpoint.render_digest(settings.dub.render.renderer)
        self._true_landmarks = TrueLandmarks(checkpoint, settings.dub.render, use_device(settings.dub))
        self._folder = folder

    def __call__(self, task: Task, source: JudgedSource, other: JudgedSource | None) -> Take:
        """The take of one condition; `other` is the clip whose speech `cross` takes.

        Raises InputError where the clip can't have it.
        """
        if task.condition == "real":
            return Take(info=source.original, first=source.first, frame_count=source.frame_count)
        uri = self._folder.video_uri(task)
        if task.condition not in DUBBED:
            self._encode(task, source, uri)
            return _take(uri, source)
        speech, truth = speech_of(task, source, other)
        audio_uri = storage.join(self._folder.speeches_uri, f"{_digest(speech)}.wav")
        publish_speech(speech, audio_uri)
        self._stages.dub(
            Job(
                job_id=f"{task.clip.clip_id}-{task.condition}",
                row=0,
                video_uri=source.info.uri,
                audio_uri=audio_uri,
                output_uri=uri,
                seed=self._settings.seed,
            )
        )
        return _take(uri, source, speech, truth)

    def _encode(self, task: Task, source: JudgedSource, uri: str) -> None:
        """Publish a condition that needs no speech; the note of what it was made from goes last."""
        condition, note_uri = task.condition, self._folder.made_uri(task)
        made = self._made_from(condition, source)
        is_there = storage.exists(note_uri) and storage.exists(uri)
        if is_there and load_json(note_uri) == {"made_from": made, "bytes": storage.size(uri)}:
            return
        info = upright(source.info)
        frames = read_frames(source.info, range(source.frame_count))
        if condition == "painted" or condition == "merged" or condition == "warp" or condition == "copy":
            frames = self._true_landmarks(condition, source, frames, self._settings.apart_s)
        with scratch_folder() as folder:
            path = folder / "video.mp4"
            encode_chunk(path, frames, info, info.pts, info.end_pts, self._settings.dub.output)
            storage.publish(path, uri)
        save_json(note_uri, {"made_from": made, "bytes": storage.size(uri)})

    def _made_from(self, condition: ConditionName, source: JudgedSource) -> str:
        dub = self._settings.dub
        digest = storage.content_digest(source.info.uri)
        if condition == "reencoded":
            return fingerprint(digest, dub.output)
        weights = self._digest if condition == "painted" else ""
        return fingerprint(digest, dub.analysis, dub.render, dub.output, self._settings.apart_s, weights)


def speech_of(
    task: Task, source: JudgedSource, other: JudgedSource | None
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """(N,) what a dubbed condition says, and (T,) the lip opening that real lips had with it, where that is known."""
    times_s, length_s = source.info.times_s, source.info.duration_s
    samples = round(length_s * SAMPLE_RATE)
    if task.condition == "silent":
        return np.zeros(samples, np.float32), None
    if task.condition == "cross":
        if other is None:
            raise InputError("cross needs the speech of another clip, and the list holds only this one")
        said = np.zeros(samples, np.float32)
        heard = other.speech()[:samples]
        said[: len(heard)] = heard
        return said, _opening_at(other, times_s)
    said = source.speech()
    if task.condition == "self":
        return said, source.opening
    half = len(said) // 2
    return np.roll(said, half), _opening_at(source, (times_s - half / SAMPLE_RATE) % length_s)


def _opening_at(source: JudgedSource, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) the speaker's lip opening in the frame nearest to each time; NaN beyond the stretch."""
    frames = np.interp(times_s, source.info.times_s, np.arange(source.frame_count))
    opening = source.opening[np.rint(frames).astype(np.int64)]
    return np.where(times_s < source.info.duration_s, opening, np.nan)


def _take(
    uri: str,
    source: JudgedSource,
    speech: NDArray[np.float32] | None = None,
    truth: NDArray[np.float64] | None = None,
) -> Take:
    info = probe(uri)
    if info.frame_count != source.frame_count:
        raise InputError(f"{uri}: has {info.frame_count} frames; its source has {source.frame_count}")
    return Take(info=info, first=0, frame_count=info.frame_count, speech=speech, truth=truth)


def _digest(speech: NDArray[np.float32]) -> str:
    return hashlib.sha256(speech.tobytes()).hexdigest()[:16]
