"""Choose the device that a stage's networks run on, and fix its threads."""

import cv2
import torch

from dreamhead.config import DubSettings
from dreamhead.errors import ConfigError


def use_device(settings: DubSettings) -> torch.device:
    """The device that the settings mean here, with the threads that they allow.

    Raises ConfigError where CUDA is asked for and isn't there.
    """
    limit_threads(settings)
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise ConfigError("device: cuda was asked for, but torch sees no CUDA device here; allowed: auto, cpu")
    return torch.device("cuda" if available and settings.device != "cpu" else "cpu")


def limit_threads(settings: DubSettings) -> None:
    """Give this process's networks and pictures `cpu_threads`.

    Sums depend on the networks' threads, and OpenCV would take every core of a machine that other stages share.
    """
    torch.set_num_threads(settings.cpu_threads)
    cv2.setNumThreads(settings.cpu_threads)
