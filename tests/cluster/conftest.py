"""The one Ray of the test session."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

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
