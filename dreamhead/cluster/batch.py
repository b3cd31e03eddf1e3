"""The batch command: a manifest in, dubbed videos and a results file out."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from dreamhead import storage
from dreamhead.cluster.command import SOME_FAILED, SUCCEEDED, run_command
from dreamhead.cluster.driver import BatchRun
from dreamhead.cluster.manifest import Manifest, read_manifest
from dreamhead.cluster.progress import BatchProgress
from dreamhead.cluster.session import ray_session
from dreamhead.cluster.table import ResultsTable
from dreamhead.config import DubSettings, load_yaml
from dreamhead.errors import ManifestError
from dreamhead.stages.dub import fitted


def main(argv: Sequence[str] | None = None) -> int:
    """Dub a manifest's jobs; 0 when all succeeded, 1 when some failed, 2 when the run was refused or broke off."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda console: _run(arguments, console))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="batch_render.py", description="Dub every row of a manifest on Ray.")
    parser.add_argument("manifest", help=".parquet, .csv or .jsonl; a path or s3://")
    parser.add_argument("--config", type=Path, help="YAML with settings; those not given keep their defaults")
    parser.add_argument("--checkpoint", default="", help="directory with the weights; the bundled ones unless given")
    parser.add_argument("--work", help="directory for what can be reused; beside the outputs unless given")
    parser.add_argument("--results", help="directory for results.parquet; beside the outputs unless given")
    parser.add_argument("--dry-run", action="store_true", help="print the settings, check the manifest, do no work")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    settings = load_yaml(arguments.config, DubSettings) if arguments.config else DubSettings()
    manifest = read_manifest(arguments.manifest)
    work_uri = _absolute(arguments.work) if arguments.work else storage.join(_beside(manifest), "dreamhead-work")
    results_uri = _results_uri(_absolute(arguments.results) if arguments.results else _beside(manifest))
    checkpoint_uri = _absolute(arguments.checkpoint) if arguments.checkpoint else ""
    settings = fitted(settings, checkpoint_uri)
    if arguments.dry_run:
        return _dry_run(settings, manifest, work_uri, results_uri)
    table = ResultsTable(results_uri)
    with BatchProgress(console, len(manifest.jobs) + len(manifest.failed)) as progress:
        try:
            _dub(manifest, settings, checkpoint_uri, work_uri, table, progress)
        finally:
            table.write()
            succeeded, failed = table.count("succeeded"), table.count("failed")
            progress.say(f"{succeeded} jobs succeeded, {failed} failed; results in {results_uri}")
    return SOME_FAILED if failed else SUCCEEDED


def _dub(
    manifest: Manifest,
    settings: DubSettings,
    checkpoint_uri: str,
    work_uri: str,
    table: ResultsTable,
    progress: BatchProgress,
) -> None:
    for row in manifest.failed:
        table.add(row)
        progress.job(row["job_id"], row["status"], f"row {row['row']}: {row['error']}")
    if manifest.jobs:
        storage.check_writable(work_uri)
        with ray_session(settings.pools):
            BatchRun(settings, checkpoint_uri, work_uri, table, progress)(manifest.jobs)


def _dry_run(settings: DubSettings, manifest: Manifest, work_uri: str, results_uri: str) -> int:
    lines = [f"# work: {work_uri}", f"# results: {results_uri}", f"# jobs: {len(manifest.jobs)}"]
    lines += [f"# row {row['row']}: {row['error_type']}: {row['error']}" for row in manifest.failed]
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    sys.stdout.write(text + "\n".join(lines) + "\n")
    return SOME_FAILED if manifest.failed else SUCCEEDED


def _results_uri(uri: str) -> str:
    return uri if uri.endswith(".parquet") else storage.join(uri, "results.parquet")


def _absolute(uri: str) -> str:
    return storage.resolve(uri, ".")


def _beside(manifest: Manifest) -> str:
    """The deepest directory that holds every output."""
    parents = [job.output_uri.split("/")[:-1] for job in manifest.jobs]
    common: list[str] = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    # Below "s3://bucket" or "/directory" there is something to call common; above it there isn't.
    if len(common) < 2 or not common[-1] or common == ["s3:", ""]:
        raise ManifestError("the outputs share no directory: say where work and results go, by --work and --results")
    return "/".join(common)
