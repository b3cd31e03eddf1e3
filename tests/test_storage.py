"""Storage on a local disk, and on an S3 endpoint over HTTP."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamhead import storage
from dreamhead.errors import NotFoundError, StorageError
from tests.s3 import s3_bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Uri of an empty bucket on a real S3 endpoint."""
    with s3_bucket("studio") as uri:
        yield uri


@pytest.fixture(params=["path", "file", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A directory uri of each kind."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return str(tmp_path) if request.param == "path" else f"file://{tmp_path}"


def test_write_read_list_delete(base: str) -> None:
    uri = storage.join(base, "a", "b c.bin")
    assert not storage.exists(uri)
    assert storage.list_files(storage.join(base, "a")) == []
    storage.write_bytes(uri, b"old")
    storage.write_bytes(uri, b"content")
    assert storage.exists(uri)
    assert not storage.exists(storage.join(base, "a"))
    assert storage.size(uri) == 7
    assert storage.read_bytes(uri) == b"content"
    assert storage.list_files(base) == [uri]
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_open_read_seeks(base: str) -> None:
    uri = storage.join(base, "digits.bin")
    storage.write_bytes(uri, bytes(range(100)))
    with storage.open_read(uri) as file:
        assert file.seek(50) == 50
        assert file.read(2) == b"\x32\x33"
        assert file.seek(-1, os.SEEK_END) == 99
        assert file.read() == b"\x63"


def test_publish_and_fetch_copy_the_file(base: str, tmp_path: Path) -> None:
    local = tmp_path / "clip.mp4"
    local.write_bytes(b"frames")
    uri = storage.join(base, "out", "clip.mp4")
    storage.publish(local, uri)
    storage.fetch(uri, tmp_path / "back.mp4")
    assert (tmp_path / "back.mp4").read_bytes() == local.read_bytes() == b"frames"


def test_content_digest_follows_the_content(base: str) -> None:
    one, two = storage.join(base, "one"), storage.join(base, "two")
    storage.write_bytes(one, b"same")
    storage.write_bytes(two, b"same")
    first = storage.content_digest(one)
    assert first == storage.content_digest(two)
    storage.write_bytes(one, b"changed")
    assert storage.content_digest(one) != first
    assert "/" not in first


def test_content_digest_of_a_local_file_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert storage.content_digest(str(path)) == hashlib.sha256(b"abc").hexdigest()


def test_listing_tells_sizes(base: str) -> None:
    for name, content in (("b/1", b"1"), ("a", b"four"), ("b/0", b"")):
        storage.write_bytes(storage.join(base, "listed", name), content)
    folder = storage.join(base, "listed")
    assert storage.list_sizes(folder) == {f"{folder}/a": 4, f"{folder}/b/0": 0, f"{folder}/b/1": 1}
    assert storage.list_sizes(storage.join(folder, "b/")) == {f"{folder}/b/0": 0, f"{folder}/b/1": 1}
    assert storage.list_sizes(storage.join(folder, "no")) == {}
    assert {uri: storage.size(uri) for uri in storage.list_files(folder)} == storage.list_sizes(folder)


def test_delete_many_leaves_the_others_and_minds_no_missing_ones(base: str, tmp_path: Path) -> None:
    uris = [storage.join(base, "many", str(number)) for number in range(3)]
    local = str(tmp_path / "local")
    for uri in (*uris, local):
        storage.write_bytes(uri, b"x")
    storage.delete_many([uris[0], storage.join(base, "many", "gone"), local, uris[2]])
    assert storage.list_files(storage.join(base, "many")) == [uris[1]]
    assert not storage.exists(local)
    storage.delete_many([])


def test_identity_changes_with_the_file_without_reading_it(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = storage.join(base, "identified")
    storage.write_bytes(uri, b"one")
    first = storage.identity(uri)
    assert storage.identity(uri) == first
    storage.write_bytes(uri, b"two")
    assert storage.identity(uri) != first
    with pytest.raises(NotFoundError, match="none: can't look up: "):
        storage.identity(storage.join(base, "none"))
    path = tmp_path / "unreadable"
    path.write_bytes(b"abc")
    monkeypatch.setattr(Path, "open", lambda *arguments: pytest.fail("it was read"))
    status = path.stat()
    assert storage.identity(f"file://{path}") == f"{path}:3:{status.st_mtime_ns}"


def test_a_fetch_that_fails_leaves_the_old_file(base: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(NotFoundError, match="none: can't read: "):
        storage.fetch(storage.join(base, "none"), target)
    assert target.read_bytes() == b"old"
    assert storage.UNFINISHED not in {path.suffix for path in tmp_path.iterdir()}


def test_missing_file_is_named(base: str) -> None:
    uri = storage.join(base, "missing.wav")
    for read in (storage.size, storage.read_bytes, storage.content_digest):
        with pytest.raises(StorageError, match=r"missing\.wav: can't ") as caught:
            read(uri)
        assert isinstance(caught.value, NotFoundError)


def test_failed_publish_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    uri = str(tmp_path / "final" / "out.mp4")
    storage.write_bytes(uri, b"old")
    with pytest.raises(StorageError, match=r"out\.mp4: can't publish: No such file"):
        storage.publish(tmp_path / "never written", uri)
    assert storage.read_bytes(uri) == b"old"
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["out.mp4"]


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / f".chunk{storage.UNFINISHED}").write_bytes(b"half")
    assert storage.list_files(str(tmp_path)) == []


def test_check_writable(base: str) -> None:
    storage.check_writable(storage.join(base, "work"))
    assert storage.list_files(base) == []


def test_check_writable_says_why_not(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        storage.check_writable(str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/.*bucket does not exist"):
        storage.check_writable("s3://no-such-bucket/work")


@pytest.mark.parametrize(
    ("uri", "base", "expected"),
    [
        ("clip.mp4", "/videos", "/videos/clip.mp4"),
        ("../b/./clip.mp4", "/videos/a/", "/videos/b/clip.mp4"),
        ("clip.mp4", "s3://studio/videos", "s3://studio/videos/clip.mp4"),
        ("../clip.mp4", "s3://studio/videos", "s3://studio/clip.mp4"),
        ("clip.mp4", "file:///videos", "file:///videos/clip.mp4"),
        ("/x/clip.mp4", "s3://studio/videos", "/x/clip.mp4"),
        ("s3://other/clip.mp4", "/videos", "s3://other/clip.mp4"),
    ],
)
def test_resolve(uri: str, base: str, expected: str) -> None:
    assert storage.resolve(uri, base) == expected


def test_join() -> None:
    assert storage.join("s3://studio/", "a", "b.mp4") == "s3://studio/a/b.mp4"
    assert storage.join("/", "a") == "/a"


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(StorageError, match=r"unknown scheme 'http'; allowed: a local path, file:// or s3://"):
        storage.read_bytes("http://host/clip.mp4")


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, int, bool]] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.suffix, path.stat().st_size, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", note)
    storage.write_bytes(str(tmp_path / "a"), b"four")
    assert synced == [(storage.UNFINISHED, 4, False)]
