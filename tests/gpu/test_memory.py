"""A GPU whose memory is full: smaller batches, or an error that says so; and the memory is free again afterwards."""

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

FRAMES = 32
MARGIN = 8 << 20


def rendered(device: torch.device, batch_size: int, before: Callable[[], Any] = lambda: None) -> list[Any]:
    """Frames by the bundled weights; `before` is called once these are loaded."""
    nets = inputs.networks("bundled", device)
    settings = RenderSettings(precision="float32", batch_size=batch_size)
    frames, shot = toy_shot([0.1 * (n % 3) for n in range(FRAMES)], nets.size)
    target = canonical_face(0.2)[topology.lower_face()].astype(np.float32)
    pipeline = LandmarksToFrames(nets.image, nets.autoencoder, settings, nets.size)
    ones = np.ones(FRAMES, np.float32)
    held = before()
    try:
        return list(pipeline(frames, range(FRAMES), ones, shot, np.stack([target] * FRAMES), 0))
    finally:
        del held


def peak_of(device: torch.device, batch_size: int) -> int:
    """Most bytes that rendering with this batch takes beyond its weights."""
    base = 0

    def begin() -> None:
        nonlocal base
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_reserved()

    rendered(device, batch_size, begin)
    return torch.cuda.max_memory_reserved() - base


def fill(device: torch.device, left: int) -> Tensor:
    """One plain allocation of all but `left` bytes."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return torch.empty(free - left, dtype=torch.uint8, device=device)


def test_a_batch_that_does_not_fit_is_halved(cuda: torch.device, caplog: pytest.LogCaptureFixture) -> None:
    need, enough = peak_of(cuda, FRAMES), peak_of(cuda, FRAMES // 4)
    assert need > 2 * enough, f"{need} and {enough} bytes: too near each other to tell anything"
    # Between what the batch needs and what a quarter of it does.
    found = rendered(cuda, FRAMES, lambda: fill(cuda, enough + (need - enough) // 4))
    assert "doesn't fit" in caplog.text
    sizes = [FRAMES // 2, FRAMES // 4, FRAMES // 8, FRAMES // 16]
    alike = [all(map(np.array_equal, found, rendered(cuda, size))) for size in sizes]
    assert any(alike), f"not the bits of any batch of {sizes}"


def test_one_frame_that_does_not_fit_is_an_error(cuda: torch.device) -> None:
    with pytest.raises(DeviceMemoryError, match="GiB are free"):
        rendered(cuda, FRAMES, lambda: fill(cuda, MARGIN))
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(cuda)
    assert free > total / 4, "the memory wasn't released"
