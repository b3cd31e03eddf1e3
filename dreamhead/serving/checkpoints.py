"""The weights that requests may ask for, by name, and what stages and artefacts depend on with each of them."""

from dataclasses import dataclass
from threading import Lock

from dreamhead.config import DubSettings
from dreamhead.errors import InputError
from dreamhead.serving.settings import ServingSettings
from dreamhead.stages.opening import fitted, open_work
from dreamhead.stages.work import Work


@dataclass(frozen=True)
class StageArguments:
    """What each stage's class is made with."""

    settings: DubSettings
    checkpoint_uri: str
    work_uri: str


def stage_arguments(settings: ServingSettings, checkpoint: str = "") -> StageArguments:
    """For the service's stages, with the weights of that name; raises CheckpointError, ConfigError, InputError."""
    uri = checkpoint_uri(settings, checkpoint)
    return StageArguments(fitted(settings.dub, uri), uri, settings.work_uri)


def checkpoint_uri(settings: ServingSettings, name: str) -> str:
    """Where the weights of that name lie, "" being the service's own; raises InputError for a name that isn't there."""
    if not name:
        return settings.checkpoint
    if name not in settings.checkpoints:
        allowed = ", ".join(sorted(settings.checkpoints)) or "none but the service's own, without a name"
        raise InputError(f"checkpoint: there is no {name!r}; allowed: {allowed}")
    return settings.checkpoints[name]


class Works:
    """The work directory as each of the service's checkpoints names its files; opened when first asked for."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._opened: dict[str, tuple[Work, str]] = {}

    def open(self, checkpoint: str) -> tuple[Work, str]:
        """The work directory, and the digest of the weights; raises CheckpointError, ConfigError, InputError."""
        with self._lock:
            if checkpoint not in self._opened:
                arguments = stage_arguments(self._settings, checkpoint)
                self._opened[checkpoint] = open_work(arguments.settings, arguments.checkpoint_uri, arguments.work_uri)
            return self._opened[checkpoint]
