"""A full disk: it is named, what was there stays, and nothing half written is left."""

import errno
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamhead import storage
from dreamhead.config import OutputSettings
from dreamhead.disk import disk_full
from dreamhead.errors import DiskFullError, StorageError
from dreamhead.media.encode import encode_chunk
from dreamhead.media.video import probe, read_frames
from tests.s3 import s3_bucket

MEBIBYTE = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    """More than the small disk holds."""
    path = tmp_path / "large"
    path.write_bytes(bytes(2 * MEBIBYTE))
    return path


def writers(uri: str, large: Path) -> dict[str, Callable[[], None]]:
    return {
        "write": lambda: storage.write_bytes(uri, large.read_bytes()),
        "publish": lambda: storage.publish(large, uri),
        "read": lambda: storage.fetch(str(large), Path(uri)),
    }


@pytest.mark.parametrize("action", ["write", "publish", "read"])
def test_a_full_disk_is_named_and_keeps_what_it_had(action: str, small_disk: Path, large_file: Path) -> None:
    target = small_disk / "out" / "clip.mp4"
    storage.write_bytes(str(target), b"earlier")
    what = rf"(clip\.mp4|large): can't {action}: no space left on the disk of {small_disk}/out "
    with pytest.raises(DiskFullError, match=what + r"\(\d\.\d of 1\.0 MiB are free\); free some"):
        writers(str(target), large_file)[action]()
    assert target.read_bytes() == b"earlier"
    assert [path.name for path in target.parent.iterdir()] == ["clip.mp4"]
    storage.write_bytes(str(target), bytes(MEBIBYTE // 2))


def test_fetching_from_s3_onto_a_full_disk(small_disk: Path, large_file: Path) -> None:
    with s3_bucket("full-disk") as base:
        storage.publish(large_file, f"{base}/large")
        with pytest.raises(DiskFullError, match=rf"s3://full-disk/large: can't read: no space left on .*{small_disk}"):
            storage.fetch(f"{base}/large", small_disk / "large")
    assert list(small_disk.iterdir()) == []


def test_temporary_files_may_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    message = str(disk_full("a: can't write", tmp_path / "not made yet" / "a", errno.EDQUOT))
    assert message.startswith(f"a: can't write: the disk quota is used up of {tmp_path} (")
    assert message.endswith("MiB are free); free some, or let TMPDIR name a folder on a larger disk")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
    assert str(disk_full("a", tmp_path / "a", errno.ENOSPC)).endswith("are free); free some")


def test_another_failure_is_no_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(str(tmp_path / "file" / "below"), b"")
    assert type(caught.value) is StorageError


@pytest.mark.parametrize("free", [0, 8192, MEBIBYTE // 2])
def test_encoding_onto_a_full_disk(make_video: Any, small_disk: Path, free: int) -> None:
    info = probe(make_video(frames=150))
    noise = np.random.default_rng(0).integers(0, 255, (len(info.pts), 64, 96, 3), dtype=np.uint8)
    (small_disk / "other").write_bytes(bytes(MEBIBYTE - free))
    with tempfile.TemporaryDirectory(dir=small_disk) as folder:
        path = Path(folder) / "chunk.mp4"
        settings = OutputSettings(quality=0, encoder_threads=1, preset="ultrafast")
        with pytest.raises(DiskFullError, match=r"chunk\.mp4: can't be encoded: no space left on the disk"):
            encode_chunk(path, noise, info, info.pts, info.end_pts, settings)
    assert [path.name for path in small_disk.iterdir()] == ["other"]


def test_encoding_with_room_succeeds(make_video: Any, small_disk: Path) -> None:
    info = probe(make_video(frames=5))
    path = small_disk / "chunk.mp4"
    settings = OutputSettings(encoder_threads=1, preset="ultrafast")
    assert encode_chunk(path, read_frames(info, range(5)), info, info.pts, info.end_pts, settings) == 5
    assert probe(str(path)).frame_count == 5
