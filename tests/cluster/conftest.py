"""The one Ray of the test session, and a clip with a face."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import ray
from numpy.typing import NDArray

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


@pytest.fixture(scope="session")
def face_frames() -> list[NDArray[np.uint8]]:
    """A portrait seen by a camera that moves: 24 frames (256, 256, 3); skips the test without scikit-image."""
    package = pytest.importorskip("skimage")
    picture = cv2.imread(str(Path(package.__file__).parent / "data" / "astronaut.png"))
    portrait = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    frames = []
    for index in range(24):
        left, top = 100 + index, 10 + index // 2
        view = portrait[top : top + 224, left : left + 224]
        frames.append(cv2.resize(view, (256, 256), interpolation=cv2.INTER_AREA))
    return frames
