"""Object storage that fails: what passes heals, what stays is said in bounded time, and nothing is left in parts."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from botocore.retries.standard import ExponentialBackoff

from dreamhead import object_store, storage
from dreamhead.errors import ConfigError, DiskFullError, NotFoundError, StorageError
from tests.fault_proxy import SLOW_DOWN, Fault, FaultProxy
from tests.s3 import s3_bucket_behind_proxy

CONTENT = np.random.default_rng(0).bytes(700_000)
MEBIBYTE = 1024 * 1024

Operation = Callable[[str, Path], object]


def _open_and_read(uri: str, folder: Path) -> bytes:
    with storage.open_read(uri) as file:
        return file.read()


def _fetch(uri: str, folder: Path) -> bytes:
    storage.fetch(uri, folder / "fetched")
    return (folder / "fetched").read_bytes()


def _write(uri: str, folder: Path) -> bytes:
    storage.write_bytes(uri, CONTENT)
    return storage.read_bytes(uri)


def _publish(uri: str, folder: Path) -> bytes:
    (folder / "made").write_bytes(CONTENT)
    storage.publish(folder / "made", uri)
    return storage.read_bytes(uri)


def _delete(uri: str, folder: Path) -> bool:
    storage.delete(uri)
    return storage.exists(uri)


def _delete_many(uri: str, folder: Path) -> list[str]:
    storage.delete_many([uri, f"{uri}.other"])
    return storage.list_files(uri.rpartition("/")[0])


OPERATIONS: dict[str, tuple[Operation, Callable[[str], object]]] = {
    "exists": (lambda uri, folder: storage.exists(uri), lambda uri: True),
    "size": (lambda uri, folder: storage.size(uri), lambda uri: len(CONTENT)),
    "read_bytes": (lambda uri, folder: storage.read_bytes(uri), lambda uri: CONTENT),
    "open_read": (_open_and_read, lambda uri: CONTENT),
    "fetch": (_fetch, lambda uri: CONTENT),
    "write_bytes": (_write, lambda uri: CONTENT),
    "publish": (_publish, lambda uri: CONTENT),
    "list_sizes": (lambda uri, folder: storage.list_sizes(uri.rpartition("/")[0]), lambda uri: {uri: len(CONTENT)}),
    "delete": (_delete, lambda uri: False),
    "delete_many": (_delete_many, lambda uri: []),
}
"""What is done to an object, and what it gives when it goes well."""

FAULTS = {
    "500": Fault("answer"),
    "503": Fault("answer", **SLOW_DOWN),
    "reset": Fault("reset"),
    "lost": Fault("lost"),
    "truncate": Fault("truncate"),
    "stall": Fault("stall"),
    "silent": Fault("slow", delay_s=600.0),
}

READS = ("read_bytes", "open_read", "fetch", "list_sizes")
"""Operations whose answers have a body that can break off."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FaultProxy]]:
    with s3_bucket_behind_proxy("harm") as found:
        yield found


@pytest.fixture
def proxy(endpoint: tuple[str, FaultProxy]) -> Iterator[FaultProxy]:
    endpoint[1].clear()
    yield endpoint[1]
    endpoint[1].clear()


@pytest.fixture
def base(endpoint: tuple[str, FaultProxy], tmp_path: Path) -> str:
    """A directory uri of the test's own."""
    return f"{endpoint[0]}/{tmp_path.name}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short time-outs, and no waits between tries."""
    monkeypatch.setenv("DREAMHEAD_S3_READ_TIMEOUT", "0.3")
    monkeypatch.setattr(object_store, "LONGEST_WAIT_S", 0.0)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.0)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest parts that S3 takes, but for the last."""
    monkeypatch.setattr(object_store, "PART_BYTES", 5 * MEBIBYTE)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_passes_heals(
    operation: str, fault: str, base: str, proxy: FaultProxy, impatient: None, tmp_path: Path
) -> None:
    uri = f"{base}/object.bin"
    storage.write_bytes(uri, CONTENT)
    act, expected = OPERATIONS[operation]
    proxy.clear(replace(FAULTS[fault]))
    assert act(uri, tmp_path) == expected(uri)
    harmed = [request for request in proxy.requests if request.fault]
    assert len(harmed) == 1 or fault == "silent"  # A silent one is noted when it speaks.


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_stays_is_a_storage_error_with_uri_and_reason(
    operation: str,
    fault: str,
    base: str,
    proxy: FaultProxy,
    impatient: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault in ("truncate", "stall") and operation not in READS:
        return
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    uri = f"{base}/object.bin"
    storage.write_bytes(uri, CONTENT)
    proxy.clear(replace(FAULTS[fault], times=None))
    began = time.monotonic()
    with pytest.raises(StorageError, match=rf"^s3://harm/{tmp_path.name}.*: can't [a-z ]+: \S.{{10}}") as caught:
        OPERATIONS[operation][0](uri, tmp_path)
    assert time.monotonic() - began < 5
    assert not isinstance(caught.value, NotFoundError)
    # On a connection that was used before, aiohttp itself sends once more.
    assert fault == "silent" or 2 <= len(proxy.requests) <= (4 if fault in ("reset", "lost") else 2)
    assert not (tmp_path / "fetched").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(storage.UNFINISHED)] == []


@pytest.mark.parametrize(
    ("status", "code", "headers", "words"),
    [
        (403, "AccessDenied", (), "access denied: these credentials may not do this here"),
        (404, "NoSuchBucket", (), "the bucket does not exist at this endpoint"),
        (400, "ExpiredToken", (), "the credentials have expired; renew them"),
        (
            403,
            "InvalidAccessKeyId",
            (),
            "the access key is unknown at this endpoint; check AWS_ACCESS_KEY_ID or AWS_PRO",
        ),
        (403, "SignatureDoesNotMatch", (), "the secret key doesn't belong to the access key; check AWS_SECRET_ACC"),
        (403, "RequestTimeTooSkewed", (), "this machine's clock differs from the endpoint's; set it"),
        (
            301,
            "PermanentRedirect",
            (("x-amz-bucket-region", "eu-west-3"),),
            "lies in the region eu-west-3; set AWS_REG",
        ),
        (400, "AuthorizationHeaderMalformed", (), "lies in another region; set AWS_REGION"),
        (503, "SlowDown", (), "the endpoint is throttling: too many requests at a time"),
        (418, "Teapot", (), "An error occurred (Teapot) when calling the GetObject operation: short and stout"),
    ],
)
def test_refusals_are_said_in_words(
    status: int,
    code: str,
    headers: tuple[tuple[str, str], ...],
    words: str,
    base: str,
    proxy: FaultProxy,
    impatient: None,
) -> None:
    proxy.clear(Fault("answer", times=None, status=status, code=code, message="short and stout", headers=headers))
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(f"{base}/clip.mp4")
    assert str(caught.value).startswith(f"{base}/clip.mp4: can't read: ")
    assert words in str(caught.value)
    assert not isinstance(caught.value, NotFoundError)


def test_a_full_store_is_a_full_disk(base: str, proxy: FaultProxy) -> None:
    proxy.clear(Fault("answer", method="PUT", times=None, status=507, code="XMinioStorageFull"))
    with pytest.raises(DiskFullError, match=r"can't write: the object storage is full; free some of it"):
        storage.write_bytes(f"{base}/a", b"a")


@pytest.mark.usefixtures("proxy")
def test_a_missing_object_is_told_from_failure(base: str) -> None:
    assert not storage.exists(f"{base}/none")
    for look in (storage.read_bytes, storage.size, storage.open_read, storage.identity):
        with pytest.raises(NotFoundError, match=r"/none: can't (read|look up): no such object"):
            look(f"{base}/none")
    with pytest.raises(StorageError, match="the bucket does not exist"):
        storage.read_bytes("s3://nobody-has-this/none")


def test_an_upload_that_nobody_reads_is_sent_again(
    base: str, proxy: FaultProxy, film: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fixture's own wish for short time-outs, but long enough for the system's timers.
    monkeypatch.setenv("DREAMHEAD_S3_READ_TIMEOUT", "1")
    proxy.clear(Fault("deaf", method="PUT"))
    began = time.monotonic()
    storage.publish(film, f"{base}/film.mp4")
    assert time.monotonic() - began < 20
    assert [request.status for request in proxy.requests] == [0, 200]
    assert storage.size(f"{base}/film.mp4") == 12 * MEBIBYTE


def test_throttling_backs_off_by_chance(base: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    original = ExponentialBackoff.delay_amount

    def noted(self: ExponentialBackoff, context: Any) -> float:
        waits.append(original(self, context))
        return 0.0

    monkeypatch.setattr(ExponentialBackoff, "delay_amount", noted)
    for _ in range(4):
        proxy.clear(Fault("answer", times=4, **SLOW_DOWN))
        storage.write_bytes(f"{base}/a", b"a")
        assert [request.status for request in proxy.requests] == [503] * 4 + [200]
    assert len(set(waits)) == 16
    for number, longest in enumerate((1, 2, 4, 8)):
        assert max(waits[number::4]) <= longest
    assert max(waits) > 2


@pytest.mark.parametrize("fault", ["500", "reset", "silent"])
def test_a_dead_endpoint_takes_less_than_two_minutes(
    fault: str, base: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = object_store.limits()
    longest_waits = sum(min(2**number, object_store.LONGEST_WAIT_S) for number in range(wanted.attempts - 1))
    assert wanted.attempts * wanted.read_s + longest_waits < 120
    assert wanted.request_s < 120
    proxy.clear(replace(FAULTS[fault], times=None))
    monkeypatch.setenv("DREAMHEAD_S3_REQUEST_TIMEOUT", "1")
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"can't look up: the endpoint gave no whole answer in 1 s"):
        storage.exists(f"{base}/a")
    assert time.monotonic() - began < 2.5


def test_an_endpoint_that_is_no_number_of_seconds_is_refused(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    for value in ("soon", "0", "-1", "inf"):
        monkeypatch.setenv("DREAMHEAD_S3_READ_TIMEOUT", value)
        with pytest.raises(ConfigError, match=rf"DREAMHEAD_S3_READ_TIMEOUT is '{value}' in the environment; allowed"):
            storage.exists(f"{base}/a")


def uploads() -> list[Any]:
    found: list[Any] = fsspec.filesystem("s3", use_listings_cache=False).list_multipart_uploads("harm")
    return found


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A file of three parts."""
    path = tmp_path / "film.mp4"
    path.write_bytes(np.random.default_rng(1).bytes(12 * MEBIBYTE))
    return path


@pytest.mark.usefixtures("impatient", "small_parts")
@pytest.mark.parametrize("step", ["PUT", "POST"])
@pytest.mark.parametrize("fault", ["500", "503", "reset", "lost"])
def test_a_large_file_is_published_in_parts(step: str, fault: str, base: str, proxy: FaultProxy, film: Path) -> None:
    proxy.clear(replace(FAULTS[fault], method=step, target=".*uploadId"))
    storage.publish(film, f"{base}/film.mp4")
    storage.fetch(f"{base}/film.mp4", film.with_name("back.mp4"))
    assert film.with_name("back.mp4").read_bytes() == film.read_bytes()
    parts = [request.received for request in proxy.seen("PUT") if request.status == 200]
    assert sorted(set(parts)) == [2 * MEBIBYTE, 5 * MEBIBYTE]
    assert uploads() == []


@pytest.mark.usefixtures("impatient", "small_parts")
@pytest.mark.parametrize("target", [r".*partNumber=2", r".*\?uploadId"])
def test_a_failed_upload_leaves_the_old_object_and_no_parts(
    target: str, base: str, proxy: FaultProxy, film: Path
) -> None:
    storage.write_bytes(f"{base}/film.mp4", b"old")
    proxy.clear(Fault("answer", method="PUT|POST", target=target, times=None))
    with pytest.raises(StorageError, match=r"film\.mp4: can't write: .*internal error"):
        storage.publish(film, f"{base}/film.mp4")
    assert storage.read_bytes(f"{base}/film.mp4") == b"old"
    assert uploads() == []
    assert proxy.seen("DELETE")


@pytest.mark.usefixtures("impatient", "small_parts")
def test_an_upload_whose_end_was_answered_into_the_void_is_done(base: str, proxy: FaultProxy, film: Path) -> None:
    end = {"method": "POST", "target": r".*\?uploadId"}
    forgotten = Fault("answer", times=None, status=404, code="NoSuchUpload", **end)
    proxy.clear(Fault("lost", **end), replace(forgotten))
    storage.publish(film, f"{base}/film.mp4")
    assert [request.fault for request in proxy.seen(**end)] == ["lost", "answer"]
    proxy.clear()
    assert storage.read_bytes(f"{base}/film.mp4") == film.read_bytes()
    proxy.clear(replace(forgotten))
    with pytest.raises(StorageError, match=r"new\.mp4: can't write: "):
        storage.publish(film, f"{base}/new.mp4")
    proxy.clear()
    assert not storage.exists(f"{base}/new.mp4")


@pytest.mark.usefixtures("small_parts", "proxy")
def test_large_contents_go_in_parts_too(base: str, film: Path) -> None:
    storage.write_bytes(f"{base}/film.mp4", film.read_bytes())
    assert storage.read_bytes(f"{base}/film.mp4") == film.read_bytes()
    assert storage.content_digest(f"{base}/film.mp4").endswith(f"-3-{12 * MEBIBYTE}")


def test_parts_grow_where_ten_thousand_would_not_do() -> None:
    for size in (1, 100 * 10**9, 5 * 2**40):
        length = object_store.part_bytes(size)
        assert -(-size // length) <= 10_000
        assert 5 * MEBIBYTE <= length <= 5 * 1024 * MEBIBYTE
    assert object_store.part_bytes(100 * 10**9) == object_store.PART_BYTES


@pytest.mark.usefixtures("proxy")
def test_an_object_that_is_replaced_while_it_is_read_is_noticed(base: str) -> None:
    uri = f"{base}/object.bin"
    storage.write_bytes(uri, CONTENT)
    with storage.open_read(uri) as file:
        file.read(10)
        storage.write_bytes(uri, CONTENT[::-1])
        with pytest.raises(StorageError, match=r"can't read: it was replaced while it was being read"):
            file.read()


@pytest.mark.usefixtures("proxy")
def test_an_object_that_is_replaced_while_it_is_fetched_is_noticed(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, target = f"{base}/object.bin", tmp_path / "fetched"
    storage.write_bytes(uri, CONTENT)
    monkeypatch.setattr(object_store, "PART_BYTES", 300_000)
    target.write_bytes(b"old")
    original = object_store._first_range

    def replaced(*arguments: Any) -> Any:
        found = original(*arguments)
        storage.write_bytes(uri, b"changed")
        return found

    monkeypatch.setattr(object_store, "_first_range", replaced)
    with pytest.raises(StorageError, match="it was replaced while it was being read"):
        storage.fetch(uri, target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["fetched"]


@pytest.mark.usefixtures("proxy")
def test_an_empty_object(base: str, tmp_path: Path) -> None:
    uri = f"{base}/empty"
    storage.write_bytes(uri, b"")
    assert storage.read_bytes(uri) == b""
    with storage.open_read(uri) as file:
        assert file.read() == b""
    storage.fetch(uri, tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


def test_reading_on_fetches_ever_more_and_jumping_fetches_little(base: str, proxy: FaultProxy) -> None:
    content = np.random.default_rng(2).bytes(20 * MEBIBYTE)
    uri, first = f"{base}/large.bin", object_store.FIRST_RANGE
    storage.write_bytes(uri, content)
    proxy.clear()
    with storage.open_read(uri) as file:
        assert file.read() == content
    assert [request.sent for request in proxy.requests][:5] == [first << number for number in range(5)]
    assert len(proxy.requests) == 7
    assert proxy.bytes_sent() == len(content)

    proxy.clear()
    with storage.open_read(uri) as file:
        for position in (15 * MEBIBYTE, 100, len(content) - 10, 15 * MEBIBYTE + 1000, 200):
            file.seek(position)
            assert file.read(10) == content[position : position + 10]
    assert [request.sent for request in proxy.requests] == [first, first, 10]


def test_requests_are_as_few_as_can_be(base: str, proxy: FaultProxy, tmp_path: Path) -> None:
    uris = [f"{base}/many/{number}" for number in range(5)]
    for uri in uris:
        storage.write_bytes(uri, b"x")
    expected = {
        "PUT": lambda: storage.write_bytes(uris[0], b"x"),
        "HEAD": lambda: storage.exists(uris[0]),
        "GET": lambda: storage.read_bytes(uris[0]),
        "GET ": lambda: storage.fetch(uris[0], tmp_path / "x"),
        "GET  ": lambda: storage.open_read(uris[0]).read(),
        "GET   ": lambda: storage.list_sizes(base),
        "GET    ": lambda: storage.list_sizes(f"{base}/none"),
        "HEAD ": lambda: storage.identity(uris[0]),
        "DELETE": lambda: storage.delete(uris[0]),
        "POST": lambda: storage.delete_many(uris),
    }
    for method, act in expected.items():
        proxy.clear()
        act()
        assert [request.method for request in proxy.requests] == [method.strip()], method


@pytest.mark.usefixtures("proxy")
def test_names_come_back_as_they_are(base: str) -> None:
    names = ["a b.bin", "c+d.bin", "e%20f.bin", "g#h.bin", "ü/€.bin", "i?j=k.bin"]
    for name in names:
        storage.write_bytes(f"{base}/{name}", name.encode())
    assert storage.list_files(base) == sorted(f"{base}/{name}" for name in names)
    assert [storage.read_bytes(f"{base}/{name}").decode() for name in names] == names
    storage.delete_many(f"{base}/{name}" for name in names)
    assert storage.list_files(base) == []


def test_more_than_one_page_is_listed_and_deleted(
    base: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "MOST_LISTED", 3)
    monkeypatch.setattr(object_store, "MOST_DELETED", 4)
    uris = [f"{base}/{number}" for number in range(7)]
    for uri in uris:
        storage.write_bytes(uri, b"xy")
    proxy.clear(Fault("answer", skip=1))
    assert storage.list_sizes(base) == dict.fromkeys(uris, 2)
    assert [request.status for request in proxy.requests] == [200, 500, 200, 200]
    proxy.clear()
    storage.delete_many(uris)
    assert [request.method for request in proxy.requests] == ["POST", "POST"]
    assert storage.list_files(base) == []


def test_an_object_that_cant_be_deleted_is_named(base: str, proxy: FaultProxy) -> None:
    answer = (
        b'<?xml version="1.0"?><DeleteResult><Error><Key>film/2</Key><Code>AccessDenied</Code>'
        b"<Message>Access Denied</Message></Error></DeleteResult>"
    )
    proxy.clear(Fault("answer", method="POST", status=200, body=answer))
    with pytest.raises(StorageError, match=r"s3://harm/film/2: can't delete: access denied: .*\(1 of 2 objects\)"):
        storage.delete_many([f"{base}/1", f"{base}/2"])


def test_a_reports_type_is_told_so_that_browsers_show_it(base: str, proxy: FaultProxy) -> None:
    storage.write_bytes(f"{base}/report.html", b"<p>")
    assert proxy.requests[0].headers["content-type"] == "text/html"


def test_a_body_is_sent_without_asking_first(base: str, proxy: FaultProxy) -> None:
    storage.write_bytes(f"{base}/a", b"a")
    assert "expect" not in proxy.requests[0].headers
