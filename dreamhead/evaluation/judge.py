"""Judge one condition of one clip: make its video, measure it, publish what was found."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import ReviewSettings
from dreamhead.errors import DreamheadError, InputError
from dreamhead.evaluation.conditions import HAS_TRUTH, ConditionMaker, Take
from dreamhead.evaluation.dubbing import LoadedStages
from dreamhead.evaluation.figures import FIGURES
from dreamhead.evaluation.folder import EvaluationFolder
from dreamhead.evaluation.judges import PictureJudges
from dreamhead.evaluation.lipsync import LipSync
from dreamhead.evaluation.look import look
from dreamhead.evaluation.measure import measure_landmarks
from dreamhead.evaluation.motion import Motion, motion_figures, sound_delay_s
from dreamhead.evaluation.pictures import choose_moments, strip
from dreamhead.evaluation.records import JudgedClip, Task, Verdict
from dreamhead.evaluation.settings import ConditionName, EvaluationSettings
from dreamhead.evaluation.source import JudgedSource, prepare_source
from dreamhead.media.audio import read_speech
from dreamhead.models.audio_encoder import SAMPLE_RATE
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.stages.artefacts import save_arrays
from dreamhead.stages.attempts import attempt, describe

logger = logging.getLogger(__name__)

SOUNDS: tuple[ConditionName, ...] = ("real", "reencoded", "self", "shuffled", "cross")
"""Conditions in which lips and sound should go together."""
TRUE_LANDMARKS: tuple[ConditionName, ...] = ("painted", "merged", "warp", "copy")
"""Conditions whose lips are where the source's are: their worst moments are those of the worst pictures."""
NO_TRUTH = "no true frames: this speech was never said in this picture"
NOTHING = "nothing to compare: flat, or too few frames"


class ConditionJudge:
    """Task to verdict; the networks stay loaded from one to the next. Raises DreamheadError when it can't be built."""

    def __init__(self, settings: EvaluationSettings, checkpoint_uri: str, output_uri: str) -> None:
        checkpoint = Checkpoint.load(checkpoint_uri)
        self._settings = settings
        self._folder = EvaluationFolder(output_uri, settings, checkpoint.digest)
        self._judges = PictureJudges(settings.judges)
        self._lipsync = LipSync(settings.judges.syncnet) if settings.judges.syncnet else None
        # An evaluation looks closer than a review does.
        dub = settings.dub.model_copy(update={"review": ReviewSettings(gate="off")})
        self._stages = LoadedStages(dub, checkpoint_uri, self._folder.dub_uri)
        self._make = ConditionMaker(settings, self._stages, checkpoint, self._folder)
        self._analyser = VideoAnalyser(settings.dub.analysis, settings.dub.weights)
        self._source = lru_cache(maxsize=4)(self._prepare)

    def __call__(self, task: Task) -> Verdict:
        """Judge a condition and publish the verdict, or say in the verdict's `error` why that can't be done."""
        name = f"{task.condition} of clip {task.clip.clip_id}"
        try:
            with attempt(self._folder.attempts_uri(task), self._settings.max_attempts, name):
                verdict = self._judged(task)
                self._folder.save(task, verdict)
                return verdict
        except DreamheadError as error:
            logger.warning("%s: %s", name, error)
            return failed(task, describe(error))

    def close(self) -> None:
        """Free the detectors."""
        self._stages.close()
        self._analyser.close()

    def _prepare(self, clip: JudgedClip) -> JudgedSource:
        return prepare_source(clip, self._settings, self._stages, self._folder.sources_uri)

    def _in_sync(
        self, task: Task, source: JudgedSource, take: Take, landmarks: NDArray[np.float32]
    ) -> dict[str, float]:
        """SyncNet's figures of what is heard in the file; the source is heard with its sound moved by its lag."""
        if self._lipsync is None or task.condition not in SOUNDS:
            return {}
        if take.speech is not None:
            begin_s = float(take.info.times_s[take.first])
            heard = read_speech(take.info.uri, begin_s, take.info.duration_s, SAMPLE_RATE)
        elif source.is_heard:
            heard = source.speech()[round(float(source.info.times_s[0]) * SAMPLE_RATE) :]
        else:
            return {}
        return self._lipsync(take, landmarks, heard)

    def _other(self, task: Task) -> JudgedSource | None:
        if task.condition != "cross" or task.other is None:
            return None
        try:
            return self._source(task.other)
        except InputError as error:
            raise InputError(f"clip {task.other.clip_id}, whose speech it should take: {error}") from error

    def _judged(self, task: Task) -> Verdict:
        seconds: dict[str, float] = {}
        with _timed(seconds, "prepare"):
            source = self._source(task.clip)
            other = self._other(task)
        with _timed(seconds, "make"):
            take = self._make(task, source, other)
        with _timed(seconds, "measure"):
            landmarks = measure_landmarks(self._analyser, take)
            delay_s = 0.0 if take.speech is None else sound_delay_s(take.info.uri, take.speech)
        with _timed(seconds, "lipsync"):
            in_sync = self._in_sync(task, source, take, landmarks)
        judged = (source.strength >= 1) & np.isfinite(source.landmarks[:, 0, 0])
        motion, has_truth = Motion.of(source.landmarks, landmarks, judged), task.condition in HAS_TRUTH
        rate = float(source.info.average_rate)
        figures = motion_figures(motion, take.truth, delay_s, rate, has_truth, self._settings)
        with _timed(seconds, "look"):
            seen = look(source, take, landmarks, judged, has_truth, self._settings, self._judges)
        badness = seen.picture_error if task.condition in TRUE_LANDMARKS else _badness(motion, has_truth)
        moments, worst = choose_moments(judged, badness, self._settings.moments, self._settings.worst_moments)
        shown = [seen.shown[frame] for frame in moments]
        known, missing = _split({**figures, **in_sync, **seen.figures}, task.condition, self._judges.missing)
        storage.write_bytes(self._folder.picture_uri(task), strip(shown, worst, self._settings.picture_px))
        save_arrays(self._folder.arrays_uri(task), landmarks=landmarks, judged=judged, **seen.features)
        return Verdict(
            clip_id=task.clip.clip_id,
            speaker=task.clip.speaker,
            condition=task.condition,
            speech_lag_s=task.clip.speech_lag_s,
            figures=known,
            missing=missing,
            curves=_curves(source, motion),
            frames=source.frame_count,
            frames_judged=int(judged.sum()),
            moments=moments,
            worst=worst,
            video_uri=take.info.uri,
            picture_uri=self._folder.picture_uri(task),
            arrays_uri=self._folder.arrays_uri(task),
            seconds=seconds,
        )


def failed(task: Task, error: str) -> Verdict:
    """The verdict of a condition that couldn't be judged, for the reason `error`."""
    return Verdict(clip_id=task.clip.clip_id, speaker=task.clip.speaker, condition=task.condition, error=error)


def _badness(motion: Motion, has_truth: bool) -> NDArray[np.float64]:
    """(T,) how far the lips are off where that is known, else how far they are open, which asks most of a painter."""
    values = motion.mouth_distance() if has_truth else motion.our_opening
    return np.asarray(values, np.float64)


def _split(
    figures: dict[str, float], condition: ConditionName, not_given: dict[str, str]
) -> tuple[dict[str, float], dict[str, str]]:
    """What is known, and why the rest isn't."""
    known = {name: round(value, 6) for name, value in figures.items() if name in FIGURES and np.isfinite(value)}
    missing: dict[str, str] = {}
    for name in FIGURES:
        if name not in known:
            reason = NO_TRUTH if name not in figures and condition not in HAS_TRUTH else NOTHING
            missing[name] = not_given.get(name, reason)
    return known, missing


def _curves(source: JudgedSource, motion: Motion) -> dict[str, list[float | None]]:
    curves = {"times_s": source.info.times_s, "ours": motion.our_opening, "truth": motion.true_opening}
    return {
        name: [round(float(value), 4) if np.isfinite(value) else None for value in curve]
        for name, curve in curves.items()
    }


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - began, 3)
