"""Batches that don't fit a GPU's memory: halved and tried again, down to one item, for which there is an error."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from dreamhead.errors import DeviceMemoryError

ResultT = TypeVar("ResultT")

FULL = "ALLOC_FAILED", "CUDA error: out of memory"
"""What cuBLAS, cuDNN and the driver say."""

logger = logging.getLogger(__name__)


class Fitting:
    """How many items go through a network at once.

    Args:
        at_once: at first.
        items: what they are, with their size, for messages.
        device: that the network is on.
        advice: what to set where not even one item fits.
    """

    def __init__(self, at_once: int, items: str, device: torch.device, advice: str) -> None:
        self.at_once = at_once
        """Halved each time that they don't fit; it stays so, since the next batch would fail likewise."""
        self._items = items
        self._device = device
        self._advice = advice

    def tried(self, work: Callable[[], ResultT], count: int) -> ResultT | None:
        """What the work on `count` items gives, or None where they didn't fit and fewer are to be tried.

        Raises DeviceMemoryError where it was one item.
        """
        try:
            return work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Outside the handler: while the error lives, so does all that its traceback holds on the device.
        memory = free_memory(self._device)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if count <= 1:
            raise DeviceMemoryError(f"{self._items}: a batch of 1 doesn't fit, {memory}; {self._advice} ({reason})")
        self.at_once = count // 2
        logger.warning("%s: a batch of %d doesn't fit, %s; trying %d", self._items, count, memory, self.at_once)
        return None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory was full: torch has a class for it, the libraries below it a word in their messages."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in FULL)


def free_memory(device: torch.device) -> str:
    """In words, how much of a device's memory is free."""
    if device.type != "cuda":
        return "free memory unknown"
    free, total = torch.cuda.mem_get_info(device)
    return f"{free / 2**30:.2f} of {total / 2**30:.2f} GiB are free"
