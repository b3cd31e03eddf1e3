"""The one Ray of the test session."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.typing import NDArray

from tests.cluster.farm import Farm

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray in this process, with more logical CPUs than there are, so that every pool fits."""
    with pytest.MonkeyPatch.context() as patch:
        # An address left by a run that died would make Ray connect instead of start.
        patch.setenv("RAY_ADDRESS", "local")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        # Actors import what the tests import, also from a checkout that isn't installed.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            object_store_memory=256 * 1024 * 1024,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield
        ray.shutdown()


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
