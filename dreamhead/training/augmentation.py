"""Random changes of pictures and landmarks that training draws."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def colour_change(generator: np.random.Generator, strength: float = 1.0) -> Change:
    """A change of hue, saturation and gain, drawn once so that all pictures of an example change alike."""
    hue = round(strength * generator.integers(-8, 9))
    saturation, gain = (1 + strength * (generator.uniform(*ends) - 1) for ends in ((0.7, 1.3), (0.75, 1.2)))

    def change(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        hsv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV).astype(np.int16)
        hsv[..., 0] = (hsv[..., 0] + hue) % 180
        hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
        hsv[..., 2] = np.clip(hsv[..., 2] * gain, 0, 255)
        return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)

    return change


def flip_landmarks(landmarks: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(478, 3) landmarks of a crop of side `size` seen in a mirror."""
    mirrored = landmarks.copy()
    mirrored[:, 0] = size - 1 - landmarks[:, 0]
    result: NDArray[np.float32] = mirrored[topology.face_model().flip]
    return result


def blur(generator: np.random.Generator, size: int) -> Change:
    """A Gaussian blur of up to 1/200 of the crop's side, as of a lens or an encoder; one for all pictures."""
    sigma = generator.uniform(0.1, 1) * size / 200

    def change(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)

    return change


def zoom(scale: float, size: int) -> NDArray[np.float32]:
    """(2, 3) map of pixels that draws a crop `scale` times as large about its middle."""
    middle = (size - 1) / 2 * (1 - scale)
    return np.array([[scale, 0, middle], [0, scale, middle]], np.float32)


def zoomed(picture: NDArray[np.uint8], way: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A (S, S, 3) crop or an (S, S) mask drawn by a map from `zoom`."""
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpAffine(picture, way, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)
