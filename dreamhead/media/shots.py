"""See cuts as frames go by, without looking ahead."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 160
"""The longer side, in pixels, of the picture that is compared: grain and detail don't matter to a cut."""

MIN_SHOT_S = 0.3
"""A second cut sooner than this is a flash of light, not a cut."""


class ShotDetector:
    """Finds the frames that start a new shot; `threshold` is the mean change of hue, saturation and value."""

    def __init__(self, threshold: float, frame_rate: float) -> None:
        # What finds no cuts doesn't need the library.
        from scenedetect.common import FrameTimecode
        from scenedetect.detectors import ContentDetector

        self._timecode = FrameTimecode
        # The detector's own filter for flashes would report a cut only frames later.
        self._detector = ContentDetector(threshold=threshold, min_scene_len=0)
        self._frame_rate = frame_rate
        self._min_frames = math.ceil(MIN_SHOT_S * frame_rate)
        self._position = 0
        self._shot_start = 0

    def is_cut(self, frame: NDArray[np.uint8]) -> bool:
        """Whether this frame, (H, W, 3) RGB, starts a new shot; the first one doesn't. Frames come in order."""
        timecode = self._timecode(self._position, self._frame_rate)
        is_other = bool(self._detector.process_frame(timecode, _small_bgr(frame)))
        is_cut = is_other and self._position - self._shot_start >= self._min_frames
        if is_cut:
            self._shot_start = self._position
        self._position += 1
        return is_cut


def _small_bgr(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(1.0, SIDE / max(frame.shape[:2]))
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1]).astype(np.uint8, copy=False)
