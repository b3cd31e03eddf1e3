"""The results as they are written while a run goes on."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dreamhead import storage
from dreamhead.cluster import table
from dreamhead.cluster.table import ResultsTable
from dreamhead.errors import DiskFullError, StorageError
from dreamhead.records import Job
from dreamhead.stages import results
from dreamhead.stages.results import Row


def row(index: int) -> Row:
    job = Job(job_id=f"job{index}", row=index, video_uri="v", audio_uri="a", output_uri="o")
    return results.failed(job, "MediaError: damaged")


@pytest.mark.parametrize("error", [StorageError("connection refused"), DiskFullError("no space left")])
def test_results_that_cannot_be_written_for_a_while_end_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: StorageError
) -> None:
    uri, is_down, reports = str(tmp_path / "results.parquet"), [True], [0]
    write = storage.write_bytes

    def fail_or_write(uri: str, data: bytes) -> None:
        if is_down[0]:
            raise error
        write(uri, data)

    def report(rows: list[Row]) -> None:
        reports[0] += 1
        raise error

    monkeypatch.setattr(storage, "write_bytes", fail_or_write)
    monkeypatch.setattr(table, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(table, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(table, "MOST_SHARE", 1e9)
    written = ResultsTable(uri, report)
    written.add(row(1))
    with pytest.raises(type(error)):
        written.write()
    is_down[0] = False
    written.add(row(0))
    assert [one["job_id"] for one in pq.read_table(uri).to_pylist()] == ["job0", "job1"]
    assert reports == [2]
