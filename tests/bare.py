"""A Python environment that has what a lent machine has and nothing more, linked from the one that runs the tests."""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.bare_site import PACKAGES

ROOT = Path(__file__).parents[1]

THERE = (
    *("torch", "torchvision", "torchaudio", "numpy", "opencv-python", "opencv-contrib-python"),
    *("opencv-python-headless", "safetensors", "pyarrow", "matplotlib", "tensorboard", "pytest", "pytest-timeout"),
    *("hypothesis", "pyyaml", "rich", "typer", "jinja2", "fsspec", "huggingface-hub", "requests", "regex", "filelock"),
    *("pillow", "scipy", "scikit-image", "aiohttp", "typing-extensions", "tqdm", "psutil", "packaging", "httpx"),
    *("einops", "h5py", "transformers", "accelerate", "zipp", "yarl", "setuptools"),
)
"""Distributions that a lent machine has, with all that they require; those that aren't installed here are passed over.
OpenCV has several names, of which one is installed."""


@dataclass(frozen=True)
class Bare:
    """How to run Python there."""

    python: Path
    environment: dict[str, str]
    """All variables of its processes."""

    def run(self, *arguments: str, cwd: Path = ROOT, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run Python to its end; the checkout is on its path."""
        command = [str(self.python), *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
        )


def bare_environment(folder: Path, site: Path | None = None, without: Collection[str] = ()) -> Bare:
    """Make the environment in an empty folder; nothing is downloaded.

    Args:
        site: `site.tar.xz` of `scripts/pack_gpu` for this Python; None links what it would hold from here.
        without: distributions that are in neither, though they would be, such as `av`.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    paths = [ROOT]
    left_out = {canonicalize_name(name) for name in without}
    if site is not None:
        paths.append(folder / "site")
        with tarfile.open(site) as archive:
            archive.extractall(folder / "site", filter="data")
    own = THERE if site is not None else (*THERE, *PACKAGES)
    for distribution in _required(own, left_out | (set(PACKAGES) - set(own))):
        _link(distribution, packages)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    path = os.pathsep.join(map(str, paths))
    environment = {**kept, "PYTHONPATH": path, "PYTHONNOUSERSITE": "1"}
    return Bare(python=folder / "venv" / "bin" / "python", environment=environment)


def _required(names: Collection[str], left_out: Collection[str]) -> Iterator[importlib.metadata.Distribution]:
    """Distributions of these names, and what they require, each once."""
    waiting, seen = [canonicalize_name(name) for name in names], set(left_out)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        yield distribution
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))


def _link(distribution: importlib.metadata.Distribution, packages: Path) -> None:
    tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        if not top.endswith(".pth") and not (packages / top).exists():
            (packages / top).symlink_to(Path(str(distribution.locate_file(top))).absolute())
