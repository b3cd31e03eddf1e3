"""Crops, and the figures that are read off them."""

import cv2
import numpy as np
import pytest

from dreamhead import pretrained
from dreamhead.config import PreparationSettings
from dreamhead.faces.crop import extract
from dreamhead.faces.detection import FaceDetector
from dreamhead.media.video import probe
from dreamhead.stages.preparation.pictures import second_face, sharpness_of, take_pictures, take_sheet
from tests.stages.preparation.conftest import candidate
from tests.toy_faces import astronaut, canonical_face, posed


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def test_sharpness_takes_out_the_contrast_and_sees_blur() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    faint = (grey // 3 + 80).astype(np.uint8)
    assert sharpness_of(faint) == pytest.approx(sharpness_of(grey), rel=0.02)
    blurred = cv2.GaussianBlur(grey, (0, 0), 2).astype(np.uint8)
    assert sharpness_of(blurred) < 0.1 * sharpness_of(grey)
    assert sharpness_of(np.full((9, 9), 7, np.uint8)) == 0


def test_a_second_face_is_measured_against_the_first() -> None:
    mine, other = posed(canonical_face(), 40), posed(canonical_face(), 20, middle=(300.0, 80.0))
    assert second_face([mine, other], mine) == pytest.approx(0.5, abs=0.01)
    assert second_face([mine + 3], mine) == 0
    assert second_face([], mine) == 0


def test_a_portraits_clip(make_video: object) -> None:
    portrait = np.asarray(cv2.resize(astronaut()[20:276, 90:346], (256, 256)), np.uint8)
    info = probe(make_video(frames=[portrait] * 8, size=(256, 256)))  # type: ignore[operator]
    with FaceDetector(pretrained.face_landmarker()) as detector:
        (face, *_) = detector.find(portrait)
        transform = np.array([[0.5, 0, -20], [0, 0.5, -30]], np.float32)
        clip = candidate(
            np.zeros(6),
            start=2,
            stop=8,
            landmarks=np.repeat(face[None], 6, axis=0),
            transforms=np.repeat(transform[None], 6, axis=0),
        )
        pictures = take_pictures(info, clip, detector, PreparationSettings(crop_size=64))
    assert len(pictures.crops) == 6
    expected = extract(portrait, transform, 64).astype(int)
    assert np.abs(decoded(pictures.crops[5]) - expected).mean() < 5
    assert pictures.brightness == pytest.approx(
        cv2.cvtColor(expected.astype(np.uint8), cv2.COLOR_RGB2GRAY).mean(), abs=3
    )
    assert pictures.second_face == 0
    assert pictures.sharpness > 0.005
    assert decoded(pictures.sheet).shape == (96, 4 * 96, 3)
    assert decoded(take_sheet(info, clip, PreparationSettings(crop_size=64))).shape == (96, 4 * 96, 3)
