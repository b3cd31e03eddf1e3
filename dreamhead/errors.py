"""The exception tree. Every error that DreamHead raises on purpose derives from DreamheadError.

* DreamheadError
  x ConfigError          a setting is unknown, missing or out of range
  x ManifestError        the whole manifest is refused (not one row of it)
  x InputError           one job's input can't be used; the job fails, the others go on
    - NoFaceError        no usable face in the whole video
    - MediaError         a file can't be probed, decoded, encoded or muxed
  x QualityError         a dub is below a limit of the review, and the settings say that it fails
  x StorageError         a uri can't be read, listed or published
    - NotFoundError      there is no file at a uri
    - DiskFullError      a disk is full; the run ends, since every job would fail likewise
  x CheckpointError      a checkpoint directory is incomplete or its digests don't match
    - WeightsUnavailableError  others' weights are neither given, nor installed, nor downloadable
  x DeviceMemoryError    not even one item fits the GPU's memory
  x TrainingError        a training can't start or go on as it is told to
  x ClusterError         the pools don't fit the cluster, or the run made no progress
"""


class DreamheadError(Exception):
    """Base of every deliberate error; its message is one line that a user can act on."""


class ConfigError(DreamheadError):
    """A setting is unknown, missing or out of range."""


class ManifestError(DreamheadError):
    """The manifest as a whole is refused: unreadable, a required column missing, outputs that collide."""


class InputError(DreamheadError):
    """One job's input can't be used; names what, where and what is allowed."""


class NoFaceError(InputError):
    """No usable face in the whole video."""


class MediaError(InputError):
    """A media file can't be probed, decoded, encoded or muxed."""


class QualityError(DreamheadError):
    """A dub is below a limit of the review, and the settings say that such a job fails."""


class StorageError(DreamheadError):
    """A uri can't be read, listed or published."""


class NotFoundError(StorageError):
    """There is no file at a uri."""


class DiskFullError(StorageError):
    """A disk, or the share of it that one may use, is full; names it and says what to do."""


class CheckpointError(DreamheadError):
    """A checkpoint directory is incomplete, of another kind, or its digests don't match."""


class WeightsUnavailableError(CheckpointError):
    """Others' weights are neither given by path, nor installed, nor downloadable."""


class DeviceMemoryError(DreamheadError):
    """Not even one item fits the GPU's memory; says how much is free and what to set."""


class TrainingError(DreamheadError):
    """A training can't start or go on: changed settings, a damaged state, a loss that isn't a number."""


class ClusterError(DreamheadError):
    """The pools don't fit the cluster, or the run made no progress."""
