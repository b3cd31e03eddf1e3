"""Training data from pixels that aren't square is the same as from square ones."""

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.config import PreparationSettings, WeightsSettings
from dreamhead.faces.detection import FaceDetector
from dreamhead.media.video import probe
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.records import VideoInfo
from dreamhead.stages.preparation import sync
from dreamhead.stages.preparation.pictures import Pictures, take_pictures, take_sheet
from dreamhead.stages.preparation.tracks import Candidate, analysis_settings, find_candidates
from tests.anamorphic import resized, stored

FRAMES = 16
SETTINGS = PreparationSettings(crop_size=64, min_clip_s=0.2)

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def frames(face_frames: list[Picture]) -> list[Picture]:
    """(256, 448, 3): the portrait, and half as large a second one beside it."""
    wide = []
    for frame in face_frames[:FRAMES]:
        picture = np.full((256, 448, 3), 90, np.uint8)
        picture[:, :256] = frame
        picture[64:208, 288:432] = resized(frame[:, ::-1], 144, 144)
        wide.append(picture)
    return wide


def prepared(info: VideoInfo) -> tuple[Candidate, Pictures, bytes]:
    """The clip, its pictures, and its sheet."""
    analyser = VideoAnalyser(analysis_settings(SETTINGS), WeightsSettings())
    (clip,) = find_candidates(info, 0, FRAMES, analyser, SETTINGS)
    analyser.close()
    with FaceDetector(pretrained.face_landmarker()) as detector:
        return clip, take_pictures(info, clip, detector, SETTINGS), take_sheet(info, clip, SETTINGS)


@pytest.mark.parametrize(("aspect", "rotation"), [("4/3", 0), ("1/2", 0), ("2", 0), ("2", 90)])
def test_a_clip_is_that_of_square_pixels(frames: list[Picture], make_video: Any, aspect: str, rotation: int) -> None:
    square = probe(make_video("square.mp4", frames))
    upright = Fraction(aspect)
    coded = [np.rot90(stored(frame, upright), -(rotation // 90)) for frame in frames]
    coded_aspect = 1 / upright if rotation else upright
    info = probe(make_video("squeezed.mp4", coded, aspect=coded_aspect, rotation=rotation))
    clip, pictures, strip = prepared(info)
    true, true_pictures, true_strip = prepared(square)
    # Some tenths of a pixel of 256 by resizing and encoding; the face is 100 pixels high.
    assert np.linalg.norm((clip.landmarks - true.landmarks)[..., :2], axis=-1).mean() < 0.8
    assert clip.face_px() == pytest.approx(true.face_px(), rel=0.01)
    np.testing.assert_allclose(clip.turned_deg(), true.turned_deg(), atol=1)
    # Stored pixels would say 0.23 for 0.18 at 4:3.
    np.testing.assert_allclose(clip.opening(), true.opening(), atol=0.02)
    np.testing.assert_allclose(clip.track.neutral, true.track.neutral, atol=0.04)
    np.testing.assert_allclose(clip.transforms, true.transforms, atol=0.6)
    for ours, theirs in zip(pictures.crops, true_pictures.crops, strict=True):
        assert _apart(_decoded(ours), _decoded(theirs)) < 5
    assert _apart(_decoded(strip), _decoded(true_strip)) < 5
    assert pictures.brightness == pytest.approx(true_pictures.brightness, abs=1)
    assert true_pictures.second_face == pytest.approx(0.5625, abs=0.03)
    assert pictures.second_face == pytest.approx(true_pictures.second_face, abs=0.02)
    assert _apart(sync.face_pictures(info, clip), sync.face_pictures(square, true)) < 5


def _decoded(data: bytes) -> Picture:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def _apart(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(int) - other).mean())
