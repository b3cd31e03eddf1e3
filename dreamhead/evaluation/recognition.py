"""Networks that recognise faces: how far two pictures are from showing the same person."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dreamhead.errors import WeightsUnavailableError
from dreamhead.pretrained import face_recogniser

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

ARCFACE_SIZE = 112
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
"""Where eyes, tip of the nose and corners of the mouth lie in the crops that such networks are trained on."""
EYES = ((33, 133), (362, 263))
NOSE_TIP, MOUTH_CORNERS = 1, (61, 291)

DLIB_SIZE = 150
DLIB_POINTS = (263, 362, 33, 133, 2)
"""dlib's five points: outer and inner corner of the eye on the right, the same on the left, and below the nose."""
NO_DLIB = "pip install 'dreamhead[identity]', or give judges.recognition"


class Recogniser(Protocol):
    """Embeds faces; the Euclidean distance of two embeddings is small where they are the same person's."""

    def __call__(self, frame: Picture, landmarks: Floats) -> NDArray[np.float64]:
        """(C,) of the face at (478, 3) landmarks, in pixels, in an (H, W, 3) RGB frame."""
        ...


class Recognition:
    """A network that the user gives: `.onnx`, or TorchScript of (1, 3, 112, 112) RGB in -1..1 to (1, C)."""

    def __init__(self, path: Path) -> None:
        self._embed = _onnx(path) if path.suffix.lower() == ".onnx" else scripted(path, "judges.recognition")

    def __call__(self, frame: Picture, landmarks: Floats) -> NDArray[np.float64]:
        """(C,) unit embedding of the face at (478, 3) landmarks in an (H, W, 3) frame."""
        crop = arcface_crop(frame, landmarks)
        blob = np.ascontiguousarray((crop.astype(np.float32).transpose(2, 0, 1)[None] - 127.5) / 127.5)
        embedding = np.asarray(self._embed(blob), np.float64).ravel()
        unit: NDArray[np.float64] = embedding / max(float(np.linalg.norm(embedding)), 1e-12)
        return unit


class DlibRecognition:
    """dlib's residual network (King 2017), which no training here has used; raises WeightsUnavailableError.

    Its authors take faces less than 0.6 apart for the same person's.

    Args:
        path: `dlib_face_recognition_resnet_model_v1.dat`; empty: as `face_recogniser` finds it.
    """

    def __init__(self, path: str = "") -> None:
        if importlib.util.find_spec("dlib") is None:
            raise WeightsUnavailableError(f"package dlib isn't installed: {NO_DLIB}")
        weights = face_recogniser(path)
        self._dlib = importlib.import_module("dlib")
        self._network = self._dlib.face_recognition_model_v1(str(weights))

    def __call__(self, frame: Picture, landmarks: Floats) -> NDArray[np.float64]:
        """(128,) of the face at (478, 3) landmarks in an (H, W, 3) frame."""
        dlib = self._dlib
        (left, top), (right, bottom) = (
            np.rint(corner[:2]) for corner in (landmarks.min(axis=0), landmarks.max(axis=0))
        )
        points = dlib.points([dlib.point(*map(int, np.rint(landmarks[index, :2]))) for index in DLIB_POINTS])
        face = dlib.full_object_detection(dlib.rectangle(int(left), int(top), int(right), int(bottom)), points)
        chip = dlib.get_face_chip(np.ascontiguousarray(frame), face, DLIB_SIZE)
        return np.array(self._network.compute_face_descriptor(chip), np.float64)


def find_recogniser(recognition: str, dlib: str) -> Recogniser:
    """The network at the path `recognition`, else dlib's; raises WeightsUnavailableError where there is neither."""
    if not recognition:
        return DlibRecognition(dlib)
    if not Path(recognition).is_file():
        raise WeightsUnavailableError(f"setting judges.recognition: {recognition} is not a file")
    return Recognition(Path(recognition))


def moments_apart(embeddings: Floats, times_s: Floats, apart_s: float) -> float:
    """Mean distance of (N, C) embeddings of one person at times at least `apart_s` apart; NaN where there are none."""
    rows, columns = np.nonzero(np.triu(np.abs(times_s[:, None] - times_s) >= max(apart_s, 1e-6)))
    if not len(rows):
        return float("nan")
    return float(np.linalg.norm(embeddings[rows] - embeddings[columns], axis=1).mean())


def arcface_crop(frame: Picture, landmarks: Floats) -> Picture:
    """(112, 112, 3) the face of (478, 3) landmarks, moved so that its five points lie where the networks want them."""
    points = landmarks[:, :2].astype(np.float64)
    five = np.stack([*(points[list(eye)].mean(axis=0) for eye in EYES), points[NOSE_TIP], *points[list(MOUTH_CORNERS)]])
    transform = _similarity(five, ARCFACE_POINTS)
    size = (ARCFACE_SIZE, ARCFACE_SIZE)
    return np.asarray(cv2.warpAffine(frame, transform, size, flags=cv2.INTER_LINEAR), np.uint8)


def scripted(path: Path, setting: str) -> Callable[[NDArray[np.float32]], Any]:
    """A TorchScript file's network, from array to array; raises WeightsUnavailableError that names `setting`."""
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise WeightsUnavailableError(f"{setting} {path}: not a TorchScript file: {first_line(error)}") from error

    def run(blob: NDArray[np.float32]) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(blob)).numpy()

    return run


def first_line(error: Exception) -> str:
    """PyTorch and OpenCV explain themselves at length."""
    return str(error).strip().partition("\n")[0]


def _onnx(path: Path) -> Callable[[NDArray[np.float32]], Any]:
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise WeightsUnavailableError(
            f"judges.recognition {path}: not a readable ONNX network: {first_line(error)}"
        ) from error

    def run(blob: NDArray[np.float32]) -> Any:
        network.setInput(blob)
        return network.forward()

    return run


def _similarity(source: Floats, target: Floats) -> NDArray[np.float64]:
    """(2, 3) least-squares similarity in the plane: a rotation and a scale are one complex factor."""
    one, other = source @ [1, 1j], target @ [1, 1j]
    centred = one - one.mean()
    factor = (np.conj(centred) @ (other - other.mean())) / (np.conj(centred) @ centred).real
    offset = other.mean() - factor * one.mean()
    return np.array([[factor.real, -factor.imag, offset.real], [factor.imag, factor.real, offset.imag]])
