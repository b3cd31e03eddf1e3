"""Who reaches an endpoint, and how: the usual AWS variables, threads, forked and spawned processes."""

import gc
import multiprocessing
import multiprocessing.connection
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from s3fs import S3FileSystem

from dreamhead import storage
from dreamhead.errors import StorageError
from tests.fault_proxy import FaultProxy
from tests.s3 import forget_clients, s3_bucket_behind_proxy

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FaultProxy]]:
    with s3_bucket_behind_proxy("access") as found:
        storage.write_bytes(f"{found[0]}/a", b"content")
        yield found


@pytest.fixture
def proxy(endpoint: tuple[str, FaultProxy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultProxy]:
    """No variable says anything, and no file in the home directory is read."""
    for name in (*CREDENTIALS, "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    endpoint[1].clear()
    forget_clients()
    yield endpoint[1]
    forget_clients()


def signed(proxy: FaultProxy) -> tuple[str, str]:
    """Access key and region that the last request was signed with."""
    scope = proxy.requests[-1].headers["authorization"].partition("Credential=")[2].split("/")
    return scope[0], scope[2]


def test_keys_endpoint_and_region_by_variables(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "given")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert storage.read_bytes("s3://access/a") == b"content"
    assert signed(proxy) == ("given", "eu-west-1")
    assert proxy.requests[-1].headers["x-amz-security-token"] == "token"
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert storage.size("s3://access/a") == 7
    assert signed(proxy) == ("given", "eu-north-1")


def test_the_endpoint_of_s3_alone_comes_first(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "given")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert storage.read_bytes("s3://access/a") == b"content"
    assert signed(proxy) == ("given", "us-east-1")


def test_a_profile_brings_all_of_it(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = f"[profile studio]\nregion = ca-central-1\nendpoint_url = {proxy.url}\n"
    (tmp_path / "config").write_text(config)
    (tmp_path / "credentials").write_text("[studio]\naws_access_key_id = of-studio\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_PROFILE", "studio")
    assert storage.read_bytes("s3://access/a") == b"content"
    assert signed(proxy) == ("of-studio", "ca-central-1")


def test_what_is_missing_is_said(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    with pytest.raises(StorageError, match=r"s3://access/a: can't read: no credentials: set AWS_PROFILE, or AWS_ACC"):
        storage.read_bytes("s3://access/a")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    forget_clients()
    with pytest.raises(StorageError, match=r"can't read: The config profile \(nobody\) could not be found"):
        storage.read_bytes("s3://access/a")
    assert proxy.requests == []


def test_an_endpoint_that_is_no_url_is_said(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "studio")
    with pytest.raises(StorageError, match=r"s3://access/a: can't look up: Invalid endpoint: studio"):
        storage.exists("s3://access/a")


@pytest.fixture
def reachable(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "given")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return proxy


def test_threads_share_one_client(reachable: FaultProxy) -> None:
    def round_trip(number: int) -> bytes:
        uri = f"s3://access/threads/{number}"
        storage.write_bytes(uri, str(number).encode() * 1000)
        with storage.open_read(uri) as file:
            return file.read()

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(round_trip, range(64)))
    assert found == [str(number).encode() * 1000 for number in range(64)]
    assert len(fsspec.get_filesystem_class("s3")._cache) == 1
    assert len(storage.list_files("s3://access/threads")) == 64


CLOSED: list[int] = []
"""The processes in which a client was closed."""


def _read_in_child(pipe: multiprocessing.connection.Connection) -> None:
    gc.collect()  # Parents' clients that nothing holds would be closed now.
    try:
        pipe.send((storage.read_bytes("s3://access/a"), os.getpid() in CLOSED))
    finally:
        pipe.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_reaches_it_and_leaves_its_parents_connections_alone(
    method: str, reachable: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = S3FileSystem.close_session

    def close(*arguments: Any) -> None:
        CLOSED.append(os.getpid())
        original(*arguments)

    monkeypatch.setattr(S3FileSystem, "close_session", staticmethod(close))
    assert storage.read_bytes("s3://access/a") == b"content"
    context: multiprocessing.context.BaseContext = multiprocessing.get_context(method)
    here, there = context.Pipe()
    make: Callable[..., multiprocessing.process.BaseProcess] = context.Process
    child = make(target=_read_in_child, args=(there,))
    child.start()
    there.close()
    assert here.poll(60)
    assert here.recv() == (b"content", False)
    child.join(60)
    assert child.exitcode == 0
    reachable.clear()
    assert storage.read_bytes("s3://access/a") == b"content"
    assert len(reachable.requests) == 1
