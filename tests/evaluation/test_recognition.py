"""Recognising faces: where they are put, what two moments are apart, and dlib's network where it is installed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead import pretrained
from dreamhead.errors import WeightsUnavailableError
from dreamhead.evaluation import recognition
from dreamhead.evaluation.recognition import DlibRecognition, Recognition, arcface_crop, find_recogniser, moments_apart
from dreamhead.faces.detection import FaceDetector
from tests.evaluation.test_judges import onnx_model, scripted
from tests.toy_faces import canonical_face, posed

# PyTorch wants another format for new networks; these files are what their authors publish.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def test_the_face_is_put_where_recognition_wants_it() -> None:
    frame = np.zeros((160, 200, 3), np.uint8)
    face = posed(canonical_face())
    for index in (1, 61, 291):
        x, y = face[index, :2].round().astype(int)
        frame[y - 1 : y + 2, x - 1 : x + 2] = 255
    crop = arcface_crop(frame, face)
    assert crop.shape == (112, 112, 3)
    rows, columns = np.nonzero(crop[..., 0] > 120)
    # The mouth's corners lie in the lower part to the left and right, the nose above them in the middle.
    assert (columns[rows > 85] < 50).any()
    assert (columns[rows > 85] > 62).any()
    assert 45 < columns[rows < 82].mean() < 67


@pytest.mark.parametrize("kind", ["onnx", "scripted"])
def test_a_face_is_itself_and_another_colour_is_another(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"net.{'onnx' if kind == 'onnx' else 'pt'}"
    if kind == "onnx":
        path.write_bytes(onnx_model())
    else:
        scripted(path)
    recognise = find_recogniser(str(path), "")
    face, red, blue = posed(canonical_face()), *(np.zeros((160, 200, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = 255, 255
    assert isinstance(recognise, Recognition)
    assert np.linalg.norm(recognise(red, face)) == pytest.approx(1)
    # Unit vectors whose cosine is -1/3.
    assert np.linalg.norm(recognise(red, face) - recognise(blue, face)) == pytest.approx((8 / 3) ** 0.5, abs=1e-3)


def test_two_moments_are_those_that_are_far_enough_apart_in_time() -> None:
    embeddings = np.array([[0.0], [1.0], [3.0], [7.0]])
    times_s = np.array([0.0, 1.0, 2.0, 4.0])
    # 0 and 2, 0 and 4, 1 and 4, 2 and 4.
    assert moments_apart(embeddings, times_s, 2.0) == pytest.approx((3 + 7 + 6 + 4) / 4)
    assert moments_apart(embeddings, times_s, 3.0) == pytest.approx((7 + 6) / 2)
    assert np.isnan(moments_apart(embeddings, times_s, 5.0))
    # A moment isn't compared with itself.
    assert moments_apart(embeddings[:2], times_s[:2], 0.0) == 1


def test_without_dlib_it_is_said_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailableError, match=r"dlib isn't installed: pip install 'dreamhead\[identity\]'"):
        DlibRecognition()


def test_dlib_gets_five_points_and_a_face_of_150_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    dlib = pytest.importorskip("dlib")
    seen: dict[str, NDArray[np.uint8]] = {}

    class Network:
        def compute_face_descriptor(self, chip: NDArray[np.uint8]) -> list[float]:
            seen["chip"] = chip
            return [0.5] * 128

    monkeypatch.setattr(recognition, "face_recogniser", lambda path: Path("there.dat"))
    monkeypatch.setattr(dlib, "face_recognition_model_v1", lambda path: Network())
    face = posed(canonical_face())
    frame = np.zeros((160, 200, 3), np.uint8)
    for eye in (33, 263):
        cv2.circle(frame, tuple(int(value) for value in face[eye, :2].round()), 4, (255, 255, 255), -1)
    assert DlibRecognition()(frame, face).tolist() == [0.5] * 128
    assert seen["chip"].shape == (150, 150, 3)
    rows, columns = np.nonzero(seen["chip"][..., 0] > 128)
    # The outer corners of the eyes lie level, where dlib wants them: at 0.12 and 0.86 of the face, padded by a quarter.
    left, right = columns[columns < 75].mean(), columns[columns > 75].mean()
    assert (left, right) == (pytest.approx(37, abs=6), pytest.approx(111, abs=6))
    assert rows[columns < 75].mean() == pytest.approx(rows[columns > 75].mean(), abs=3)


def test_dlib_knows_a_person_again(speaking_frames: list[NDArray[np.uint8]]) -> None:
    pytest.importorskip("dlib")
    try:
        recognise = DlibRecognition()
    except WeightsUnavailableError as error:
        pytest.skip(str(error))
    person = speaking_frames[0]
    # A face whose lower half is stretched is somebody else's.
    rows = np.concatenate([np.linspace(0, 128, 128), np.linspace(128, 200, 128)]).astype(np.float32)
    columns, rows = np.meshgrid(np.arange(256, dtype=np.float32), rows)
    other = cv2.remap(person[..., ::-1].copy(), columns, rows, cv2.INTER_LINEAR)
    with FaceDetector(pretrained.face_landmarker()) as detector:
        same, again, else_ = (
            recognise(frame, detector.find(frame)[0]) for frame in (person, speaking_frames[8], other)
        )
    assert np.linalg.norm(same - again) < 0.4 < 0.5 < np.linalg.norm(same - else_)
