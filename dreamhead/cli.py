"""The `dreamhead` command. Exit status: 0 done, 1 the dub failed, 2 wrong usage or settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

import dreamhead
from dreamhead import storage
from dreamhead.config import DubSettings, load_yaml
from dreamhead.errors import ConfigError, DreamheadError, InputError
from dreamhead.records import LongerAudio

# What takes seconds to import is imported by the command that needs it: `--help` answers at once.

DONE, FAILED, WRONG_USAGE = 0, 1, 2

app = typer.Typer(
    help="Re-render a speaker's mouth so that it says other speech.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a DreamheadError is one line on stderr, anything else a traceback."""
    try:
        app(args=argv, prog_name="dreamhead")
    except SystemExit as end:
        return int(end.code or DONE)
    except DreamheadError as error:
        _say(f"{type(error).__name__}: {error}")
        return WRONG_USAGE if isinstance(error, ConfigError) else FAILED
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
    from dreamhead.stages.dub import fitted

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


def _media_facts(uri: str) -> dict[str, object]:
    from dreamhead.media.audio import probe_audio
    from dreamhead.media.container import find_video, open_media
    from dreamhead.media.video import probe

    with open_media(uri) as container:
        has_picture, has_sound = find_video(container) is not None, len(container.streams.audio) > 0
    facts: dict[str, object] = {}
    if has_picture:
        video = probe(uri)
        facts = {
            "picture": f"{video.width} x {video.height}, turned by {video.rotation} degrees",
            "pixel aspect": video.sample_aspect_ratio,
            "frames": video.frame_count,
            "frame rate": f"{float(video.average_rate):.3f} Hz in the mean, times in {video.time_base} s",
            "duration": "still picture" if video.is_still else f"{video.duration_s:.3f} s",
            "colour": "primaries {}, transfer {}, matrix {}, range {}".format(*video.color),
        }
    if has_sound:
        sound = probe_audio(uri)
        facts["sound"] = f"{sound.codec}, {sound.sample_rate} Hz, {sound.channels} channels, {sound.duration_s:.3f} s"
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
