"""Threads: no stage takes more of a machine than its settings say."""

from collections.abc import Callable, Iterator

import cv2
import pytest
import torch

from dreamhead.config import DubSettings
from dreamhead.stages.device import limit_threads, use_device


@pytest.fixture
def own_threads() -> Iterator[None]:
    """What the process had comes back."""
    torchs, opencvs = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(torchs)
    cv2.setNumThreads(opencvs)


@pytest.mark.usefixtures("own_threads")
@pytest.mark.parametrize("limit", [use_device, limit_threads])
@pytest.mark.parametrize("threads", [1, 3])
def test_networks_and_pictures_get_the_threads_of_the_settings(
    limit: Callable[[DubSettings], object], threads: int
) -> None:
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    limit(DubSettings(device="cpu", cpu_threads=threads))
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (threads, threads)
