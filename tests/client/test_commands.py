"""`dreamhead client` against the real API on a real port: what it sends, prints, waits for, goes on with, ends with."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dreamhead import cli, storage
from dreamhead.client import following, service
from dreamhead.serving.keys import ApiKeys, new_key
from dreamhead.serving.records import Failure, Progress
from tests.client.online import Online, online, until

VIDEO = bytes(range(256)) * 4096
"""A megabyte: several blocks of an answer."""


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.05)
    monkeypatch.setattr(service, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(service, "LONGEST_PAUSE_S", 0.2)
    for name in ("DREAMHEAD_SERVER", "DREAMHEAD_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def files(tmp_path: Path, make_video: Callable[..., str], make_tone: Callable[..., str]) -> tuple[str, str]:
    """A video and speech."""
    return make_video("clip.mp4", 10), make_tone("speech.wav", 0.4)


@pytest.fixture
def served(tmp_path: Path, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Online]:
    """A service, which the environment names."""
    with online(tmp_path) as running:
        monkeypatch.setenv("DREAMHEAD_SERVER", running.url)
        yield running


def client(*argv: str) -> int:
    return cli.main(["client", *argv])


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do something beside the block; what goes wrong in it fails the test."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # raised again below, in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


def submitted(served: Online, files: tuple[str, str]) -> str:
    """A job that waits."""
    assert client("submit", *files, "--no-wait") == 0
    (record,) = served.store.active()
    return record.id


def finished(served: Online, files: tuple[str, str], content: bytes = VIDEO) -> str:
    """A job that succeeded."""
    job_id = submitted(served, files)
    served.finish(served.claim(), content)
    return job_id


def test_a_dub_from_files_to_the_video(
    served: Online, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        held = served.claim()
        held.renew(Progress(frames_done=4, frames=10, eta_s=3.0))
        until(lambda: any(path.endswith("/events") for _, path, _ in served.harm.seen))
        served.finish(held, VIDEO)

    output = tmp_path / "out" / "dubbed.mp4"
    options = ["--seed", "7", "--segment", "0-0.2", "--face", "point:20,30@0", "--on-longer-audio", "freeze"]
    with meanwhile(work):
        assert client("submit", *files, *options, "--language", "fr", "-o", str(output)) == 0
    assert output.read_bytes() == VIDEO
    assert [path.name for path in output.parent.iterdir()] == ["dubbed.mp4"]
    said = capsys.readouterr()
    (record,) = served.store.page("everybody", 10)[0]
    assert said.out == f"{record.id}\n"
    assert said.err.splitlines()[-1] == "succeeded, 10 of 10 frames"
    chosen = record.options
    assert (chosen.seed, chosen.face, chosen.on_longer_audio, chosen.language) == (7, "point:20,30@0", "freeze", "fr")
    assert [(part.start_s, part.end_s) for part in chosen.segments] == [(0, 0.2)]
    assert storage.read_bytes(record.video_uri) == Path(files[0]).read_bytes()
    assert storage.read_bytes(record.audio_uri) == Path(files[1]).read_bytes()


def test_files_that_the_service_reads_itself(served: Online, files: tuple[str, str]) -> None:
    assert client("submit", *files, "--uri", "--no-wait", "--consent-id", "c-1") == 0
    (record,) = served.store.active()
    assert (record.video_uri, record.audio_uri, record.options.consent_id) == (*files, "c-1")


def test_the_same_key_makes_one_job(served: Online, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert client("submit", *files, "--no-wait", "--idempotency-key", "order 66") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert client("submit", *files, "--no-wait") == 0
    assert capsys.readouterr().out.strip() != first


def test_a_full_queue_is_waited_for(tmp_path: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(Path(files[0]).read_bytes() + bytes(8_000_000))
    with online(tmp_path, max_active_jobs_per_key=1) as served:
        first = ["submit", *files, "--no-wait", "--server", served.url]
        assert client(*first) == 0
        (record,) = served.store.active()

        def make_room() -> None:
            until(lambda: 429 in served.harm.answered)
            served.store.cancel("everybody", record.id)

        with meanwhile(make_room):
            assert client("submit", str(large), files[1], "--no-wait", "--server", served.url) == 0
        said = capsys.readouterr().err
        assert "1 of your jobs are waiting or running, no more are taken for now; tried again in 1." in said
        (record,) = served.store.active()
        assert storage.size(record.video_uri) == large.stat().st_size
        keys = {headers["idempotency-key"] for method, _, headers in served.harm.seen[1:] if method == "POST"}
        assert len(keys) == 1, "a repetition must be known as one"
        assert served.harm.received[1] == 0, "the files needn't be on their way to be refused"
        began = len(served.harm.seen)
        assert client(*first, "--retry-for", "0") == 1
        assert len(served.harm.seen) == began + 1
        assert "given up after 1 tries" in capsys.readouterr().err


def test_what_stands_between_may_fail_for_a_while(served: Online, files: tuple[str, str]) -> None:
    served.harm.instead = [503, 502, 500]
    assert client("submit", *files, "--no-wait") == 0
    assert len(served.store.active()) == 1


def test_a_service_that_isnt_there_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert client("list", "--server", "http://127.0.0.1:9", "--retry-for", "0.2") == 1
    said = capsys.readouterr().err.splitlines()
    assert "; tried again in 0." in said[0]
    assert said[-1].startswith("ServiceError: http://127.0.0.1:9: ")
    assert "given up after" in said[-1]


def test_a_download_goes_on_where_it_was_cut(served: Online, files: tuple[str, str], tmp_path: Path) -> None:
    job_id = finished(served, files)
    served.harm.cut_after = [300_000, 0, 400_000]
    output = tmp_path / "dubbed.mp4"
    assert client("download", job_id, "-o", str(output)) == 0
    assert output.read_bytes() == VIDEO
    # What is on its way when a connection breaks may be lost, so the places where it goes on aren't the cuts'.
    ranges = [headers["range"] for _, path, headers in served.harm.seen if path.endswith("/video")]
    first, second, third, fourth = (int(text.removeprefix("bytes=").removesuffix("-")) for text in ranges[1:])
    assert ranges[0] == "bytes=0-0"
    assert first == 0 < second <= 300_000
    assert second == third < fourth <= second + 400_000
    assert list(tmp_path.glob(".*.part")) == []


def test_another_run_goes_on_but_never_with_another_video(
    served: Online, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = finished(served, files)
    output = tmp_path / "dubbed.mp4"
    served.harm.cut_after = [300_000, 0]
    assert client("download", job_id, "-o", str(output), "--retry-for", "0") == 1
    assert "the download broke off after " in capsys.readouterr().err
    assert not output.exists()
    other = finished(served, files, VIDEO[::-1])
    assert client("download", other, "-o", str(output)) == 0
    assert output.read_bytes() == VIDEO[::-1]
    assert client("download", job_id, "-o", str(output)) == 0
    assert output.read_bytes() == VIDEO
    assert served.harm.seen[-1][2]["range"] != "bytes=0-"


def test_a_service_that_is_started_again_while_its_job_is_waited_for(
    served: Online, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = submitted(served, files)
    held = served.claim()

    def restart() -> None:
        until(lambda: any(path.endswith("/events") for _, path, _ in served.harm.seen))
        served.stop()
        held.renew(Progress(frames_done=5, frames=10))
        tried = len(served.harm.seen)
        served.start()
        until(lambda: any(path.endswith("/events") for _, path, _ in served.harm.seen[tried:]))
        served.finish(held)

    with meanwhile(restart):
        assert client("wait", job_id) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "running"
    assert said[-2:] == ["running, 5 of 10 frames", "succeeded, 10 of 10 frames"]
    again = [headers for _, path, headers in served.harm.seen if path.endswith("/events")][-1]
    assert again["last-event-id"] == "1"


def test_without_events_the_job_is_looked_at(
    served: Online, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted(served, files)
    answer = served.harm.app

    async def without_events(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith("/events"):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"blocked"})
            return
        await answer(scope, receive, send)

    served.harm.app = without_events

    def work() -> None:
        until(lambda: any(path.endswith("/events") for _, path, _ in served.harm.seen))
        served.finish(served.claim())

    with meanwhile(work):
        assert client("wait", job_id) == 0
    assert sum(path.endswith("/events") for _, path, _ in served.harm.seen) == 1


def test_a_failed_and_a_cancelled_job_exit_with_1(
    served: Online, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        served.claim().fail(Failure(type="NoFaceError", detail="no usable face"))

    output = tmp_path / "dubbed.mp4"
    with meanwhile(fail):
        assert client("submit", *files, "-o", str(output)) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "failed: NoFaceError: no usable face"
    assert client("status", said.out.strip()) == 1
    assert client("download", said.out.strip(), "-o", str(output)) == 1
    assert "the job is failed: there is no video" in capsys.readouterr().err
    assert not output.exists()
    job_id = submitted(served, files)
    capsys.readouterr()
    assert client("cancel", job_id) == 0
    assert capsys.readouterr().out == "cancelled\n"
    assert client("wait", job_id) == 1


def test_jobs_are_told_and_listed(
    served: Online, files: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first = finished(served, files)
    second = submitted(served, files)
    capsys.readouterr()
    assert client("status", second) == 0
    assert capsys.readouterr().out == "queued\n"
    assert client("status", first, "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "succeeded"
    assert client("list", "--json") == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [second, first]
    assert client("list") == 0
    table = capsys.readouterr().out
    assert "succeeded, 10 of 10 frames" in table
    assert second in table


def test_a_wrong_key_is_refused_at_once_and_no_key_is_shown(
    tmp_path: Path, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    anna = new_key("anna")
    with online(tmp_path, ApiKeys.load("", {"DREAMHEAD_API_KEYS": anna.line})) as served:
        monkeypatch.setenv("DREAMHEAD_SERVER", served.url)
        monkeypatch.setenv("DREAMHEAD_API_KEY", anna.key[::-1])
        assert client("submit", *files) == 2
        said = capsys.readouterr()
        assert said.err.splitlines()[-1] == "refused: this API key isn't known; it is read from DREAMHEAD_API_KEY"
        assert anna.key[::-1] not in said.out + said.err
        assert len(served.harm.seen) == 1
        monkeypatch.setenv("DREAMHEAD_API_KEY", anna.key)
        assert client("submit", *files, "--no-wait") == 0
        assert [record.owner for record in served.store.active()] == ["anna"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["wait", "0" * 43], "refused: there is no job"),
        (["submit", "clip.mp4", "clip.mp4", "--uri"], "refused: video_uri: clip.mp4 isn't below an allowed directory"),
        (["submit", "gone.mp4", "speech.wav"], "ConfigError: gone.mp4: no such file; --uri if the service"),
        (["submit", "s3://b/clip.mp4", "speech.wav"], "either both are uploaded or the service reads both"),
        (["submit", "a", "b", "--segment", "1:2"], "ConfigError: --segment 1:2: must be START-END"),
        (["submit", "a", "b", "--no-wait", "-o", "c"], "ConfigError: --output: the video is there only at the end"),
        (["list", "--server", "ftp://host"], "ConfigError: --server ftp://host: must begin with http://"),
    ],
)
@pytest.mark.usefixtures("served")
def test_wrong_usage_exits_with_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert client(*argv) == 2
    assert said in capsys.readouterr().err


def test_a_redirect_is_told_and_not_followed(served: Online, capsys: pytest.CaptureFixture[str]) -> None:
    served.harm.instead = [307]
    assert client("list") == 2
    assert "refused: the service sends on to None: give its address as --server" in capsys.readouterr().err
    assert len(served.harm.seen) == 1


def test_what_isnt_the_service_is_told(served: Online, capsys: pytest.CaptureFixture[str]) -> None:
    served.harm.instead = [200]
    assert client("list") == 1
    assert "isn't answered as by DreamHead's service: is it one?" in capsys.readouterr().err
