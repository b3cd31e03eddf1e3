"""A checkpoint directory: networks as diffusers saves them, what they were trained for, a model card, digests.

config.json               what the networks expect
audio_to_landmark/        config.json, diffusion_pytorch_model.safetensors
landmark_to_image/        the same
autoencoder/              the same, of the class that config.json names
reference_mixer/          the same; not in every checkpoint
README.md                 model card
digests.json              SHA-256 of every other file, written last
"""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import Field
from typing_extensions import Self

from dreamhead import storage
from dreamhead.config import Section, parse
from dreamhead.errors import CheckpointError, ConfigError, NotFoundError

# Most processes of a farm only need to know which weights there are: networks are imported when they are asked for.
if TYPE_CHECKING:
    import torch
    from diffusers.models.modeling_utils import ModelMixin
    from torch import nn

    from dreamhead.models.landmark_denoiser import LandmarkDenoiser
    from dreamhead.models.latent_denoiser import LatentDenoiser
    from dreamhead.models.reference_mixer import ReferenceMixer

BUNDLED = Path(__file__).with_name("weights") / "base"
DIGESTS = "digests.json"
LANDMARKS, IMAGE, AUTOENCODER = "audio_to_landmark", "landmark_to_image", "autoencoder"
MIXER = "reference_mixer"


class CheckpointConfig(Section):
    """What the networks of a checkpoint expect."""

    speech_encoder: str = "whisper"
    """Name of the speech features that the first stage was trained on."""
    crop_size: int = Field(default=256, ge=32, multiple_of=32)
    """Side of the aligned crop that the second stage was trained on, pixels."""
    autoencoder: str = "FaceAutoencoder"
    """Class of the autoencoder."""


class Checkpoint:
    """A verified checkpoint on local disk; networks are loaded when asked for."""

    def __init__(self, folder: Path, config: CheckpointConfig, digests: dict[str, str]) -> None:
        self._folder = folder
        self._digests = digests
        self.config = config

    @classmethod
    def load(cls, uri: str = "") -> Self:
        """Open a checkpoint directory, the bundled one unless given, and verify it.

        Raises:
            CheckpointError: not a checkpoint, a file is missing, or a digest doesn't match.
        """
        folder = _local_folder(uri) if uri else BUNDLED
        where = uri or str(BUNDLED)
        digests = _read_digests(folder, where)
        for name, expected in digests.items():
            _verify(folder / name, expected, f"{where}/{name}")
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return cls(folder, parse(values, CheckpointConfig, f"{where}/config.json"), digests)
        except (OSError, ValueError, ConfigError) as error:
            raise CheckpointError(f"{where}: {error}") from error

    @property
    def digest(self) -> str:
        """SHA-256 over all files."""
        return self._digest_of("")

    @property
    def landmarks_digest(self) -> str:
        """SHA-256 over what decides the landmarks."""
        return self._digest_of(LANDMARKS, self.config.speech_encoder)

    def render_digest(self, renderer: str) -> str:
        """SHA-256 over what decides the pixels of a renderer, see `RenderSettings`.

        Raises CheckpointError where the renderer's network is missing.
        """
        if renderer == "mixer" and not self.has_mixer:
            raise CheckpointError(f"{self._folder}: has no {MIXER}, which renderer: mixer needs")
        # Whoever doesn't use the mixer keeps what was rendered with a checkpoint that had none.
        parts = (MIXER,) if renderer == "mixer" else (IMAGE, AUTOENCODER)
        return hashlib.sha256("".join(self._digest_of(part) for part in parts).encode()).hexdigest()

    def landmark_denoiser(self, device: "torch.device") -> "LandmarkDenoiser":
        """The first stage's network, ready for inference."""
        from dreamhead.models.landmark_denoiser import LandmarkDenoiser

        model: LandmarkDenoiser = self._network(LandmarkDenoiser, LANDMARKS, device)
        return model

    def latent_denoiser(self, device: "torch.device") -> "LatentDenoiser":
        """The second stage's network, ready for inference."""
        from dreamhead.models.latent_denoiser import LatentDenoiser

        model: LatentDenoiser = self._network(LatentDenoiser, IMAGE, device)
        return model

    def autoencoder(self, device: "torch.device") -> "nn.Module":
        """The autoencoder, ready for inference, with `encode` and `decode`."""
        from dreamhead.models.autoencoder import FaceAutoencoder, LibraryAutoencoder, autoencoder_class

        kind = autoencoder_class(self.config.autoencoder)
        network = self._network(kind, AUTOENCODER, device)
        return network if isinstance(network, FaceAutoencoder) else LibraryAutoencoder(network)

    @property
    def has_mixer(self) -> bool:
        """Whether there is a reference mixer."""
        return any(name.startswith(f"{MIXER}/") for name in self._digests)

    def reference_mixer(self, device: "torch.device") -> "ReferenceMixer":
        """What mixes moved references, ready for inference; raises CheckpointError where there is none."""
        from dreamhead.models.reference_mixer import ReferenceMixer

        if not self.has_mixer:
            raise CheckpointError(f"{self._folder}: has no {MIXER}")
        model: ReferenceMixer = self._network(ReferenceMixer, MIXER, device)
        return model

    def _network(self, kind: "type[ModelMixin]", part: str, device: "torch.device") -> "ModelMixin":
        import torch

        try:
            # Weights are stored in half precision; a CPU computes in full.
            model = kind.from_pretrained(self._folder / part, torch_dtype=torch.float32, low_cpu_mem_usage=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self._folder / part}: can't load {kind.__name__}: {error}") from error
        ready: ModelMixin = model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        return ready

    def _digest_of(self, prefix: str, *more: str) -> str:
        parts = [f"{name} {digest}" for name, digest in sorted(self._digests.items()) if name.startswith(prefix)]
        return hashlib.sha256("\n".join([*parts, *more]).encode()).hexdigest()


def save(
    folder: Path,
    config: CheckpointConfig,
    landmark_denoiser: "LandmarkDenoiser",
    latent_denoiser: "LatentDenoiser",
    autoencoder: "ModelMixin",
    card: str,
    reference_mixer: "ReferenceMixer | None" = None,
) -> None:
    """Write a checkpoint directory in half precision; `card` is the model card, Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    networks = {LANDMARKS: landmark_denoiser, IMAGE: latent_denoiser, AUTOENCODER: autoencoder}
    if reference_mixer is not None:
        networks[MIXER] = reference_mixer
    for part, network in networks.items():
        network.half().save_pretrained(folder / part)
        network.float()
    (folder / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_digests(folder)


def write_digests(folder: Path) -> None:
    """Record the SHA-256 of every file, after a change that is meant."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS)
    digests = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    (folder / DIGESTS).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def _local_folder(uri: str) -> Path:
    if not storage.is_remote(uri):
        return storage.local_path(uri)
    try:
        listed = storage.read_bytes(storage.join(uri, DIGESTS))
    except NotFoundError as error:
        raise CheckpointError(f"{uri}: not a checkpoint directory, it has no {DIGESTS}") from error
    # The name is the digest of the digests: another checkpoint at the same uri gets another copy.
    name = hashlib.sha256(listed).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"dreamhead-{os.getuid()}-checkpoint-{name}"
    digests = _parse_digests(listed, uri)
    # Of a node's processes the first one copies, the others wait for it.
    with _locked(folder.with_suffix(".lock")):
        for file, digest in digests.items():
            _copy_part(storage.join(uri, file), folder / file, digest)
        storage.write_bytes(str(folder / DIGESTS), listed)
    return folder


def _copy_part(uri: str, path: Path, digest: str) -> None:
    if path.is_file() and _sha256(path) == digest:
        return
    try:
        storage.fetch(uri, path)
    except NotFoundError as error:
        raise CheckpointError(f"{uri}: missing, though {DIGESTS} lists it") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes of this machine out; the lock ends with its process, whatever happens."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_digests(folder: Path, where: str) -> dict[str, str]:
    try:
        listed = (folder / DIGESTS).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{where}: not a checkpoint directory, it has no {DIGESTS}") from error
    return _parse_digests(listed, where)


def _parse_digests(listed: bytes, where: str) -> dict[str, str]:
    try:
        digests = json.loads(listed)
    except ValueError as error:
        raise CheckpointError(f"{where}/{DIGESTS}: not valid JSON: {error}") from error
    if not isinstance(digests, dict):
        raise CheckpointError(f"{where}/{DIGESTS}: not a table of files and their SHA-256")
    for name in digests:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CheckpointError(f"{where}/{DIGESTS}: {name} lies outside the checkpoint")
    return {str(name): str(digest) for name, digest in digests.items()}


def _verify(path: Path, expected: str, where: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{where}: missing, though {DIGESTS} lists it")
    found = _sha256(path)
    if found != expected:
        raise CheckpointError(f"{where}: SHA-256 is {found}, expected {expected}: changed or damaged")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
