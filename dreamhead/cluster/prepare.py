"""The preparation command: videos in, shards of training data and a report out."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from dreamhead import storage
from dreamhead.cluster.command import SOME_FAILED, SUCCEEDED, run_command
from dreamhead.cluster.preparation import PreparationRun
from dreamhead.cluster.preparation_progress import PreparationProgress
from dreamhead.cluster.session import ray_session
from dreamhead.cluster.sources import Sources, SplitRule, read_sources, read_speakers
from dreamhead.config import PoolsSettings, PreparationSettings, load_yaml, parse
from dreamhead.errors import ConfigError
from dreamhead.stages.preparation.ledger import Ledger
from dreamhead.stages.preparation.report import Summary, publish
from dreamhead.stages.preparation.work import Networks


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare training data; 0 when every source is, 1 when some failed, 2 when the run was refused or broke off."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda console: _run(arguments, console))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare_dataset.py", description="Turn videos into training data, on Ray.")
    parser.add_argument("input", help="folder or s3:// prefix of videos, or a .parquet, .csv or .jsonl of video_uri")
    parser.add_argument("--output", required=True, help="directory of the data set; a path or s3://")
    parser.add_argument("--config", type=Path, help="YAML with settings; those not given keep their defaults")
    parser.add_argument("--speakers", help=".csv or .yaml with the speaker of each file's name without suffix")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--validation-speakers", default="", help="names, with commas, of those nothing is trained on")
    kept.add_argument("--validation-share", type=float, default=0.0, help="share of speakers nothing is trained on")
    parser.add_argument("--speech-encoder", help="name of the speech features; the settings' unless given")
    parser.add_argument(
        "--checkpoint", default="", help="weights that measure the sound's lag; the bundled ones unless given"
    )
    parser.add_argument("--syncnet", default="", help="SyncNet's weights, to measure the sound's lag by instead")
    parser.add_argument("--dry-run", action="store_true", help="print the settings and the sources, do no work")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    settings = _settings(arguments)
    speakers = read_speakers(arguments.speakers) if arguments.speakers else {}
    found = read_sources(arguments.input, speakers, _rule(arguments))
    output_uri = storage.resolve(arguments.output, ".").rstrip("/")
    networks = Networks(
        checkpoint_uri=storage.resolve(arguments.checkpoint, ".") if arguments.checkpoint else "",
        syncnet=storage.resolve(arguments.syncnet, ".") if arguments.syncnet else "",
    )
    if arguments.dry_run:
        return _dry_run(settings, found, output_uri)
    storage.check_writable(output_uri)
    with PreparationProgress(console) as progress:
        for row in found.failed:
            progress.say(f"{row['source_uri']} failed: {row['error']}")
        try:
            with ray_session(PoolsSettings(analyse=settings.pool)):
                PreparationRun(settings, networks, output_uri, progress)(found.sources)
        finally:
            summary = publish(Ledger(output_uri), found.failed, settings)
            progress.say(_result(summary, output_uri))
    names = {source.name for source in found.sources}
    return SOME_FAILED if found.failed or summary.failed & names else SUCCEEDED


def _settings(arguments: argparse.Namespace) -> PreparationSettings:
    settings = load_yaml(arguments.config, PreparationSettings) if arguments.config else PreparationSettings()
    if arguments.speech_encoder:
        values = settings.model_dump(exclude_unset=True) | {"speech_encoder": arguments.speech_encoder}
        settings = parse(values, PreparationSettings, "--speech-encoder")
    return settings


def _rule(arguments: argparse.Namespace) -> SplitRule:
    if not 0 <= arguments.validation_share < 1:
        raise ConfigError(f"--validation-share: must be at least 0 and below 1, got {arguments.validation_share:g}")
    names = (name.strip() for name in arguments.validation_speakers.split(","))
    return SplitRule(speakers=frozenset(filter(None, names)), share=arguments.validation_share)


def _dry_run(settings: PreparationSettings, found: Sources, output_uri: str) -> int:
    lines = [f"# output: {output_uri}", f"# sources: {len(found.sources)}"]
    lines += [f"# {source.split}: {source.speaker}: {source.uri}" for source in found.sources]
    lines += [f"# {row['source_uri']}: {row['error']}" for row in found.failed]
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    sys.stdout.write(text + "\n".join(lines) + "\n")
    return SOME_FAILED if found.failed else SUCCEEDED


def _result(summary: Summary, output_uri: str) -> str:
    hours = ", ".join(
        f"{split} {part.hours:.2f} h of {part.speakers} speakers" for split, part in summary.splits.items()
    )
    return f"{hours}; see {storage.join(output_uri, 'report.html')}"
