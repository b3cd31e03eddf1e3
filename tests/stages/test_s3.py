"""A dub whose files lie in object storage: the same frames as of local files, also where one request in ten fails."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.config import DubSettings
from dreamhead.records import Job
from dreamhead.stages.dub import dub
from tests.conftest import ToneMaker, VideoMaker
from tests.fault_proxy import SLOW_DOWN, Fault, FaultProxy
from tests.s3 import s3_bucket_behind_proxy
from tests.tiny import CROP_SIZE, tiny_checkpoint

SETTINGS = DubSettings.model_validate(
    {
        "device": "cpu",
        "cpu_threads": 1,
        "analysis": {"crop_size": CROP_SIZE, "chunk_s": 0.25, "span_s": 0.5, "reference_frames": 3},
        "landmarks": {"num_inference_steps": 1},
        "render": {"num_inference_steps": 1},
        "output": {"preset": "ultrafast", "encoder_threads": 1},
    }
)

PARTS = ("video", "audio", "checkpoint", "work", "output")


@dataclass(frozen=True)
class Inputs:
    """Local files, and the frames (T, H, W, 3) that a dub of them shows."""

    video: Path
    audio: Path
    checkpoint: Path
    frames: NDArray[np.uint8]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FaultProxy]]:
    with s3_bucket_behind_proxy("dub") as found:
        yield found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, face_frames: list[NDArray[np.uint8]]) -> Inputs:
    folder = tmp_path_factory.mktemp("dub")
    video = Path(VideoMaker(folder)("clip.mp4", face_frames))
    audio = Path(ToneMaker(folder)("speech.wav", 0.96))
    checkpoint = tiny_checkpoint(folder / "checkpoint")
    row = dub(job(str(video), str(audio), str(folder / "out.mp4")), SETTINGS, str(checkpoint), str(folder / "work"))
    assert (row["status"], row["dubbed_frames"]) == ("succeeded", 24)
    return Inputs(video, audio, checkpoint, decode(folder / "out.mp4"))


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A checkpoint's copy is kept in the temporary folder, and each test shall fetch its own.
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def job(video_uri: str, audio_uri: str, output_uri: str) -> Job:
    return Job(job_id="job", row=0, video_uri=video_uri, audio_uri=audio_uri, output_uri=output_uri)


def decode(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def place(part: str, base: str, inputs: Inputs) -> str:
    """Uri of one of the parts below a directory uri, with its content where it is an input."""
    local = {"video": inputs.video, "audio": inputs.audio, "checkpoint": inputs.checkpoint}.get(part)
    uri = storage.join(base, "out.mp4" if part == "output" else part if local is None else local.name)
    if local is not None:
        for path in [local] if local.is_file() else [path for path in local.rglob("*") if path.is_file()]:
            storage.publish(path, uri if path == local else f"{uri}/{path.relative_to(local).as_posix()}")
    return uri


def dub_at(uris: dict[str, str]) -> dict[str, Any]:
    request = job(uris["video"], uris["audio"], uris["output"])
    return dub(request, SETTINGS, uris["checkpoint"], uris["work"])


def frames_at(uri: str, folder: Path) -> NDArray[np.uint8]:
    storage.fetch(uri, folder / "fetched.mp4")
    return decode(folder / "fetched.mp4")


@pytest.mark.parametrize("remote", [PARTS, ("video", "work"), ("audio", "checkpoint", "output")])
def test_frames_are_those_of_local_files(
    remote: tuple[str, ...], endpoint: tuple[str, FaultProxy], inputs: Inputs, tmp_path: Path
) -> None:
    base, proxy = endpoint
    proxy.clear()
    bases = {part: f"{base}/{tmp_path.name}" if part in remote else f"file://{tmp_path}/local" for part in PARTS}
    uris = {part: place(part, bases[part], inputs) for part in PARTS}
    row = dub_at(uris)
    assert (row["status"], row["chunks_rendered"], row["error"]) == ("succeeded", 4, "")
    np.testing.assert_array_equal(frames_at(uris["output"], tmp_path), inputs.frames)
    assert not any(request.target.startswith("/dub/file") for request in proxy.requests)
    # What is done isn't done again, wherever it lies.
    proxy.clear()
    assert dub_at(uris)["chunks_rendered"] == 0
    assert [request.target for request in proxy.seen("PUT") if ".write-check-" not in request.target] == []


def test_one_failing_request_in_ten_changes_nothing(
    endpoint: tuple[str, FaultProxy], inputs: Inputs, tmp_path: Path
) -> None:
    base, proxy = endpoint
    proxy.clear()
    uris = {part: place(part, f"{base}/harmed", inputs) for part in PARTS}
    faults = (
        {"kind": "answer"},
        {"kind": "answer", **SLOW_DOWN},
        {"kind": "reset"},
        {"kind": "lost"},
        {"kind": "truncate"},
    )
    proxy.clear(*(Fault(times=None, share=0.02, **fault) for fault in faults))
    row = dub_at(uris)
    harmed, seen = [request.fault for request in proxy.requests if request.fault], len(proxy.requests)
    proxy.clear()
    assert (row["status"], row["chunks_rendered"], row["attempts"]) == ("succeeded", 4, 4)  # One try for each chunk.
    np.testing.assert_array_equal(frames_at(uris["output"], tmp_path), inputs.frames)
    assert len(set(harmed)) == 4
    assert 0.05 < len(harmed) / seen < 0.2
    files = storage.list_sizes(f"{base}/harmed")
    assert not [uri for uri in files if ".write-check-" in uri]


def test_an_output_that_cant_be_published_is_absent(
    endpoint: tuple[str, FaultProxy], inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, proxy = endpoint
    proxy.clear()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    uris = {part: place(part, f"{base}/refused", inputs) for part in PARTS}
    refused = Fault("answer", "PUT", r".*/out\.mp4", times=None, status=403, code="AccessDenied")
    proxy.clear(refused)
    row = dub_at(uris)
    assert (row["status"], row["error_type"]) == ("failed", "StorageError")
    assert row["error"].startswith(f"{uris['output']}: can't write: access denied: these credentials may not")
    proxy.clear()
    assert not storage.exists(uris["output"])
    row = dub_at(uris)
    assert (row["status"], row["chunks_rendered"]) == ("succeeded", 0)
    np.testing.assert_array_equal(frames_at(uris["output"], tmp_path), inputs.frames)
