"""A source's sound as speech samples, and as features on grids that may begin anywhere."""

import math
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from dreamhead.media.audio import read_speech
from dreamhead.models.audio_encoder import SAMPLE_RATE, SpeechEncoder
from dreamhead.pipelines.speech import CONTEXT_S, CORE_S, FLOOR_DB, encode_window
from dreamhead.records import SpeechTrack

KEPT_WINDOWS = 48
"""Windows of features that are kept for the clips that follow: 16 minutes, 100 MB of Whisper's."""

MARGIN_S = 30.0
"""Sound before and after a source's stretch that the encoder may hear."""


class Sound:
    """Mono samples at 16 kHz by their number from the video's first frame on; silence where there is no sound."""

    def __init__(self, samples: NDArray[np.float32], first: int = 0) -> None:
        self._samples = samples
        self._first = first

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Samples (last - first,)."""
        heard = np.zeros(last - first, np.float32)
        low, high = max(first, self._first), min(last, self._first + len(self._samples))
        if high > low:
            heard[low - first : high - first] = self._samples[low - self._first : high - self._first]
        return heard

    def level_db(self, start_s: float, stop_s: float) -> float:
        """RMS level of a stretch, in dB of full scale, at least -120."""
        part = self.read(round(start_s * SAMPLE_RATE), round(stop_s * SAMPLE_RATE))
        power = float(np.mean(np.square(part, dtype=np.float64))) if len(part) else 0.0
        return 10 * math.log10(max(power, 10 ** (FLOOR_DB / 10)))


def read_sound(uri: str, start_s: float, stop_s: float) -> Sound:
    """The sound of [start_s, stop_s) and some before and after it; raises MediaError."""
    first_s = max(0.0, start_s - MARGIN_S)
    return Sound(read_speech(uri, first_s, stop_s + MARGIN_S), round(first_s * SAMPLE_RATE))


class FeatureGrid:
    """Unchanged speech encoded once for all clips of a source, in windows whose cores begin at `offset_s` + 20 k."""

    def __init__(self, encoder: SpeechEncoder, sound: Sound, offset_s: float) -> None:
        self._encoder = encoder
        self._sound = sound
        self._offset_s = offset_s
        self._windows: OrderedDict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = OrderedDict()

    def track(self, start_s: float, stop_s: float) -> SpeechTrack:
        """Features of the windows that cover [start_s, stop_s)."""
        first = math.floor((start_s - self._offset_s) / CORE_S)
        last = max(math.ceil((stop_s - self._offset_s) / CORE_S), first + 1)
        windows = [self._window(number) for number in range(first, last)]
        return SpeechTrack(
            features=np.concatenate([features for features, _ in windows]),
            level_db=np.concatenate([level for _, level in windows]),
            start_s=self._offset_s + first * CORE_S,
            rate=self._encoder.rate,
        )

    def features(self, start_s: float, count: int) -> NDArray[np.float32]:
        """(count, C) features from `start_s` on, which is rounded to the grid's nearest feature."""
        track = self.track(start_s, start_s + (count + 1) / self._encoder.rate)
        first = round((start_s - track.start_s) * track.rate)
        return track.features[first : first + count]

    def _window(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if number not in self._windows:
            begin_s = self._offset_s + number * CORE_S - CONTEXT_S
            first = round(begin_s * SAMPLE_RATE)
            samples = self._sound.read(first, first + round((CORE_S + 2 * CONTEXT_S) * SAMPLE_RATE))
            self._windows[number] = encode_window(self._encoder, samples, number)
        self._windows.move_to_end(number)
        while len(self._windows) > KEPT_WINDOWS:
            self._windows.popitem(last=False)
        return self._windows[number]
