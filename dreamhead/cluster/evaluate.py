"""The evaluation command: clips in, figures, a page and pictures out."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dreamhead import storage
from dreamhead.cluster.command import SOME_FAILED, SUCCEEDED, run_command
from dreamhead.cluster.evaluation import judge_all, plan_pool
from dreamhead.cluster.evaluation_progress import EvaluationProgress
from dreamhead.cluster.judged_clips import read_clips, tasks_of
from dreamhead.cluster.session import cluster_nodes, ray_session
from dreamhead.config import PoolsSettings, load_yaml, parse
from dreamhead.evaluation.folder import EvaluationFolder
from dreamhead.evaluation.judges import PictureJudges
from dreamhead.evaluation.lipsync import LipSync
from dreamhead.evaluation.records import Task, Verdict
from dreamhead.evaluation.report import Evaluation, publish, write_markdown
from dreamhead.evaluation.settings import EvaluationSettings
from dreamhead.evaluation.summary import Summary
from dreamhead.stages.opening import fitted, open_work


def main(argv: Sequence[str] | None = None) -> int:
    """Judge clips; 0 when every condition was, 1 when some failed, 2 when the run was refused or broke off.

    Targets that aren't met don't change the status: they are for people to judge.
    """
    arguments = _parser().parse_args(argv)
    return run_command(lambda console: _run(arguments, console))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description="Dub clips with their own and other speech, and measure what came out, on Ray."
    )
    clips = "folder of videos, or .parquet, .csv or .jsonl with video_uri and, as wanted, audio_uri, speaker, "
    parser.add_argument("--clips", required=True, help=f"{clips}speech_lag_s, clip_id; a path or s3://")
    parser.add_argument("--output", required=True, help="directory for everything that comes out; a path or s3://")
    parser.add_argument("--checkpoint", default="", help="directory with the weights; the bundled ones unless given")
    parser.add_argument("--config", type=Path, help="YAML with settings; those not given keep their defaults")
    parser.add_argument(
        "--seconds", type=float, help="longest stretch of a clip that is judged; the settings' unless given"
    )
    parser.add_argument("--lags", default="", help="report.parquet of a preparation, for the lags of the clips' sound")
    parser.add_argument(
        "--markdown", type=Path, help="also write the tables here, and pictures into a folder beside it"
    )
    parser.add_argument("--tables-only", action="store_true", help="no pictures for --markdown")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    settings = _settings(arguments)
    clips = read_clips(storage.resolve(arguments.clips, "."), arguments.lags and storage.resolve(arguments.lags, "."))
    checkpoint_uri = storage.resolve(arguments.checkpoint, ".") if arguments.checkpoint else ""
    output_uri = storage.resolve(arguments.output, ".").rstrip("/")
    settings = settings.model_copy(update={"dub": fitted(settings.dub, checkpoint_uri)})
    _, digest = open_work(settings.dub, checkpoint_uri, output_uri)
    not_given = _check_judges(settings)
    storage.check_writable(output_uri)
    tasks = tasks_of(clips, settings.conditions)
    folder = EvaluationFolder(output_uri, settings, digest)
    found = {task: verdict for task in tasks if (verdict := folder.finished(task)) is not None}
    missing = [task for task in tasks if task not in found]
    with EvaluationProgress(console) as progress:
        progress.plan(len(clips), len(tasks), len(missing))
        try:
            if missing:
                folder.clear_attempts()
                _judge(missing, found, settings, checkpoint_uri, output_uri, progress)
        finally:
            evaluation = Evaluation(
                settings=settings,
                checkpoint=arguments.checkpoint or "bundled",
                weights_digest=digest,
                verdicts=[found[task] for task in tasks if task in found],
                unfinished=len(tasks) - len(found),
                not_given=not_given,
            )
            progress.say(_result(evaluation, publish(evaluation, output_uri), output_uri))
    if arguments.markdown:
        write_markdown(evaluation, arguments.markdown, with_pictures=not arguments.tables_only)
    return SOME_FAILED if any(verdict.error for verdict in evaluation.verdicts) else SUCCEEDED


def _check_judges(settings: EvaluationSettings) -> dict[str, str]:
    """Refuse weights that can't be used before any work is done; returns what isn't given."""
    if settings.judges.syncnet:
        LipSync(settings.judges.syncnet)
    return PictureJudges(settings.judges).missing


def _settings(arguments: argparse.Namespace) -> EvaluationSettings:
    settings = load_yaml(arguments.config, EvaluationSettings) if arguments.config else EvaluationSettings()
    if arguments.seconds is not None:
        values = settings.model_dump(exclude_unset=True) | {"seconds": arguments.seconds}
        settings = parse(values, EvaluationSettings, "--seconds")
    return settings


def _judge(
    missing: Sequence[Task],
    found: dict[Task, Verdict],
    settings: EvaluationSettings,
    checkpoint_uri: str,
    output_uri: str,
    progress: EvaluationProgress,
) -> None:
    """Add the verdicts of what is missing to `found`, one by one."""
    by_name = {(task.clip.clip_id, task.condition): task for task in missing}
    with ray_session(PoolsSettings(render=settings.pool)):
        pool = plan_pool(settings, cluster_nodes())
        for verdict in judge_all(missing, pool, settings, checkpoint_uri, output_uri):
            found[by_name[verdict.clip_id, verdict.condition]] = verdict
            progress.judged(verdict)


def _result(evaluation: Evaluation, summary: Summary, output_uri: str) -> str:
    judged = [check for check in summary.checks if check.met is not None]
    met = sum(check.met is True for check in judged)
    errors = sum(bool(verdict.error) for verdict in evaluation.verdicts)
    told = f", {errors} conditions failed" if errors else ""
    told += f", {evaluation.unfinished} not judged yet" if evaluation.unfinished else ""
    reached = f"{met} of {len(judged)} targets met" if judged else "no target measured"
    return f"{reached}{told}; see {storage.join(output_uri, 'report.html')}"
