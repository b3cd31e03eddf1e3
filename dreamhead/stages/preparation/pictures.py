"""A clip's aligned pictures, and what they say about its quality."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.config import PreparationSettings
from dreamhead.faces.crop import extract
from dreamhead.faces.detection import FaceDetector, face_center, face_size
from dreamhead.faces.pixel_aspect import from_stored, square_pixels
from dreamhead.media.video import read_frames
from dreamhead.records import VideoInfo
from dreamhead.stages.preparation.tracks import Candidate

OTHERS_EVERY_S = 1.0
"""A second face is looked for once in so many seconds."""
SHEET_PICTURES, SHEET_SIDE, SHEET_QUALITY = 4, 96, 80

Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One clip's crops and figures. T frames."""

    crops: list[bytes]
    """T JPEGs."""
    sharpness: float
    """Median over the frames of the Laplacian's variance over the brightness's."""
    brightness: float
    """Mean, 0 to 255."""
    second_face: float
    """Largest size of another face, as a share of this one's; 0 when there is none."""
    sheet: bytes
    """A JPEG of a few small crops side by side."""


def take_pictures(info: VideoInfo, clip: Candidate, detector: FaceDetector, settings: PreparationSettings) -> Pictures:
    """Decode a clip's frames, and cut out the face; raises MediaError."""
    crops, sharpness, brightness, others, small = [], [], [], [0.0], []
    look_every = max(1, round(OTHERS_EVERY_S * clip.frame_rate))
    shown = set(_spread(clip))
    for number, frame in enumerate(read_frames(info, range(clip.start, clip.stop))):
        crop = _crop(info, clip, number, frame, settings)
        grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
        crops.append(encode_jpeg(crop, settings.jpeg_quality))
        sharpness.append(sharpness_of(np.asarray(grey, np.uint8)))
        brightness.append(float(grey.mean()))
        if number % look_every == look_every // 2:
            others.append(second_face(detector.find(square_pixels(frame, info.pixel_aspect)), clip.landmarks[number]))
        if number in shown:
            small.append(_small(crop))
    return Pictures(
        crops=crops,
        sharpness=float(np.median(sharpness)),
        brightness=float(np.mean(brightness)),
        second_face=max(others),
        sheet=_sheet(small),
    )


def take_sheet(info: VideoInfo, clip: Candidate, settings: PreparationSettings) -> bytes:
    """A JPEG of a few small crops of a clip that isn't looked at any further; raises MediaError."""
    rows = _spread(clip)
    frames = read_frames(info, [clip.start + row for row in rows])
    crops = (_crop(info, clip, row, frame, settings) for frame, row in zip(frames, rows, strict=True))
    return _sheet([_small(crop) for crop in crops])


def _crop(info: VideoInfo, clip: Candidate, row: int, frame: Picture, settings: PreparationSettings) -> Picture:
    return extract(frame, from_stored(clip.transforms[row], info.pixel_aspect), settings.crop_size)


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """An (H, W, 3) RGB picture as JPEG."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(encoded[1].tobytes())


def sharpness_of(grey: Picture) -> float:
    """Variance of an (H, W) picture's Laplacian over its own: contrast taken out, what is left is fine detail."""
    variance = float(np.var(grey, dtype=np.float64))
    return float(cv2.Laplacian(grey, cv2.CV_64F).var()) / variance if variance > 1 else 0.0


def second_face(faces: Sequence[NDArray[np.float32]], landmarks: NDArray[np.float32]) -> float:
    """Size of the largest face that isn't at `landmarks` (478, 3), as a share of that one's."""
    center, size = face_center(landmarks), face_size(landmarks)
    others = [face_size(face) for face in faces if np.linalg.norm(face_center(face) - center) > 0.5 * size]
    return max(others, default=0.0) / size


def _spread(clip: Candidate) -> list[int]:
    """Rows of the frames that are shown: fewer where the clip has no more."""
    places = np.linspace(0, len(clip.times_s) - 1, SHEET_PICTURES + 2)[1:-1]
    return sorted(set(places.round().astype(int).tolist()))


def _small(crop: Picture) -> Picture:
    return np.asarray(cv2.resize(crop, (SHEET_SIDE, SHEET_SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _sheet(pictures: Sequence[Picture]) -> bytes:
    return encode_jpeg(np.hstack(pictures).astype(np.uint8), SHEET_QUALITY)
