"""What a batch's command line names: manifest, settings, weights, and where work and results go."""

from dataclasses import dataclass
from pathlib import Path

from dreamhead import storage
from dreamhead.cluster.manifest import Manifest, read_manifest
from dreamhead.config import DubSettings, load_yaml
from dreamhead.errors import ManifestError
from dreamhead.stages.opening import fitted
from dreamhead.stages.work import fingerprint


@dataclass(frozen=True, kw_only=True)
class Places:
    """Everything that the batch job, its status and its cleaning must agree on."""

    manifest: Manifest
    settings: DubSettings
    checkpoint_uri: str
    """Empty for the bundled weights."""
    work_uri: str
    results_uri: str
    """Of results.parquet; empty where nobody asked for it."""

    @property
    def report_uri(self) -> str:
        """Of the page for people, beside the results."""
        return storage.join(self.results_uri.rpartition("/")[0], "report.html")

    @property
    def runs_uri(self) -> str:
        """Of the directory with a file for each run that is at work here."""
        return storage.join(self.work_uri, "running")

    @property
    def running_uri(self) -> str:
        """Of the file that keeps other runs away from these results."""
        return storage.join(self.runs_uri, f"{fingerprint(self.results_uri)}.json")


def find_places(
    manifest_uri: str, *, config: Path | None, checkpoint: str, work: str = "", results: str | None = None
) -> Places:
    """Read manifest and settings; work, and results unless they are None, lie beside the outputs where they are empty.

    Raises ManifestError, ConfigError or CheckpointError.
    """
    settings = load_yaml(config, DubSettings) if config else DubSettings()
    manifest = read_manifest(manifest_uri)
    checkpoint_uri = absolute(checkpoint) if checkpoint else ""
    outputs_uri = "" if work and (results or results is None) else _beside(manifest, manifest_uri)
    results_uri = "" if results is None else absolute(results) if results else outputs_uri
    if results_uri and not results_uri.endswith(".parquet"):
        results_uri = storage.join(results_uri, "results.parquet")
    return Places(
        manifest=manifest,
        settings=fitted(settings, checkpoint_uri),
        checkpoint_uri=checkpoint_uri,
        work_uri=absolute(work) if work else storage.join(outputs_uri, "dreamhead-work"),
        results_uri=results_uri,
    )


def absolute(uri: str) -> str:
    """A uri as the command line gives it, made absolute."""
    return storage.resolve(uri, ".")


def _beside(manifest: Manifest, manifest_uri: str) -> str:
    """The deepest directory that holds every output; the manifest's own where it has bad rows only."""
    if not manifest.jobs:
        return absolute(manifest_uri).rpartition("/")[0]
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
