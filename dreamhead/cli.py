"""The `dreamhead` command. Exit status: 0 done, 1 the dub failed, 2 wrong usage, settings, weights or manifest."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

import dreamhead
from dreamhead import storage
from dreamhead.client.commands import app as client
from dreamhead.config import DubSettings, load_yaml
from dreamhead.errors import CheckpointError, ConfigError, DreamheadError, InputError, ManifestError
from dreamhead.records import LongerAudio

if TYPE_CHECKING:
    from dreamhead.evaluation.blind.ballot import VoteBook
    from dreamhead.stages.status import JobStatus

# What takes seconds to import is imported by the command that needs it: `--help` answers at once.

DONE, FAILED, WRONG_USAGE = 0, 1, 2

app = typer.Typer(
    help="Re-render a speaker's mouth so that it says other speech.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(client, name="client")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a DreamheadError is one line on stderr, anything else a traceback."""
    try:
        app(args=argv, prog_name="dreamhead")
    except SystemExit as end:
        return int(end.code or DONE)
    except DreamheadError as error:
        _say(f"{type(error).__name__}: {error}")
        return WRONG_USAGE if isinstance(error, ConfigError | ManifestError | CheckpointError) else FAILED
    return DONE


def _print_version(wanted: bool) -> None:
    if wanted:
        Console().print(f"dreamhead {dreamhead.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Options before the command."""


@app.command()
def dub(
    video: Annotated[str, typer.Option(help="Video or picture: a path or s3://")],
    audio: Annotated[str, typer.Option(help="The new speech: any file with sound")],
    output: Annotated[str, typer.Option(help="Where the dubbed video goes")],
    config: Annotated[Path | None, typer.Option(help="YAML with settings; those not given keep their defaults")] = None,
    checkpoint: Annotated[str, typer.Option(help="Directory with the weights; the bundled ones unless given")] = "",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same video")] = 0,
    face: Annotated[str, typer.Option(help="largest, point:x,y@t or box:x0,y0,x1,y1@t")] = "largest",
    on_longer_audio: Annotated[LongerAudio, typer.Option(help="When the speech outlasts the video")] = "trim",
    work: Annotated[str, typer.Option(help="Directory for what can be reused; beside the output unless given")] = "",
) -> None:
    """Dub one video in this process, without Ray."""
    from dreamhead.cluster.manifest import job_from_row
    from dreamhead.stages.dub import dub as dub_job
    from dreamhead.stages.opening import fitted

    settings = load_yaml(config, DubSettings) if config else DubSettings()
    row = {"video_uri": video, "audio_uri": audio, "output_uri": output, "seed": seed, "face": face}
    try:
        job = job_from_row(0, row | {"on_longer_audio": on_longer_audio}, ".")
    except InputError as error:
        _say(f"wrong usage: {error}")
        raise typer.Exit(WRONG_USAGE) from error
    work_uri = storage.resolve(work or storage.join(job.output_uri.rpartition("/")[0], "dreamhead-work"), ".")
    with _progress() as progress:
        task = progress.add_task("dubbing", total=None)
        checkpoint_uri = storage.resolve(checkpoint, ".") if checkpoint else ""
        result = dub_job(
            job,
            fitted(settings, checkpoint_uri),
            checkpoint_uri,
            work_uri,
            lambda done, frames: progress.update(task, completed=done, total=frames),
        )
    if result["status"] != "succeeded":
        _say(f"{result['error_type']}: {result['error']}")
        raise typer.Exit(FAILED)
    _report(result)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Directory for samples, dubbed videos and results")] = Path("demo"),
) -> None:
    """Make sample clips and speech, and dub them with the batch job."""
    from dreamhead.demo.run import run_demo

    raise typer.Exit(run_demo(output, Console()))


@app.command()
def inspect(
    uri: Annotated[str, typer.Argument(help="A video, a picture, a sound file or a checkpoint directory")],
) -> None:
    """Say what a media file or a checkpoint holds."""
    if storage.exists(uri):
        facts = _media_facts(uri)
    else:
        from dreamhead.checkpoint import Checkpoint

        checkpoint = Checkpoint.load(storage.resolve(uri, "."))
        facts = {"digest": checkpoint.digest} | checkpoint.config.model_dump(mode="json")
    table = Table(title=uri, show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console().print(table)


@app.command()
def status(
    manifest: Annotated[str, typer.Argument(help=".parquet, .csv or .jsonl; a path or s3://")],
    config: Annotated[Path | None, typer.Option(help="The batch job's settings")] = None,
    checkpoint: Annotated[str, typer.Option(help="The batch job's weights")] = "",
    work: Annotated[str, typer.Option(help="The batch job's work directory; beside the outputs unless given")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each job")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Every job, those that are done too")] = False,
) -> None:
    """Say how far a manifest's jobs and chunks are: done, failed or missing. Exit status 1 unless all are done."""
    from dreamhead.cluster.overview import statuses
    from dreamhead.cluster.places import find_places

    found = list(statuses(find_places(manifest, config=config, checkpoint=checkpoint, work=work)))
    if as_json:
        for one in found:
            facts = {"job_id": one.job.job_id, "row": one.job.row, **_status_facts(one)}
            sys.stdout.write(json.dumps(facts, sort_keys=True) + "\n")
    else:
        Console().print(_status_table(found, show_all))
        Console().print(_status_summary(found), highlight=False, soft_wrap=True)
    raise typer.Exit(DONE if all(one.state == "done" for one in found) else FAILED)


@app.command()
def clean(
    manifest: Annotated[str, typer.Argument(help=".parquet, .csv or .jsonl; a path or s3://")],
    config: Annotated[Path | None, typer.Option(help="The batch job's settings")] = None,
    checkpoint: Annotated[str, typer.Option(help="The batch job's weights")] = "",
    work: Annotated[str, typer.Option(help="The batch job's work directory; beside the outputs unless given")] = "",
    analysis: Annotated[bool, typer.Option(help="Also the analysis of videos whose every job is done")] = False,
    other_settings: Annotated[bool, typer.Option(help="Also what other settings, weights or inputs left")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say how much it is")] = False,
) -> None:
    """Free what published jobs no longer need: chunks, landmarks. Outputs and results stay.

    Refused while a run is at work in the work directory. Of other manifests' jobs there, --analysis and
    --other-settings know nothing.
    """
    from dreamhead.cluster.overview import free
    from dreamhead.cluster.places import find_places

    places = find_places(manifest, config=config, checkpoint=checkpoint, work=work)
    freed = free(places, analysis=analysis, other_settings=other_settings, dry_run=dry_run, say=_say)
    done = "would be deleted" if dry_run else "deleted"
    Console().print(f"{freed.files} files of {freed.size / 1e6:.1f} MB {done}", highlight=False)


@app.command()
def judge(
    a: Annotated[str, typer.Argument(help="A video, a folder of videos, or a manifest or results; a path or s3://")],
    b: Annotated[str, typer.Argument(help="Dubs of the same clips, under the same file names")],
    output: Annotated[Path, typer.Option(help="Folder for the votes; the same again goes on")] = Path("judgement"),
    seed: Annotated[int, typer.Option(help="Of the orders and sides; a judge keeps the same with the same")] = 0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On the loopback address; 0: any that is free")] = 0,
    result: Annotated[bool, typer.Option("--result", help="Only say what was voted so far")] = False,
) -> None:
    """Let people compare two sets of dubs, blind: a page with both side by side in random order.

    Keys choose the left, the right or neither. Ctrl-C ends it, and tells the counts of all judges with 95 % confidence.
    """
    from dreamhead.cluster.compared import match_dubs
    from dreamhead.evaluation.blind.app import Comparison, build_app, serve
    from dreamhead.evaluation.blind.ballot import VoteBook
    from dreamhead.scratch import scratch_folder

    with scratch_folder() as scratch:
        dubs, notes = match_dubs(storage.resolve(a, "."), storage.resolve(b, "."), scratch)
        for note in notes:
            _say(note)
        book = VoteBook(output, a, b, dubs)
        last = Path(a).name, Path(b).name
        names = last if last[0] != last[1] else (a, b)
        if not result:
            told = "pairs" if len(dubs) > 1 else "pair"
            try:
                serve(
                    build_app(Comparison(dubs, names, book, seed)),
                    port,
                    lambda url: _say(f"{len(dubs)} {told} to judge at {url} (Ctrl-C ends it; votes go to {output})"),
                )
            except OSError as error:
                _say(f"wrong usage: --port {port}: {error.strerror}; another, or 0 for any that is free")
                raise typer.Exit(WRONG_USAGE) from error
    Console().print(_votes_table(book, names, len(dubs)))


def _votes_table(book: "VoteBook", names: tuple[str, str], pairs: int) -> Table:
    from dreamhead.evaluation.blind.tally import Tally, by_clip, by_judge

    votes = book.votes()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "pairs", f"{names[0]} better", "no difference", f"{names[1]} better", "share of the first"):
        table.add_column(escape(heading), overflow="fold", justify="left" if not heading else "right")
    table.add_column("sign test, p", justify="right")
    rows = {escape(judge): tally for judge, tally in by_judge(votes).items()}
    rows |= {"all votes": Tally.of(vote.preferred for vote in votes), "a voice a clip": by_clip(votes)}
    for name, tally in rows.items():
        low, high = tally.interval
        share = f"{100 * tally.share:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)" if tally.a + tally.b else "–"
        count = tally.a + tally.equal + tally.b
        of = f"{count} of {pairs}" if name != "all votes" else str(count)
        table.add_row(name, of, str(tally.a), str(tally.equal), str(tally.b), share, f"{tally.p_value:.2g}")
    return table


def _status_facts(one: "JobStatus") -> dict[str, str | int]:
    return {
        "state": one.state,
        "error": one.error,
        "chunks_done": one.chunks_done,
        "chunks_failed": one.chunks_failed,
        "chunks_missing": one.chunks_missing,
        "spans_ahead": one.spans_ahead,
        "is_checked": one.is_checked,
    }


def _status_table(found: "list[JobStatus]", show_all: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("row", "job", "state", "chunks done", "failed", "missing", "ahead", "why"):
        table.add_column(heading, overflow="fold", justify="left" if heading in ("job", "state", "why") else "right")
    colours = {"done": "green", "failed": "red", "missing": "yellow"}
    for one in found:
        if show_all or one.state != "done":
            counts = (one.chunks_done, one.chunks_failed, one.chunks_missing)
            ahead = f"{one.spans_ahead} spans" if one.spans_ahead else "" if one.is_checked else "not checked yet"
            state = f"[{colours[one.state]}]{one.state}"
            table.add_row(str(one.job.row), one.job.job_id, state, *map(str, counts), ahead, escape(one.error))
    return table


def _status_summary(found: "list[JobStatus]") -> str:
    states: Counter[str] = Counter(one.state for one in found)
    jobs = ", ".join(f"{states[state]} {state}" for state in ("done", "failed", "missing"))
    done, failed = sum(one.chunks_done for one in found), sum(one.chunks_failed for one in found)
    missing, ahead = sum(one.chunks_missing for one in found), sum(one.spans_ahead for one in found)
    unknown = f", and those of {ahead} spans that aren't analysed" if ahead else ""
    unchecked = sum(not one.is_checked for one in found)
    unknown += f", and those of {unchecked} jobs whose inputs no run has read" if unchecked else ""
    return f"{len(found)} jobs: {jobs}; chunks: {done} done, {failed} failed, {missing} missing{unknown}"


def _media_facts(uri: str) -> dict[str, object]:
    from dreamhead.media.audio import probe_audio
    from dreamhead.media.container import find_video, open_media
    from dreamhead.media.probing import look_first
    from dreamhead.media.video import probe

    look_first({"": ("any", uri)})
    with open_media(uri) as container:
        has_picture, has_sound = find_video(container) is not None, len(container.streams.audio) > 0
    facts: dict[str, object] = {}
    warnings: list[str] = []
    if has_picture:
        video = probe(uri)
        facts = {
            "picture": f"{video.width} x {video.height}, turned by {video.rotation} degrees",
            "shown as": "{} x {} square pixels".format(*video.shown_size),
            "pixel aspect": video.sample_aspect_ratio,
            "frames": video.frame_count,
            "frame rate": f"{float(video.average_rate):.3f} Hz in the mean, times in {video.time_base} s",
            "duration": "still picture" if video.is_still else f"{video.duration_s:.3f} s",
            "colour": "primaries {}, transfer {}, matrix {}, range {}".format(*video.color),
        }
        if video.lead:
            facts["first frame"] = f"at {video.times_s[0]:.3f} s from the file's zero"
        warnings += video.warnings
    if has_sound:
        sound = probe_audio(uri)
        facts["sound"] = f"{sound.codec}, {sound.sample_rate} Hz, {sound.channels} channels, {sound.duration_s:.3f} s"
        warnings += sound.warnings
    if warnings:
        facts["warnings"] = "\n".join(warnings)
    return facts


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _report(result: dict[str, Any]) -> None:
    seconds = sum(dict(result["seconds"]).values())
    routes = dict(result["passed_through"]).items()
    passed = ", ".join(f"{count} {route.lower().replace('_', ' ')}" for route, count in routes)
    lines = [
        str(result["output_uri"]),
        f"{result['dubbed_frames']} of {result['frames']} frames dubbed in {seconds:.1f} s",
    ]
    if passed:
        lines.append(f"passed through: {passed}")
    if result["warnings"]:
        lines.append(f"look at: {result['warnings']}")
    for line in lines:
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


def _say(line: str) -> None:
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
