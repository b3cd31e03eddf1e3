"""By how much sound comes late, as SyncNet sees it: embeddings of lips and of sound, compared at every lag."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dreamhead.config import OffsetSettings
from dreamhead.faces.detection import face_center, face_size
from dreamhead.faces.loose_crop import loose_crop, steady
from dreamhead.media.video import read_frames
from dreamhead.models import syncnet
from dreamhead.models.audio_encoder import SAMPLE_RATE
from dreamhead.models.cepstra import HOP, WINDOW, cepstra
from dreamhead.records import VideoInfo
from dreamhead.stages.preparation.offset import ClipFit, Curve, LagEstimate, Measured, is_inside, peak
from dreamhead.stages.preparation.sound import Sound
from dreamhead.stages.preparation.tracks import Candidate

FRAME_RATE = 25.0
STEPS_PER_FRAME = 4
BATCH = 16


class SyncOffset:
    """Measures lags by SyncNet; `uri` names its weights."""

    def __init__(self, uri: str, settings: OffsetSettings) -> None:
        self._network = syncnet.load(uri)
        self._settings = settings
        self._reach = round(settings.max_lag_s * FRAME_RATE)
        self._lags_s: Curve = np.arange(-self._reach, self._reach + 1) / FRAME_RATE

    def __call__(self, info: VideoInfo, clips: Sequence[Candidate], sound: Sound) -> Measured:
        """See OffsetMeter."""
        distances = [self._distances(info, clip, sound) for clip in clips]
        together = np.concatenate(distances, axis=1).mean(axis=1)
        lag_s, confidence = self._best(together)
        asked = self._settings.min_sync_confidence
        is_sure = is_inside(lag_s, self._lags_s) and confidence >= asked
        estimate = LagEstimate(lag_s=lag_s, score=confidence, margin=confidence, method="syncnet", is_sure=is_sure)
        scores = [self._confidence(rows.mean(axis=1), lag_s) for rows in distances]
        # One clip is less sure than all of them, as for the landmarks.
        share = self._settings.min_clip_correlation / max(self._settings.min_correlation, 1e-6)
        return estimate, [ClipFit(score, score >= asked * share) for score in scores]

    @torch.inference_mode()
    def _distances(self, info: VideoInfo, clip: Candidate, sound: Sound) -> Curve:
        """(L, N) distances of a clip's N windows of pictures to the sound at each lag."""
        pictures = face_pictures(info, clip)
        count = max(1, len(pictures) - syncnet.FRAMES + 1)
        first_s = clip.start_s - self._reach / FRAME_RATE
        heard = _sound_windows(sound, first_s, count + 2 * self._reach)
        windows = [[min(number + step, len(pictures) - 1) for step in range(syncnet.FRAMES)] for number in range(count)]
        lips, sounds = [], []
        for low in range(0, count, BATCH):
            batch = np.stack([pictures[window] for window in windows[low : low + BATCH]]).astype(np.float32)
            lips.append(self._network.forward_lip(torch.from_numpy(batch).permute(0, 4, 1, 2, 3).contiguous()))
        for low in range(0, len(heard), BATCH):
            sounds.append(self._network.forward_aud(torch.from_numpy(heard[low : low + BATCH])))
        seen, said = torch.cat(lips), torch.cat(sounds)
        rows = [torch.linalg.vector_norm(seen - said[lag : lag + count], dim=1) for lag in range(len(self._lags_s))]
        return np.asarray(torch.stack(rows).double().numpy(), np.float64)

    def _best(self, distances: Curve) -> tuple[float, float]:
        lag_s, height = peak(self._lags_s, -distances)
        return lag_s, float(np.median(distances)) + height

    def _confidence(self, distances: Curve, lag_s: float) -> float:
        return float(np.median(distances) - np.interp(lag_s, self._lags_s, distances))


def face_pictures(info: VideoInfo, clip: Candidate) -> NDArray[np.uint8]:
    """(N, 224, 224, 3) blue, green, red: the clip's face 25 times a second, from its first frame on."""
    times_s = np.arange(round(clip.seconds * FRAME_RATE)) / FRAME_RATE + clip.start_s
    rows = np.abs(clip.times_s[:, None] - times_s).argmin(axis=0)
    places = steady(np.array([[*face_center(points), face_size(points) / 2] for points in clip.landmarks]))
    frames = read_frames(info, (clip.start + rows).tolist())
    aspect = info.pixel_aspect
    return np.stack(
        [loose_crop(frame, places[row], syncnet.SIDE, aspect) for frame, row in zip(frames, rows, strict=True)]
    )


def _sound_windows(sound: Sound, first_s: float, count: int) -> NDArray[np.float32]:
    """(count, 1, 13, 20) cepstra of windows that begin every 0.04 s from `first_s` on."""
    steps = (count - 1) * STEPS_PER_FRAME + syncnet.STEPS
    first = round(first_s * SAMPLE_RATE)
    found = cepstra(sound.read(first, first + (steps - 1) * HOP + WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(found, syncnet.STEPS, axis=0)[::STEPS_PER_FRAME]
    return np.ascontiguousarray(windows[:, None])
