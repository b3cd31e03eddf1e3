"""`dreamhead client`: submit jobs to the online service, follow them, fetch their videos.

Exit status: 0 done, 1 the job failed or was cancelled, or the service can't be reached, 2 the request is refused.
"""

import asyncio
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dreamhead.errors import ConfigError
from dreamhead.records import LongerAudio

if TYPE_CHECKING:
    from dreamhead.client.jobs import ClientJob
    from dreamhead.client.service import Service
    from dreamhead.client.showing import Display

# What takes long to import is imported by the command that runs: `--help` answers at once.

FAILED, REFUSED = 1, 2
KEY_VARIABLE = "DREAMHEAD_API_KEY"
SEGMENT = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}

app = typer.Typer(
    help="Work with the online service. The API key is read from DREAMHEAD_API_KEY.", no_args_is_help=True
)

Server = Annotated[str, typer.Option("--server", envvar="DREAMHEAD_SERVER", help="Address of the service")]
Patience = Annotated[float, typer.Option("--retry-for", min=0, help="Seconds to try again while it is busy or away")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job, as `submit` printed it")]
AsJson = Annotated[bool, typer.Option("--json", help="A line of JSON for each job")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File for the video")]

LOCAL, PATIENCE_S = "http://127.0.0.1:8000", 300.0
ResultT = TypeVar("ResultT")


@app.command()
def submit(
    video: Annotated[str, typer.Argument(help="Video or picture: a file, or with --uri what the service can read")],
    audio: Annotated[str, typer.Argument(help="The new speech: any file with sound")],
    uri: Annotated[
        bool, typer.Option("--uri", help="The service reads both itself; taken for granted of s3://")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same video")] = 0,
    segment: Annotated[list[str] | None, typer.Option(help="START-END in seconds: dub only this; repeatable")] = None,
    face: Annotated[str, typer.Option(help="largest, point:x,y@t or box:x0,y0,x1,y1@t")] = "largest",
    on_longer_audio: Annotated[LongerAudio, typer.Option(help="When the speech outlasts the video")] = "trim",
    language: Annotated[str, typer.Option(help="Of the speech; kept with the job")] = "",
    consent_id: Annotated[str, typer.Option(help="Where the consent is filed; kept with the job")] = "",
    webhook_url: Annotated[str, typer.Option(help="Where the service posts the job once it is over")] = "",
    idempotency_key: Annotated[str, typer.Option(help="The same key makes one job; random unless given")] = "",
    wait_for_it: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job to its end")] = True,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the video, once it is there")] = None,
    server: Server = LOCAL,
    retry_for: Patience = PATIENCE_S,
) -> None:
    """Send a job; prints its ID."""
    from dreamhead.client.following import follow

    if output is not None and not wait_for_it:
        raise ConfigError("--output: the video is there only at the end; leave --no-wait away, or use `download` later")
    options: dict[str, Any] = {
        "seed": seed,
        "segments": _segments(segment or []),
        "face": face,
        "on_longer_audio": on_longer_audio,
        "language": language,
        "consent_id": consent_id,
        "webhook_url": webhook_url,
    }
    key = idempotency_key or secrets.token_hex(16)

    async def work(service: "Service", display: "Display") -> "ClientJob":
        job = await _send(service, display, video, audio, uri, options, key)
        sys.stdout.write(f"{job.id}\n")
        sys.stdout.flush()
        if wait_for_it:
            job = await _until_over(follow(service, job.id), display)
            await _fetch_if_wanted(service, display, job, output)
        return job

    _end(_run(work, server, retry_for))


@app.command()
def status(job_id: JobId, as_json: AsJson = False, server: Server = LOCAL, retry_for: Patience = PATIENCE_S) -> None:
    """Say how far a job is. Exit status 1 when it failed or was cancelled."""

    async def work(service: "Service", display: "Display") -> "ClientJob":
        return await service.job(job_id)

    job = _run(work, server, retry_for)
    sys.stdout.write((job.model_dump_json() if as_json else job.line) + "\n")
    _end(job, quietly=True)


@app.command(name="list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many of the newest")] = 20,
    as_json: AsJson = False,
    server: Server = LOCAL,
    retry_for: Patience = PATIENCE_S,
) -> None:
    """List your jobs, the newest first."""

    async def work(service: "Service", display: "Display") -> "list[ClientJob]":
        return await service.jobs(limit)

    jobs = _run(work, server, retry_for)
    if as_json:
        sys.stdout.writelines(job.model_dump_json() + "\n" for job in jobs)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("job", "made", "status"):
        # An id that is broken over two lines can't be copied.
        table.add_column(heading, overflow="fold", no_wrap=heading != "status")
    for job in jobs:
        made = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(job.id, made, f"[{COLOURS.get(job.status, 'default')}]{escape(job.line)}")
    Console().print(table)


@app.command()
def wait(job_id: JobId, server: Server = LOCAL, retry_for: Patience = PATIENCE_S) -> None:
    """Follow a job to its end. Exit status 1 when it failed or was cancelled."""
    from dreamhead.client.following import follow

    async def work(service: "Service", display: "Display") -> "ClientJob":
        return await _until_over(follow(service, job_id), display)

    _end(_run(work, server, retry_for))


@app.command()
def download(job_id: JobId, output: Output, server: Server = LOCAL, retry_for: Patience = PATIENCE_S) -> None:
    """Fetch the video of a job that succeeded; goes on where an earlier try was broken off."""

    async def work(service: "Service", display: "Display") -> None:
        await _fetch(service, display, job_id, output)

    _run(work, server, retry_for)


@app.command()
def cancel(job_id: JobId, server: Server = LOCAL, retry_for: Patience = PATIENCE_S) -> None:
    """Cancel a job: at once while it waits, within a chunk while it runs. One that is over stays as it is."""

    async def work(service: "Service", display: "Display") -> "ClientJob":
        return await service.cancel(job_id)

    job = _run(work, server, retry_for)
    wished = "" if job.is_over else "; it will be cancelled"
    sys.stdout.write(f"{job.line}{wished}\n")


def _run(work: "Callable[[Service, Display], Coroutine[Any, Any, ResultT]]", server: str, retry_for: float) -> ResultT:
    """One command's work; a refusal is one line on stderr."""
    from dreamhead.client.service import RefusedError, connect
    from dreamhead.client.showing import Display

    async def connected() -> ResultT:
        with Display(Console(stderr=True)) as display:
            async with connect(server, os.environ.get(KEY_VARIABLE, ""), retry_for, display.say) as service:
                return await work(service, display)

    try:
        return asyncio.run(connected())
    except RefusedError as error:
        _say(f"refused: {error}")
        raise typer.Exit(REFUSED) from error


async def _send(
    service: "Service", display: "Display", video: str, audio: str, by_uri: bool, options: dict[str, Any], key: str
) -> "ClientJob":
    from dreamhead.client.showing import upload_size
    from dreamhead.client.submitting import submit_files, submit_uris

    remote = [name.startswith("s3://") for name in (video, audio)]
    if by_uri or all(remote):
        return await submit_uris(service, video, audio, options, key)
    if any(remote):
        raise ConfigError(f"{video} and {audio}: either both are uploaded or the service reads both: give uris of both")
    files = _file(video), _file(audio)
    display.begin("uploading", upload_size(*files))
    job = await submit_files(service, *files, options, key, display.advance)
    display.begin(job.status, None)
    return job


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"{name}: no such file; --uri if the service is to read it")
    return path


async def _until_over(jobs: "AsyncIterator[ClientJob]", display: "Display") -> "ClientJob":
    display.begin("waiting", None)
    async for job in jobs:
        display.show(job)
    return job


async def _fetch_if_wanted(service: "Service", display: "Display", job: "ClientJob", output: Path | None) -> None:
    if output is not None and job.status == "succeeded":
        await _fetch(service, display, job.id, output)


async def _fetch(service: "Service", display: "Display", job_id: str, output: Path) -> None:
    from dreamhead.client.download import download as fetch

    display.begin("downloading", None)
    await fetch(service, job_id, output, display.set)


def _segments(given: list[str]) -> list[dict[str, float]]:
    matches = [(text, SEGMENT.fullmatch(text)) for text in given]
    for text, match in matches:
        if match is None:
            raise ConfigError(f"--segment {text}: must be START-END in seconds, such as 2.5-9")
    return [{"start_s": float(match[1]), "end_s": float(match[2])} for _, match in matches if match]


def _end(job: "ClientJob", *, quietly: bool = False) -> None:
    """The exit status of a command about one job."""
    if not quietly and job.is_over:
        _say(job.line + (f"; look at: {job.warnings}" if job.warnings else ""))
    if job.status in ("failed", "cancelled"):
        raise typer.Exit(FAILED)


def _say(line: str) -> None:
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
