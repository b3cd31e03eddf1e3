"""Random changes of pictures and landmarks that training draws."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.faces import topology


def colour_change(generator: np.random.Generator) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A change of hue, saturation and gain, drawn once so that all pictures of an example change alike."""
    hue = int(generator.integers(-8, 9))
    saturation, gain = generator.uniform(0.7, 1.3), generator.uniform(0.75, 1.2)

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
