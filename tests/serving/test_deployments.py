"""The processes of the service's stages."""

import subprocess
import sys

from tests.cluster.farm import environment_with


def test_threads_of_networks_that_wait_do_not_spin() -> None:
    """The OpenMP library itself says what it took; a replica begins with the same import."""
    environment = environment_with(OMP_DISPLAY_ENV="true")
    environment.pop("OMP_WAIT_POLICY", None)
    process = subprocess.run(
        [sys.executable, "-c", "from dreamhead.serving.deployments import Render"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in process.stderr
