"""The results file: a row a job, written whole each time, while the run goes on."""

import io
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamhead import storage
from dreamhead.records import RESULTS_SCHEMA

WRITE_EVERY_S = 5.0
"""The whole file is written again, so not for each of thousands of jobs that end together. What a crash takes from it
is in the work directory, where a job's row is written before anybody is told of it."""
MOST_SHARE = 0.05
"""Of the time, at most, that writing takes: a long manifest's file is written more rarely."""


class ResultsTable:
    """Gathers the rows of jobs as they end, and publishes them."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._rows: dict[int, dict[str, Any]] = {}
        self._due_s = 0.0

    def add(self, row: dict[str, Any]) -> None:
        """Take a job's row; publishes all of them at most every few seconds."""
        self._rows[row["row"]] = row
        if time.monotonic() >= self._due_s:
            self.write()

    def write(self) -> None:
        """Publish the rows there are, in the manifest's order; raises StorageError."""
        began_s = time.monotonic()
        rows = [_arrow_row(row) for row in self.rows]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA), buffer)
        storage.write_bytes(self.uri, buffer.getvalue())
        now_s = time.monotonic()
        self._due_s = now_s + max(WRITE_EVERY_S, (now_s - began_s) / MOST_SHARE)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows there are, in the manifest's order."""
        return [self._rows[index] for index in sorted(self._rows)]

    def count(self, status: str) -> int:
        """Jobs that ended with this status."""
        return sum(row["status"] == status for row in self._rows.values())


def _arrow_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()}
