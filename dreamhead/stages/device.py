"""Choose the device that a stage's networks run on, and fix their CPU threads."""

import torch

from dreamhead.config import DubSettings
from dreamhead.errors import ConfigError


def use_device(settings: DubSettings) -> torch.device:
    """The device that the settings mean here; sums depend on CPU threads, so their number is set for the process.

    Raises ConfigError where CUDA is asked for and isn't there.
    """
    torch.set_num_threads(settings.cpu_threads)
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise ConfigError("device: cuda was asked for, but torch sees no CUDA device here; allowed: auto, cpu")
    return torch.device("cuda" if available and settings.device != "cpu" else "cpu")
