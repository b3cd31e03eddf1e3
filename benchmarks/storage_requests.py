"""Count the requests to object storage that a dub makes, by chunk and by job.

    python -m benchmarks.storage_requests [--chunks 3]

Everything lies in a bucket of moto's S3 server on this machine: video, speech, work directory and output. One process
dubs a short and a long clip by the same stages as the farm's actors (one stage's files aren't in another's memory
there either), and calls of the S3 client are counted. What the long one needs beyond the short one, by chunk, is the
cost of a chunk; the rest is the cost of a job. The stages are loaded beforehand. A chunk of the usual length holds
more bytes than these, and more ranged reads: one for each 4 MiB. Fails when a chunk needs more writes or reads than
`--most-writes` and `--most-reads`.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from aiobotocore.client import AioBaseClient
from moto.server import ThreadedMotoServer

from benchmarks.inputs import write_clip, write_settings, write_speech
from benchmarks.report import Report
from dreamhead import storage
from dreamhead.config import DubSettings, load_yaml
from dreamhead.evaluation.dubbing import LoadedStages
from dreamhead.records import Job

CHUNK_S = 1.0
READS = ("Get", "Head", "List")
"""How the names of S3's calls begin that count as reads for its limit; all others count as writes."""


def main() -> int:
    """Print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=3, help="of the short clip; the long one has twice as many")
    parser.add_argument("--most-writes", type=float, default=6.0)
    parser.add_argument("--most-reads", type=float, default=30.0)
    arguments = parser.parse_args()
    report = Report("Requests to object storage")
    chunks = (arguments.chunks, 2 * arguments.chunks)
    with tempfile.TemporaryDirectory(prefix="dreamhead-benchmark-") as name, bucket() as uri:
        short, long = (count_dub(Path(name), uri, count) for count in chunks)
    by_chunk = {call: (long[call] - short[call]) / arguments.chunks for call in sorted({*short, *long})}
    by_job = {call: short[call] - by_chunk[call] * arguments.chunks for call in by_chunk}
    report.table(["call", "a chunk", "a job"], [[call, by_chunk[call], by_job[call]] for call in by_chunk])
    sums = {kind: (_sum(by_chunk, is_read), _sum(by_job, is_read)) for kind, is_read in KINDS.items()}
    report.table(["kind", "a chunk", "a job"], [[kind, *pair] for kind, pair in sums.items()])
    report.at_most("writes a chunk", sums["writes"][0], arguments.most_writes)
    report.at_most("reads a chunk", sums["reads"][0], arguments.most_reads)
    return report.exit_status


KINDS = {"writes": False, "reads": True}


def count_dub(folder: Path, uri: str, chunks: int) -> Counter[str]:
    """The calls of one dub of as many chunks, its inputs and outputs in the bucket."""
    place = storage.join(uri, str(chunks))
    storage.publish(write_clip(folder / "video.mp4", chunks * CHUNK_S, 256, begin_s=chunks), f"{place}/video.mp4")
    storage.publish(write_speech(folder / "speech.wav", chunks * CHUNK_S), f"{place}/speech.wav")
    config = write_settings(folder / "config.yaml", analysis={"chunk_s": CHUNK_S}, render={"renderer": "warp"})
    stages = LoadedStages(load_yaml(config, DubSettings), "", f"{place}/work")
    names = {"video_uri": "video.mp4", "audio_uri": "speech.wav", "output_uri": "out.mp4"}
    job = Job(job_id="job", row=0, **{column: f"{place}/{name}" for column, name in names.items()})
    with counted() as calls:
        stages.dub(job)
    stages.close()
    return calls


@contextmanager
def bucket() -> Iterator[str]:
    """Uri of an empty bucket of a server in this process."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
    fsspec.filesystem("s3", use_listings_cache=False).mkdir("s3://benchmark")
    try:
        yield "s3://benchmark"
    finally:
        server.stop()


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Calls of every S3 client meanwhile, by S3's own names."""
    calls: Counter[str] = Counter()
    original = AioBaseClient._make_api_call

    async def counting(client: AioBaseClient, operation_name: str, *arguments: Any) -> Any:
        calls[operation_name] += 1
        return await original(client, operation_name, *arguments)

    AioBaseClient._make_api_call = counting
    try:
        yield calls
    finally:
        AioBaseClient._make_api_call = original


def _sum(calls: dict[str, float], is_read: bool) -> float:
    return sum(count for call, count in calls.items() if call.startswith(READS) == is_read)


if __name__ == "__main__":
    sys.exit(main())
