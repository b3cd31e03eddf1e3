"""What takes too long or breaks off: uploads that stall, decoders that hang, crash or eat memory, clients that go."""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dreamhead import storage
from dreamhead.media import probing
from dreamhead.serving.probing import MEMORY_BYTES
from tests.client.online import Online, online, until


@pytest.fixture
def files(make_video: Callable[..., str], make_tone: Callable[..., str]) -> dict[str, bytes]:
    """A video and speech."""
    return {
        "video": Path(make_video("clip.mp4", 10)).read_bytes(),
        "audio": Path(make_tone("speech.wav", 0.4)).read_bytes(),
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process puts temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def served(tmp_path: Path, temporary: Path) -> Iterator[Online]:
    """A service with little patience."""
    with online(tmp_path, upload_idle_s=0.5, probe_timeout_s=20) as running:
        yield running


def upload(served: Online, files: dict[str, bytes]) -> requests.Response:
    return requests.post(f"{served.url}/v1/dubs", files=files, timeout=60)


def nothing_is_left(served: Online, temporary: Path) -> bool:
    return storage.list_files(served.store.uri) == [] and list(temporary.iterdir()) == []


def begin_upload(served: Online) -> socket.socket:
    """Send the first part of an upload."""
    host, port = served.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    part = b'--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n' + bytes(100_000)
    head = f"POST /v1/dubs HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n"
    connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + part)
    return connection


def test_an_upload_that_stands_still_is_answered_408(served: Online, temporary: Path) -> None:
    began = time.monotonic()
    with begin_upload(served) as connection:
        connection.settimeout(30)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"nothing more of the request came for 0.5 s" in answer
    assert time.monotonic() - began < 10
    assert nothing_is_left(served, temporary)


def test_an_upload_that_is_broken_off_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    with online(tmp_path, upload_idle_s=60) as served:
        connection = begin_upload(served)
        until(lambda: any(path.stat().st_size >= 90_000 for path in temporary.glob("*/video")))
        connection.close()
        until(lambda: nothing_is_left(served, temporary))


def test_an_event_stream_ends_when_its_client_goes(
    served: Online, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = upload(served, files).headers["Location"]
    looks = 0
    read = served.store.read

    def counted(owner: str, job_id: str) -> Any:
        nonlocal looks
        looks += 1
        return read(owner, job_id)

    monkeypatch.setattr(served.store, "read", counted)
    with requests.get(f"{served.url}{path}/events", stream=True, timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines).startswith(b"event: job")
        until(lambda: looks > 5)

    def is_quiet() -> bool:
        before = looks
        time.sleep(0.3)
        return looks == before

    until(is_quiet)


def test_good_files_are_taken(served: Online, files: dict[str, bytes]) -> None:
    assert upload(served, files).status_code == 202


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("import time; time.sleep(1000)", "the upload: the decoder isn't done with it after 1 s"),
        ("import os; os.abort()", "the upload: the decoder crashed over it"),
    ],
)
def test_a_decoder_that_hangs_or_crashes_is_answered_422(
    tmp_path: Path,
    temporary: Path,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    detail: str,
) -> None:
    pid_file = tmp_path / "pid"
    told = f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid())); {script}"
    monkeypatch.setattr(probing, "PROBE", (sys.executable, "-c", told))
    with online(tmp_path, probe_timeout_s=1) as served:
        response = upload(served, files)
        assert (response.status_code, response.json()["detail"]) == (422, detail)
        assert nothing_is_left(served, temporary)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_decoder_gets_no_more_memory_than_it_may(
    tmp_path: Path, temporary: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    eats = f"probing.open_media = lambda path: bytearray({10 * MEMORY_BYTES})"
    script = f"import sys; from dreamhead.media import probing; {eats}; probing.main(*sys.argv[1:])"
    monkeypatch.setattr(probing, "PROBE", (sys.executable, "-c", script))
    with online(tmp_path) as served:
        response = upload(served, files)
    assert response.status_code == 422
    assert response.json()["detail"] == "the upload: the decoder wants more than 2 GB of memory for it"


def test_a_decoder_is_told_no_secret(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "environment"
    script = f"import os; open({str(told)!r}, 'w').write(str(dict(os.environ)))"
    monkeypatch.setattr(probing, "PROBE", (sys.executable, "-c", script))
    monkeypatch.setenv("DREAMHEAD_WEBHOOK_SECRET", "whsec_xyz")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "xyz")
    with online(tmp_path) as served:
        upload(served, files)
    assert "PATH" in told.read_text()
    assert "xyz" not in told.read_text()
