"""Preparation of training data: one video to one row of `CLIP_SCHEMA`."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.config import AnalysisSettings
from dreamhead.errors import NoFaceError
from dreamhead.faces.crop import extract, runs
from dreamhead.media.audio import read_speech
from dreamhead.media.video import probe, read_frames
from dreamhead.models.audio_encoder import SAMPLE_RATE, SpeechEncoder
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.pipelines.speech import assemble, encode_window, window_bounds_s, window_indices
from dreamhead.records import ShotAnalysis, VideoInfo

# The encoder hears a clip at these places of its window: it puts the place into its features, and training shall not
# take it for speech.
LEADS_S = (0.0, 4.0, 9.0, 14.0, 17.0)
JPEG_QUALITY = 96


def clip_row(
    uri: str,
    clip_id: str,
    speaker: str,
    analyser: VideoAnalyser,
    encoder: SpeechEncoder,
    settings: AnalysisSettings,
    speech_lag_s: float = 0.0,
) -> dict[str, object]:
    """The longest stretch of a video with a face in one shot, as a row of CLIP_SCHEMA.

    Raises:
        MediaError: the video can't be read.
        NoFaceError: it shows no face.
    """
    info = probe(uri)
    shot, start, stop = _longest_stretch(info, analyser)
    crops = shot.crops[start - shot.start : stop - shot.start]
    features = _features(info, start, stop, encoder) if info.has_audio else []
    return {
        "clip_id": clip_id,
        "speaker": speaker,
        "frame_rate": float(info.average_rate),
        "crop_size": settings.crop_size,
        "landmarks": shot.landmarks[start - shot.start : stop - shot.start].tobytes(),
        "transforms": crops.tobytes(),
        "crops": _pictures(info, start, stop, crops, settings.crop_size),
        "speech_encoder": encoder.name,
        "features": [part.astype(np.float16).tobytes() for part in features],
        "feature_size": encoder.feature_size,
        "feature_rate": encoder.rate,
        "speech_lag_s": speech_lag_s,
    }


def _longest_stretch(info: VideoInfo, analyser: VideoAnalyser) -> tuple[ShotAnalysis, int, int]:
    frames = read_frames(info, range(info.frame_count))
    found = [
        (shot, shot.start + start, shot.start + stop)
        for shot in analyser(frames, 0, info.times_s, "largest")
        for start, stop in runs(~np.isnan(shot.landmarks[:, 0, 0]))
    ]
    if not found:
        raise NoFaceError(f"{info.uri}: no face in any of its {info.frame_count} frames")
    return max(found, key=lambda stretch: stretch[2] - stretch[1])


def _pictures(info: VideoInfo, start: int, stop: int, transforms: NDArray[np.float32], size: int) -> list[bytes]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    pictures = []
    for frame, transform in zip(read_frames(info, range(start, stop)), transforms, strict=True):
        crop = cv2.cvtColor(extract(frame, transform, size), cv2.COLOR_RGB2BGR)
        pictures.append(cv2.imencode(".jpg", crop, quality)[1].tobytes())
    return pictures


def _features(info: VideoInfo, start: int, stop: int, encoder: SpeechEncoder) -> list[NDArray[np.float32]]:
    """(F, C) features of the stretch's speech, once for each of LEADS_S."""
    start_s = float(info.times_s[start])
    stop_s = float(info.times_s[stop - 1]) + 1 / float(info.average_rate)
    samples = read_speech(info.uri, start_s, stop_s)
    count = math.floor((stop_s - start_s) * encoder.rate)
    return [_encode(samples, lead_s, encoder)[:count] for lead_s in LEADS_S]


def _encode(samples: NDArray[np.float32], lead_s: float, encoder: SpeechEncoder) -> NDArray[np.float32]:
    """Features of the samples, which begin `lead_s` after the start of the grid."""
    lead = round(lead_s * SAMPLE_RATE)
    windows = window_indices(lead_s, lead_s + len(samples) / SAMPLE_RATE)
    encoded = []
    for window in windows:
        first, last = (round(bound * SAMPLE_RATE) - lead for bound in window_bounds_s(window))
        heard = np.zeros(last - first, np.float32)
        inside = samples[max(first, 0) : max(last, 0)]
        heard[max(-first, 0) : max(-first, 0) + len(inside)] = inside
        encoded.append(encode_window(encoder, heard, window))
    track = assemble(encoded, windows.start, encoder.rate)
    return track.features[round((lead_s - track.start_s) * encoder.rate) :]
