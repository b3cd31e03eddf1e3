"""Make one archive of the Python packages that a bare machine lacks, from wheels at the pinned versions."""

import hashlib
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

from packaging.requirements import Requirement

from dreamhead.errors import ConfigError, StorageError
from dreamhead.pretrained import cache_dir

PACKAGES = (
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "diffusers",
    "importlib-metadata",
    "av",
)
"""What dreamhead needs and the lent machines lack; there it does without Ray, MediaPipe, Whisper, S3 and scene cuts."""
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17)), "manylinux2014_x86_64")
NOT_NEEDED = (".pyx", ".pxd", ".pyi")
RECIPE = 1
"""Number of the way an archive is made; another one is made anew."""


def pinned(constraints: Path, python: str, without: Collection[str]) -> dict[str, str]:
    """Versions of PACKAGES for one version of Python on Linux, but for those named; raises ConfigError."""
    if unknown := sorted(set(without) - set(PACKAGES)):
        raise ConfigError(f"--without {unknown[0]}: not among what is packed; allowed: {', '.join(PACKAGES)}")
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found: dict[str, str] = {}
    for line in constraints.read_text().splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(where):
            found[requirement.name] = str(requirement.specifier).removeprefix("==")
    if missing := [name for name in PACKAGES if name not in found]:
        raise ConfigError(f"{constraints}: pins no version of {missing[0]} for Python {python}")
    return {name: found[name] for name in PACKAGES if name not in without}


def make_site(versions: Mapping[str, str], python: str, target: Path) -> None:
    """Write `target`, a .tar.xz to unpack on the path; taken from the cache where the same was made before.

    Raises:
        StorageError: the wheels can't be had; says what pip said.
    """
    names = "\n".join([f"{RECIPE} {python} {shutil.which('strip')}", *(f"{n}=={v}" for n, v in versions.items())])
    kept = cache_dir() / "sites" / f"{hashlib.sha256(names.encode()).hexdigest()[:24]}.tar.xz"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as scratch:
            wheels, tree = Path(scratch) / "wheels", Path(scratch) / "site"
            _download(versions, python, wheels)
            unpack_wheels(sorted(wheels.glob("*.whl")), tree)
            _publish(tree, kept)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept, target)


def unpack_wheels(wheels: Collection[Path], tree: Path) -> None:
    """Unpack wheels side by side, without sources of C and type stubs, their libraries stripped."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree, [name for name in archive.namelist() if not name.endswith(NOT_NEEDED)])
    libraries = [path for path in tree.rglob("*") if path.is_file() and ".so" in path.suffixes]
    if (strip := shutil.which("strip")) and libraries:
        subprocess.run([strip, "--strip-unneeded", *map(str, libraries)], check=True, capture_output=True)


def archive_tree(tree: Path, target: Path) -> None:
    """Write a folder's files as .tar.xz, the same bytes for the same files."""
    with tarfile.open(target, "w:xz", preset=9 | lzma.PRESET_EXTREME) as archive:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(path.relative_to(tree).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(entry, file)


def _publish(tree: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        unfinished = Path(file.name)
    try:
        archive_tree(tree, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _download(versions: Mapping[str, str], python: str, folder: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    command = [*_pip(), "download", "--quiet", *options, *platforms, "--dest", str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StorageError(f"pip can't download {' '.join(wanted)} for Python {python}: {reason}")


def _pip() -> list[str]:
    """The environment's own pip, or one on PATH: which Python runs it doesn't matter."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True).returncode == 0:
        return own
    if found := shutil.which("pip") or shutil.which("pip3"):
        return [found]
    raise StorageError("pip: neither in this environment nor on PATH; it downloads what the archive holds")
