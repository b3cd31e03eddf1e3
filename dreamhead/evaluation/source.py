"""The stretch of a clip that is judged: its frames, its analysis and its speech, made ready once for all conditions."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.config import OutputSettings
from dreamhead.errors import InputError, MediaError, NoFaceError
from dreamhead.evaluation.dubbing import LoadedStages
from dreamhead.evaluation.records import JudgedClip
from dreamhead.evaluation.settings import EvaluationSettings
from dreamhead.faces import geometry
from dreamhead.media.audio import probe_audio, read_speech, write_wav
from dreamhead.media.encode import encode_chunk
from dreamhead.media.video import probe, read_frames
from dreamhead.models.audio_encoder import SAMPLE_RATE
from dreamhead.records import Job, Route, ShotAnalysis, VideoInfo
from dreamhead.scratch import scratch_folder
from dreamhead.stages.strength import ramp
from dreamhead.stages.work import fingerprint

EXCERPT = OutputSettings(quality=4, preset="veryfast")
"""How a stretch is cut out for dubbing: near to lossless."""
SHORTEST_S = 1.0
"""Shorter stretches say nothing about lips and speech."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedSource:
    """One clip's judged stretch: T frames in shots."""

    clip: JudgedClip
    original: VideoInfo
    """The clip itself."""
    first: int
    """Number of the stretch's first frame in the original."""
    info: VideoInfo
    """What is dubbed: the original, or the stretch cut out of it."""
    shots: list[ShotAnalysis]
    strength: NDArray[np.float32]
    """(T,) how much of each frame is dubbed."""
    faces: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """By frame: the (C,) embedding of the source's face, as far as it was asked for."""

    @property
    def frame_count(self) -> int:
        """T."""
        return self.info.frame_count

    @cached_property
    def landmarks(self) -> NDArray[np.float32]:
        """(T, 478, 3) square pixels of the frame; NaN where no face was found."""
        return np.concatenate([shot.landmarks for shot in self.shots])

    @cached_property
    def crops(self) -> NDArray[np.float32]:
        """(T, 2, 3) from square pixels of the frame to pixels of the aligned crop."""
        return np.concatenate([shot.crops for shot in self.shots])

    @cached_property
    def opening(self) -> NDArray[np.float64]:
        """(T,) the speaker's own lip opening, in units of eye distance."""
        return opening_of(self.landmarks)

    def shot_of(self, frame: int) -> ShotAnalysis:
        """The shot that holds a frame."""
        return next(shot for shot in self.shots if shot.start <= frame < shot.stop)

    def speech(self) -> NDArray[np.float32]:
        """(N,) the stretch's speech at 16 kHz, moved by the recording's lag; raises MediaError where there is none."""
        clip, info = self.clip, self.info
        if not self.is_heard:
            raise MediaError(
                f"{clip.audio_uri}: holds no sound that can be decoded; give the speech in the list's column audio_uri"
            )
        # On the clock of the stretch, whose pictures may start after its zero.
        begin_s = float(self.original.times_s[self.first] - info.times_s[0]) + clip.speech_lag_s
        return read_speech(clip.audio_uri, begin_s, begin_s + info.duration_s, SAMPLE_RATE)

    @cached_property
    def is_heard(self) -> bool:
        """Whether there is sound to be had."""
        try:
            return probe_audio(self.clip.audio_uri).duration_s > 0
        except MediaError:
            return False


def opening_of(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T,) lip opening of (T, 478, 3) landmarks in pixels, in units of eye distance."""
    canonical = geometry.fit_pose(landmarks).to_canonical(landmarks)
    return np.asarray(geometry.lip_opening(canonical), np.float64)


def prepare_source(
    clip: JudgedClip, settings: EvaluationSettings, stages: LoadedStages, folder_uri: str
) -> JudgedSource:
    """Cut the stretch out where the clip is longer, and analyse it; what an earlier call did is reused.

    Raises InputError where the clip can't be judged: no video, too short, a picture, no usable face.
    """
    original = probe(clip.video_uri)
    first, stop = _bounds(original, settings)
    digest = storage.content_digest(clip.video_uri)
    base = storage.join(folder_uri, fingerprint(digest, first, stop, EXCERPT))
    whole = first == 0 and stop == original.frame_count
    video_uri = clip.video_uri if whole else _excerpt(original, first, stop, base)
    info = original if whole else probe(video_uri)
    silent_uri = storage.join(base, "silent.wav")
    publish_speech(np.zeros(round(info.duration_s * SAMPLE_RATE), np.float32), silent_uri)
    output_uri = storage.join(base, "unused.mp4")
    shots = stages.shots(
        Job(job_id=clip.clip_id, row=0, video_uri=video_uri, audio_uri=silent_uri, output_uri=output_uri)
    )
    routes = np.concatenate([shot.routes for shot in shots])
    if not (routes == Route.DUB).any():
        reasons = ", ".join(sorted({Route(int(route)).name for route in routes}))
        raise NoFaceError(f"{clip.video_uri}: no usable face in frames {first} to {stop}: {reasons}")
    strength = ramp(routes == Route.DUB, info.times_s, settings.dub.render.fade_s)
    return JudgedSource(clip=clip, original=original, first=first, info=info, shots=shots, strength=strength)


def upright(info: VideoInfo) -> VideoInfo:
    """The same video as it is once its frames are stored the way they are shown."""
    if info.rotation % 180 == 0:
        return replace(info, rotation=0)
    aspect = 1 / info.sample_aspect_ratio
    return replace(info, rotation=0, width=info.height, height=info.width, sample_aspect_ratio=aspect)


def publish_speech(samples: NDArray[np.float32], uri: str) -> None:
    """Publish (N,) samples at 16 kHz as WAV, unless they are there."""
    if storage.exists(uri):
        return
    with scratch_folder() as folder:
        path = folder / "speech.wav"
        write_wav(path, samples, SAMPLE_RATE)
        storage.publish(path, uri)


def _bounds(info: VideoInfo, settings: EvaluationSettings) -> tuple[int, int]:
    """[first, stop) of the frames that are judged."""
    if info.is_still:
        raise InputError(f"{info.uri}: is a picture; a clip with its own speech is needed")
    times_s, half = info.times_s, 0.5 / float(info.average_rate)
    first = int(np.searchsorted(times_s, settings.start_s - half))
    stop = int(np.searchsorted(times_s, settings.start_s + settings.seconds - half))
    lasts_s = (times_s[stop] if stop < len(times_s) else info.duration_s) - times_s[first] if stop > first else 0.0
    if lasts_s < SHORTEST_S:
        raise InputError(
            f"{info.uri}: {lasts_s:.2f} s from {settings.start_s:g} s on, of {info.duration_s:.2f} s in all; "
            f"at least {SHORTEST_S:g} s are needed"
        )
    return first, stop


def _excerpt(info: VideoInfo, first: int, stop: int, base: str) -> str:
    uri = storage.join(base, "stretch.mp4")
    if storage.exists(uri):
        return uri
    end_pts = int(info.pts[stop]) if stop < info.frame_count else info.end_pts
    with scratch_folder() as folder:
        path = folder / "stretch.mp4"
        frames = read_frames(info, range(first, stop))
        encode_chunk(path, frames, upright(info), info.pts[first:stop], end_pts, EXCERPT)
        storage.publish(path, uri)
    return uri
