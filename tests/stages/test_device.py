"""Threads: no stage takes more of a machine than its settings say."""

from collections.abc import Callable, Iterator

import cv2
import pytest
import torch

from dreamhead.config import DubSettings
from dreamhead.errors import ConfigError
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


@pytest.mark.usefixtures("own_threads")
@pytest.mark.parametrize(
    ("asked", "there", "expected"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
    ],
)
def test_auto_takes_cuda_where_it_is(asked: str, there: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert use_device(DubSettings.model_validate({"device": asked})).type == expected


@pytest.mark.usefixtures("own_threads")
def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: cuda was asked for, but torch sees no CUDA device here; allowed: "):
        use_device(DubSettings(device="cuda"))
