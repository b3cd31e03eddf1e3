"""An S3 endpoint over HTTP, in this process."""

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tests.fault_proxy import FaultProxy, fault_proxy


@contextmanager
def s3_bucket(name: str) -> Iterator[str]:
    """Uri of an empty bucket; the environment leads to it meanwhile."""
    with _endpoint() as (host, port), _leading_to(f"http://{host}:{port}"):
        yield _make_bucket(name)


@contextmanager
def s3_bucket_behind_proxy(name: str, seed: int = 0) -> Iterator[tuple[str, FaultProxy]]:
    """The same, and the proxy through which the environment leads to it."""
    with _endpoint() as upstream, fault_proxy(upstream, seed) as proxy, _leading_to(proxy.url):
        uri = _make_bucket(name)
        proxy.clear()
        yield uri, proxy


@contextmanager
def _endpoint() -> Iterator[tuple[str, int]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


@contextmanager
def _leading_to(url: str) -> Iterator[None]:
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        forget_clients()
        try:
            yield
        finally:
            forget_clients()


def forget_clients() -> None:
    """Let the next request read the environment anew, as a new process would."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def _make_bucket(name: str) -> str:
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(f"s3://{name}")
    return f"s3://{name}"
