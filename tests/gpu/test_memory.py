"""A GPU whose memory is full: smaller batches, or an error that says so; and the memory is free again afterwards."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamhead.config import RenderSettings
from dreamhead.errors import DeviceMemoryError
from dreamhead.faces import topology
from dreamhead.pipelines.landmarks_to_frames import LandmarksToFrames
from tests.gpu import inputs
from tests.toy_faces import canonical_face, toy_shot

pytestmark = pytest.mark.gpu

POSES, FRAMES = 32, 64
SHARE = 16
"""What a sixteenth of the frames reserves is far less than all of them need: a quarter's was once enough for all."""
MARGIN = 8 << 20


def rendered(device: torch.device, batch_size: int, before: Callable[[], Any] = lambda: None) -> list[Any]:
    """Frames by the bundled weights; `before` is called once these are loaded."""
    nets = inputs.networks("bundled", device)
    settings = RenderSettings(precision="float32", batch_size=batch_size)
    frames, shot = toy_shot([0.1 * (n % 3) for n in range(POSES)], nets.size)
    numbers = [n % POSES for n in range(FRAMES)]
    target = canonical_face(0.2)[topology.lower_face()].astype(np.float32)
    pipeline = LandmarksToFrames(nets.image, nets.autoencoder, settings, nets.size)
    ones = np.ones(FRAMES, np.float32)
    held = before()
    try:
        return list(pipeline([frames[n] for n in numbers], numbers, ones, shot, np.stack([target] * FRAMES), 0))
    finally:
        del held


def peak_of(device: torch.device, batch_size: int) -> tuple[int, int]:
    """Most bytes, allocated and reserved, that rendering with this batch takes beyond its weights."""
    base = 0, 0

    def begin() -> None:
        nonlocal base
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    rendered(device, batch_size, begin)
    return torch.cuda.max_memory_allocated() - base[0], torch.cuda.max_memory_reserved() - base[1]


def fill(device: torch.device, left: int) -> Tensor:
    """One plain allocation of all but `left` bytes."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return torch.empty(free - left, dtype=torch.uint8, device=device)


def test_a_batch_that_does_not_fit_is_halved(cuda: torch.device, caplog: pytest.LogCaptureFixture) -> None:
    (allocated, _), (_, reserved) = peak_of(cuda, FRAMES), peak_of(cuda, FRAMES // SHARE)
    # As much as this smaller batch takes where memory is plenty. What the whole one reserves says nothing: before an
    # allocation fails, cached blocks are given back, and cuDNN tries what needs less workspace.
    left = reserved + MARGIN
    assert left < allocated / 2, f"{left} and {allocated} bytes: too near each other to tell anything"
    found = rendered(cuda, FRAMES, lambda: fill(cuda, left))
    sizes = [int(size) for size in re.findall(r"doesn't fit, .*; trying (\d+)", caplog.text)]
    assert sizes, "the whole batch did fit"
    assert sizes == [FRAMES >> times for times in range(1, len(sizes) + 1)], caplog.text
    # With as little room, since what cuDNN chooses depends on it.
    assert all(map(np.array_equal, found, rendered(cuda, sizes[-1], lambda: fill(cuda, left))))


def test_one_frame_that_does_not_fit_is_an_error(cuda: torch.device) -> None:
    with pytest.raises(DeviceMemoryError, match="GiB are free"):
        rendered(cuda, FRAMES, lambda: fill(cuda, MARGIN))
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(cuda)
    assert free > total / 4, "the memory wasn't released"
