"""Make the samples, dub them with the batch job and show how each job ended."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from dreamhead.cluster import batch
from dreamhead.demo.samples import BAD_JOB, make_samples


def run_demo(output: Path, console: Console) -> int:
    """Write samples, dubbed videos and results below `output`; returns 0, or 1 when more than the bad row failed."""
    manifest = make_samples(output / "samples")
    console.print(
        f"Samples are in {manifest.parent}; its manifest has {len(pq.read_table(manifest))} rows, one of them bad."
    )
    results = output / "results.parquet"
    status = batch.main([str(manifest), "--work", str(output / "work"), "--results", str(results)])
    if status > 1:
        return status
    rows = pq.read_table(results).to_pylist()
    console.print(results_table(rows))
    console.print(f"Watch {output}/*.mp4, open {output}/report.html; every job's row is in {results}.")
    return int({row["job_id"] for row in rows if row["status"] != "succeeded"} != {BAD_JOB})


def results_table(rows: list[dict[str, Any]]) -> Table:
    """A table of results rows: how each job ended, where its output is or why there is none."""
    table = Table(title="Results")
    for heading in ("job", "status", "frames", "dubbed", "seconds", "where, or why not"):
        table.add_column(heading, justify="right" if heading in {"frames", "dubbed", "seconds"} else "left")
    for row in sorted(rows, key=lambda row: row["row"]):
        good = row["status"] == "succeeded"
        table.add_row(
            row["job_id"],
            f"[{'green' if good else 'red'}]{row['status']}",
            str(row["frames"] or ""),
            str(row["dubbed_frames"] or ""),
            f"{sum(dict(row['seconds']).values()):.1f}" if good else "",
            row["output_uri"] if good else f"{row['error_type']}: {row['error']}",
        )
    return table
