"""Open a work directory for settings and weights that go together."""

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings
from dreamhead.errors import ConfigError
from dreamhead.media.encode import check_preset
from dreamhead.stages.work import Work


def fitted(settings: DubSettings, checkpoint_uri: str) -> DubSettings:
    """The settings with the checkpoint's size of crop, unless they say one themselves; raises CheckpointError."""
    if "crop_size" in settings.analysis.model_fields_set:
        return settings
    size = Checkpoint.load(checkpoint_uri).config.crop_size
    return settings.model_copy(update={"analysis": settings.analysis.model_copy(update={"crop_size": size})})


def open_work(settings: DubSettings, checkpoint_uri: str, work_uri: str) -> tuple[Work, str]:
    """The work directory for these settings, and the digest of the weights; raises CheckpointError, ConfigError."""
    check_preset(settings.output)
    checkpoint = Checkpoint.load(checkpoint_uri)
    trained, wanted = checkpoint.config.crop_size, settings.analysis.crop_size
    if trained != wanted:
        raise ConfigError(f"analysis.crop_size is {wanted}, but the checkpoint was trained for {trained}")
    return Work(work_uri, settings, checkpoint), checkpoint.digest
