"""Media in object storage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from dreamhead import storage
from dreamhead.errors import MediaError, StorageError
from dreamhead.media.audio import read_speech
from dreamhead.media.video import probe, read_frames


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Uri of an empty bucket on a real S3 endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    fsspec.filesystem("s3", use_listings_cache=False).mkdir("s3://media")
    yield "s3://media"
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def test_media_in_a_bucket(make_video: Any, make_tone: Any, bucket: str, tmp_path: Path) -> None:
    local = make_video(frames=30)
    storage.publish(Path(local), f"{bucket}/clip.mp4")
    storage.publish(Path(make_tone()), f"{bucket}/tone.wav")
    info = probe(f"{bucket}/clip.mp4")
    assert info.pts.tolist() == probe(local).pts.tolist()
    assert [make_video.number(frame) for frame in read_frames(info, [20, 3])] == [20, 3]
    assert (read_speech(f"{bucket}/tone.wav", 0.2, 0.4) == read_speech(make_tone(), 0.2, 0.4)).all()
    with pytest.raises(MediaError, match=r"s3://media/none\.mp4: no such file"):
        probe(f"{bucket}/none.mp4")


def test_unreachable_storage_is_no_fault_of_the_media(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match=r"s3://media/clip\.mp4: can't read"):
        probe("s3://media/clip.mp4")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
