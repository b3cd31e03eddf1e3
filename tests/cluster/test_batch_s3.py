"""The batch job with everything in object storage that sometimes fails; the driver is killed on the way."""

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamhead import storage
from dreamhead.cluster.command import SUCCEEDED
from dreamhead.cluster.manifest import read_manifest
from dreamhead.config import DubSettings, load_yaml
from dreamhead.stages.dub import dub
from tests.cluster.farm import Farm
from tests.fault_proxy import SLOW_DOWN, Fault, FaultProxy
from tests.s3 import s3_bucket_behind_proxy

PATIENCE_S = 240


@pytest.fixture
def bucket() -> Iterator[tuple[str, FaultProxy]]:
    with s3_bucket_behind_proxy("farm") as found:
        yield found


def put(bucket: str, farm: Farm) -> list[str]:
    """Inputs and weights to the bucket, the manifest too; the batch command's arguments."""
    for path in [*farm.folder.glob("*.wav"), farm.folder / "clip.mp4"]:
        storage.publish(path, f"{bucket}/in/{path.name}")
    for path in Path(farm.checkpoint).rglob("*"):
        if path.is_file():
            storage.publish(path, f"{bucket}/weights/{path.relative_to(farm.checkpoint).as_posix()}")
    rows = [
        {
            "job_id": row["job_id"],
            "video_uri": "in/clip.mp4",
            "audio_uri": f"in/{Path(row['audio_uri']).name}",
            "output_uri": row["output_uri"],
        }
        for row in farm.rows
    ]
    manifest = farm.folder / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(rows), manifest)
    storage.publish(manifest, f"{bucket}/manifest.parquet")
    return [
        *(f"{bucket}/manifest.parquet", "--config", str(farm.config), "--checkpoint", f"{bucket}/weights"),
        *("--work", f"{bucket}/work", "--results", f"{bucket}/results", "--clean"),
    ]


def sidecars(bucket: str) -> list[str]:
    return [uri for uri in storage.list_files(f"{bucket}/work/jobs") if "/chunk-" in uri and uri.endswith(".json")]


def test_a_manifest_in_a_bucket_comes_out_as_local_files_do(long_farm: Farm, bucket: tuple[str, FaultProxy]) -> None:
    farm, (uri, proxy) = long_farm, bucket
    settings = load_yaml(farm.config, DubSettings)
    for job in read_manifest(str(farm.manifest)).jobs:
        assert dub(job, settings, farm.checkpoint, str(farm.folder / "work-alone"))["status"] == "succeeded"
    wanted = [(farm.folder / "out" / f"{index}.mp4").read_bytes() for index in range(2)]

    arguments = put(uri, farm)
    proxy.clear(Fault("answer", times=None, share=0.01, **SLOW_DOWN), Fault("reset", times=None, share=0.01))
    process = farm.start_with(arguments)
    deadline = time.monotonic() + PATIENCE_S
    while len(sidecars(uri)) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.poll() is None, process.communicate()[0]
    process.kill()
    process.communicate()

    process = farm.start_with(arguments)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == SUCCEEDED, printed
    assert [storage.read_bytes(f"{uri}/out/{index}.mp4") for index in range(2)] == wanted
    with pq.ParquetFile(storage.open_read(f"{uri}/results/results.parquet")) as file:
        rows = file.read().to_pylist()
    assert [(row["status"], row["chunks"]) for row in rows] == [("succeeded", 32)] * 2
    assert sum(row["chunks_rendered"] for row in rows) <= 64 - 5
    assert b"</html>" in storage.read_bytes(f"{uri}/results/report.html")
    # The job's own --clean left nothing but what tells of the outcome.
    left = {name.rpartition("/")[2] for name in storage.list_files(f"{uri}/work/jobs")}
    assert left == {"result.json", "review.json", "sheet.jpg"}
    assert {request.fault for request in proxy.requests} == {None, "answer", "reset"}
