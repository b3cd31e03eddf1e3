"""Media in object storage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dreamhead import storage
from dreamhead.errors import MediaError, StorageError
from dreamhead.media.audio import read_speech
from dreamhead.media.video import probe, read_frames
from tests.fault_proxy import Fault, FaultProxy
from tests.s3 import forget_clients, s3_bucket_behind_proxy

SECONDS, RATE = 120, 25


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FaultProxy]]:
    with s3_bucket_behind_proxy("media") as found:
        yield found


@pytest.fixture
def proxy(endpoint: tuple[str, FaultProxy]) -> Iterator[FaultProxy]:
    endpoint[1].clear()
    yield endpoint[1]
    endpoint[1].clear()


@pytest.fixture
def bucket(endpoint: tuple[str, FaultProxy], proxy: FaultProxy) -> str:
    """Uri of a bucket on a real S3 endpoint."""
    return endpoint[0]


@pytest.fixture(scope="module", params=["end.mp4", "start.mp4", "film.mkv"])
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of noise in groups of two seconds, with sound; an MP4's index lies at its end or at its start."""
    path = tmp_path_factory.mktemp("film") / request.param
    options = {"movflags": "+faststart"} if path.stem == "start" else {}
    random = np.random.default_rng(0)
    with av.open(str(path), "w", container_options=options) as output:
        video = output.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "ultrafast", "g": "50"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = output.add_stream("aac", rate=48_000, layout="stereo")
        for index in range(SECONDS * RATE):
            picture = random.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            samples = random.normal(0, 0.1, (2, 48_000 // RATE)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 48_000, index * len(samples[0])
            output.mux(sound.encode(frame))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))
    return path


def test_a_chunk_fetches_a_small_share_of_a_long_video(film: Path, bucket: str, proxy: FaultProxy) -> None:
    uri = f"{bucket}/{film.name}"
    storage.publish(film, uri)
    info = probe(uri)
    proxy.clear()
    middle = range(SECONDS // 2 * RATE + 10, (SECONDS // 2 + 1) * RATE + 10)
    frames = list(read_frames(info, middle))
    np.testing.assert_array_equal(frames, list(read_frames(probe(str(film)), middle)))
    assert len(proxy.requests) <= 4
    assert proxy.bytes_sent() < 0.12 * film.stat().st_size


def test_a_whole_video_takes_few_requests_and_each_byte_once(film: Path, bucket: str, proxy: FaultProxy) -> None:
    uri = f"{bucket}/{film.name}"
    storage.publish(film, uri)
    info = probe(uri)
    proxy.clear()
    assert sum(1 for _ in read_frames(info, range(0, info.frame_count, 20))) == SECONDS * RATE / 20
    assert len(proxy.requests) <= 9
    assert proxy.bytes_sent() < 1.1 * film.stat().st_size


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
    with pytest.raises(StorageError, match=r"the bucket does not exist"):
        probe("s3://no-such-bucket/none.mp4")


def test_storage_that_fails_in_the_middle_is_no_fault_of_the_media(
    make_video: Any, bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, random = (96, 64), np.random.default_rng(0)
    noise = [random.integers(0, 255, (*size[::-1], 3), dtype=np.uint8) for _ in range(200)]
    storage.publish(Path(make_video(frames=noise)), f"{bucket}/noise.mp4")
    info = probe(f"{bucket}/noise.mp4")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.clear(Fault("truncate", skip=2, times=None))
    frames = read_frames(info, range(200))
    with pytest.raises(StorageError, match=r"s3://media/noise\.mp4: can't read: "):
        list(frames)


def test_unreachable_storage_is_no_fault_of_the_media(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_clients()
    with pytest.raises(StorageError, match=r"s3://media/clip\.mp4: can't read: Could not connect to the endpoint URL"):
        probe("s3://media/clip.mp4")
    forget_clients()
