"""The device that these tests run on; nothing else is needed, so that they run on a machine with little installed.

python -m pytest tests/gpu --confcutdir=tests/gpu -p no:cacheprovider
"""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _exact_and_alike() -> Iterator[None]:
    """Float32 is float32 (TF32 keeps 10 bits of the mantissa), and random numbers are the tests' own."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    if not torch.cuda.is_available():
        # Threads that wait for each other on busy cores would take most of the time.
        torch.set_num_threads(1)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


@pytest.fixture
def device() -> torch.device:
    """CUDA where it is there, else the CPU, against itself; fails without CUDA when FAIL_WITHOUT_CUDA=1."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail("torch sees no CUDA device, and FAIL_WITHOUT_CUDA=1")
    return torch.device("cpu")


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """CUDA; skips what makes no sense without it."""
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    return device


@pytest.fixture(params=["tiny", "bundled"])
def which(request: pytest.FixtureRequest) -> str:
    """Networks of random weights, or the bundled ones at their real shapes; these are too slow for busy CPUs."""
    if request.param == "bundled" and not torch.cuda.is_available() and os.environ.get("BUNDLED_ON_CPU") != "1":
        pytest.skip("the bundled weights at their real shapes need a GPU, or BUNDLED_ON_CPU=1")
    name: str = request.param
    return name
