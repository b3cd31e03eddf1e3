"""The results file: a row a job, written whole each time, while the run goes on."""

import io
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamhead import storage
from dreamhead.records import RESULTS_SCHEMA

WRITE_EVERY_S = 5.0
"""The whole file is written again, so not for each of thousands of jobs that end together."""


class ResultsTable:
    """Gathers the rows of jobs as they end, and publishes them."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._rows: dict[int, dict[str, Any]] = {}
        self._written_s = -WRITE_EVERY_S

    def add(self, row: dict[str, Any]) -> None:
        """Take a job's row; publishes all of them at most every few seconds."""
        self._rows[row["row"]] = row
        if time.monotonic() - self._written_s >= WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Publish the rows there are, in the manifest's order; raises StorageError."""
        rows = [_arrow_row(self._rows[index]) for index in sorted(self._rows)]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA), buffer)
        storage.write_bytes(self.uri, buffer.getvalue())
        self._written_s = time.monotonic()

    def count(self, status: str) -> int:
        """Jobs that ended with this status."""
        return sum(row["status"] == status for row in self._rows.values())


def _arrow_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()}
