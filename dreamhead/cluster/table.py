"""The results file and the report: a row a job, written whole each time, while the run goes on."""

import io
import logging
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamhead import storage
from dreamhead.errors import StorageError
from dreamhead.records import RESULTS_SCHEMA

logger = logging.getLogger(__name__)

Row = dict[str, Any]

WRITE_EVERY_S, REPORT_EVERY_S = 5.0, 60.0
"""Each is written anew as a whole, so not for each of thousands of jobs that end together. What a crash takes from them
is in the work directory, where a job's row is written before anybody is told of it."""
MOST_SHARE = 0.05
"""Of the time, at most, that writing each takes: those of a long manifest are written more rarely."""


class ResultsTable:
    """Gathers the rows of jobs as they end, and publishes them.

    Args:
        uri: of results.parquet.
        report: writes the page for people from the rows there are.
    """

    def __init__(self, uri: str, report: Callable[[list[Row]], None] | None = None) -> None:
        self.uri = uri
        self._rows: dict[int, Row] = {}
        self._paced = [_Paced(self.write, WRITE_EVERY_S, 0.0)]
        if report is not None:
            self._paced.append(_Paced(lambda: report(self.rows), REPORT_EVERY_S, REPORT_EVERY_S))

    def add(self, row: Row) -> None:
        """Take a job's row; publishes all of them every now and then, and later where that fails."""
        self._rows[row["row"]] = row
        for paced in self._paced:
            paced()

    def write(self) -> None:
        """Publish the rows there are, in the manifest's order; raises StorageError."""
        rows = [_arrow_row(row) for row in self.rows]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA), buffer)
        storage.write_bytes(self.uri, buffer.getvalue())

    @property
    def rows(self) -> list[Row]:
        """The rows there are, in the manifest's order."""
        return [self._rows[index] for index in sorted(self._rows)]

    def count(self, status: str) -> int:
        """Jobs that ended with this status."""
        return sum(row["status"] == status for row in self._rows.values())


class _Paced:
    """Does something at most every so often, and not for more than a small share of the time."""

    def __init__(self, work: Callable[[], None], every_s: float, first_s: float) -> None:
        self._work = work
        self._every_s = every_s
        self._due_s = time.monotonic() + first_s

    def __call__(self) -> None:
        began_s = time.monotonic()
        if began_s >= self._due_s:
            try:
                self._work()
            except StorageError as error:
                # The jobs go on. What was left out comes with the next time, and whoever writes last hears of it.
                logger.warning("%s", error)
            ended_s = time.monotonic()
            self._due_s = ended_s + max(self._every_s, (ended_s - began_s) / MOST_SHARE)


def _arrow_row(row: Row) -> Row:
    return {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()}
