"""The batch command: a manifest in, dubbed videos and a results file out."""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import yaml
from rich.console import Console

from dreamhead import storage
from dreamhead.cluster.command import SOME_FAILED, SUCCEEDED, run_command
from dreamhead.cluster.driver import BatchRun
from dreamhead.cluster.only_run import OnlyRun
from dreamhead.cluster.places import Places, find_places
from dreamhead.cluster.progress import BatchProgress
from dreamhead.cluster.session import ray_session
from dreamhead.cluster.table import ResultsTable, Row
from dreamhead.stages.review.report import State, write_report


def main(argv: Sequence[str] | None = None) -> int:
    """Dub a manifest's jobs; 0 when all succeeded, 1 when some failed, 2 when the run was refused or broke off."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda console: _run(arguments, console))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="batch_render.py", description="Dub every row of a manifest on Ray.")
    parser.add_argument("manifest", help=".parquet, .csv or .jsonl; a path or s3://")
    parser.add_argument("--config", type=Path, help="YAML with settings; those not given keep their defaults")
    parser.add_argument("--checkpoint", default="", help="directory with the weights; the bundled ones unless given")
    parser.add_argument("--work", default="", help="directory for what can be reused; beside the outputs unless given")
    parser.add_argument("--results", default="", help="directory for results.parquet; beside the outputs unless given")
    parser.add_argument("--retry-failed", action="store_true", help="try again the jobs that an earlier run gave up")
    parser.add_argument("--clean", action="store_true", help="delete a job's chunks as soon as its output is published")
    parser.add_argument("--dry-run", action="store_true", help="print the settings, check the manifest, do no work")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    places = find_places(
        arguments.manifest,
        config=arguments.config,
        checkpoint=arguments.checkpoint,
        work=arguments.work,
        results=arguments.results,
    )
    if arguments.dry_run:
        return _dry_run(places)
    storage.check_writable(places.work_uri)
    storage.check_writable(places.results_uri.rpartition("/")[0])
    report = _Report(places)
    table = ResultsTable(places.results_uri, report.write)
    state: State = "interrupted"
    progress = BatchProgress(console, report.jobs)
    with progress, OnlyRun(places.running_uri, places.results_uri, progress.say):
        try:
            _dub(places, arguments, table, progress)
            state = "finished"
        finally:
            with ExitStack() as writing:
                # Either is written though the other can't be.
                writing.callback(report.write, table.rows, state)
                writing.callback(table.write)
            succeeded, failed = table.count("succeeded"), table.count("failed")
            progress.say(f"{succeeded} jobs succeeded, {failed} failed; results in {places.results_uri}")
            looks = sum(bool(row["needs_look"]) for row in table.rows)
            progress.say(f"{looks} of them need a look; report in {places.report_uri}")
    return SOME_FAILED if failed else SUCCEEDED


class _Report:
    """Writes report.html, which says how far the run is."""

    def __init__(self, places: Places) -> None:
        self.jobs = len(places.manifest.jobs) + len(places.manifest.failed)
        self._places = places
        self._began_s = time.monotonic()

    def write(self, rows: list[Row], state: State = "running") -> None:
        """Publish the page."""
        write_report(
            rows,
            self._places.report_uri,
            self._places.settings.review,
            state=state,
            jobs=self.jobs,
            elapsed_s=time.monotonic() - self._began_s,
        )


def _dub(places: Places, arguments: argparse.Namespace, table: ResultsTable, progress: BatchProgress) -> None:
    for row in places.manifest.failed:
        table.add(row)
        progress.job(row)
    if not places.manifest.jobs:
        return
    with ray_session(places.settings.pools):
        run = BatchRun(
            places.settings,
            places.checkpoint_uri,
            places.work_uri,
            table,
            progress,
            retry_failed=arguments.retry_failed,
            clean=arguments.clean,
        )
        run(places.manifest.jobs)


def _dry_run(places: Places) -> int:
    manifest = places.manifest
    lines = [f"# work: {places.work_uri}", f"# results: {places.results_uri}", f"# jobs: {len(manifest.jobs)}"]
    lines += [f"# row {row['row']}: {row['error_type']}: {row['error']}" for row in manifest.failed]
    text = yaml.safe_dump(places.settings.model_dump(mode="json"), sort_keys=False)
    sys.stdout.write(text + "\n".join(lines) + "\n")
    return SOME_FAILED if manifest.failed else SUCCEEDED
