"""Small farms to run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cluster.farm import Farm


@pytest.fixture
def farm(
    tmp_path: Path, make_video: Callable[..., str], make_tone: Callable[..., str], face_frames: list[NDArray[np.uint8]]
) -> Farm:
    """One clip of 24 frames in two languages, and a third job whose video isn't there; device cpu."""
    small = Farm(tmp_path, make_video("clip.mp4", face_frames), [make_tone("en.wav", 0.96), make_tone("de.wav", 0.6)])
    small.rows.append(small.rows[0] | {"job_id": "bad", "video_uri": "gone.mp4", "output_uri": "out/bad.mp4"})
    small.write_manifest()
    return small


@pytest.fixture
def long_farm(
    tmp_path: Path, make_video: Callable[..., str], make_tone: Callable[..., str], face_frames: list[NDArray[np.uint8]]
) -> Farm:
    """One clip of 192 frames in two languages: 32 chunks each."""
    frames = (face_frames + face_frames[::-1]) * 4
    return Farm(tmp_path, make_video("clip.mp4", frames), [make_tone("en.wav", 7.5), make_tone("de.wav", 5.0)])
