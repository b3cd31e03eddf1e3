"""Encode speech once a file: windows of features in the work directory, shared by every chunk and every job."""

import math

import numpy as np

from dreamhead import storage
from dreamhead.config import WeightsSettings
from dreamhead.media.audio import read_speech
from dreamhead.models import audio_encoder
from dreamhead.pipelines.speech import assemble, encode_window, window_bounds_s, window_indices
from dreamhead.records import Job, SpeechTrack
from dreamhead.stages.artefacts import load_arrays, save_arrays
from dreamhead.stages.source import open_source
from dreamhead.stages.work import Work

MARGIN_S = 10.0
"""Seconds of speech that are encoded before and after what is dubbed; the landmarks' context must fit."""


class EncodeSpeech:
    """Publishes the windows that a stretch of speech needs; those that are there stay."""

    def __init__(self, work: Work, encoder: str, weights: WeightsSettings, threads: int) -> None:
        self._work = work
        self._encoder = audio_encoder.build(encoder, weights, threads)
        self._published: set[str] = set()

    def __call__(self, job: Job, start_s: float, stop_s: float) -> None:
        """Publish the windows of [start_s - margin, stop_s + margin); raises MediaError, StorageError."""
        for window in window_indices(start_s - MARGIN_S, stop_s + MARGIN_S):
            uri = self._work.speech_uri(job, window)
            if uri not in self._published and not storage.exists(uri):
                self._publish(job, window, uri)
            self._published.add(uri)

    def _publish(self, job: Job, window: int, uri: str) -> None:
        samples = read_speech(open_source(job, self._work).audio, *window_bounds_s(window))
        features, level_db = encode_window(self._encoder, samples, window)
        save_arrays(uri, features=features, level_db=level_db, rate=np.float64(self._encoder.rate))


def load_speech(work: Work, job: Job, start_s: float, stop_s: float) -> SpeechTrack:
    """Read the features that cover [start_s, stop_s); raises StorageError where a window is missing."""
    windows = window_indices(start_s, max(stop_s, math.nextafter(max(start_s, 0.0), math.inf)))
    loaded = [load_arrays(work.speech_uri(job, k), "features", "level_db", "rate") for k in windows]
    return assemble([(features, level) for features, level, _ in loaded], windows[0], float(loaded[0][2]))
