"""What the page asks for, over real HTTP: an order, videos that don't say whose they are, votes; and the command."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from dreamhead.cli import main
from dreamhead.evaluation.blind.ballot import order_for

Hall = Any  # The fixture's own class; conftest modules can't be imported.


def ask(url: str, body: object = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of one request."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **named})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read(), {name.lower(): value for name, value in reply.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, error.read(), {}


def state(hall: Hall, judge: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(f"{hall.url}state?{urlencode({'judge': judge})}")[1])
    return found


def test_a_judge_votes_on_each_pair_and_is_told_who_was_who_at_the_end(hall: Hall) -> None:
    judge = "Anna O'Neill – 木"
    assert state(hall, judge) == {"pairs": 3, "done": 0, "next": 0}
    order = order_for(judge, [one.clip for one in hall.dubs], 1)
    for number, shown in enumerate(order):
        for side in ("left", "right"):
            status, got, headers = ask(f"{hall.url}video/{number}/{side}?{urlencode({'judge': judge})}")
            dubs = next(one for one in hall.dubs if one.clip == shown.clip)
            assert (status, headers["content-type"]) == (200, "video/mp4")
            assert got == dubs.file(shown.on(side)).read_bytes()
            assert not {"etag", "last-modified", "content-disposition"} & headers.keys()
        side = "left" if shown.left == "a" else "right"
        choice = side if number < 2 else "equal"
        told = json.loads(
            ask(f"{hall.url}votes", {"judge": judge, "number": number, "choice": choice, "seconds": 4})[1]
        )
        assert told["done"] == number + 1
        assert ("result" in told) == (number == 2)
    assert {key: told["result"][key] for key in ("names", "a", "b", "equal", "share")} == {
        "names": ["dubs/dark", "dubs/bright"], "a": 2, "b": 0, "equal": 1, "share": 1.0,
    }  # fmt: skip
    assert told["result"]["low"] == pytest.approx(0.342, abs=1e-3)
    assert told["result"]["p_value"] == 0.5
    # Another judge begins anew.
    assert state(hall, "Bela") == {"pairs": 3, "done": 0, "next": 0}
    assert [vote.preferred for vote in hall.book.votes()] == ["a", "a", "equal"]


def test_a_pair_is_voted_on_anew(hall: Hall) -> None:
    ask(f"{hall.url}votes", {"judge": "x", "number": 1, "choice": "left"})
    assert state(hall, "x") == {"pairs": 3, "done": 1, "next": 0}
    ask(f"{hall.url}votes", {"judge": " x ", "number": 1, "choice": "equal"})
    assert [vote.preferred for vote in hall.book.votes()] == ["equal"]


def test_a_part_of_a_video_may_be_asked_for(hall: Hall) -> None:
    status, got, headers = ask(f"{hall.url}video/0/left?judge=x", Range="bytes=10-19")
    assert (status, len(got)) == (206, 10)
    assert headers["content-range"].startswith("bytes 10-19/")


def test_what_isnt_right_is_refused_and_nothing_is_written(hall: Hall) -> None:
    good = {"judge": "x", "number": 0, "choice": "left"}
    for change, told in (
        ({"choice": "a"}, b"'left', 'right' or 'equal'"),
        ({"judge": "  "}, b"1 to 60 printable characters"),
        ({"judge": "x" * 61}, b"at most 60 characters"),
        ({"judge": "a\x00b"}, b"printable"),
        ({"number": -1}, b"greater than or equal to 0"),
        ({"number": 3}, b"there are 3 pairs, numbered from 0; got 3"),
        ({"more": 1}, b"Extra inputs"),
    ):
        status, said, _ = ask(f"{hall.url}votes", good | change)
        assert status in (404, 422)
        assert told in said
    assert ask(f"{hall.url}video/9/left?judge=x")[0] == 404
    assert ask(f"{hall.url}video/0/top?judge=x")[0] == 422
    assert ask(f"{hall.url}page/..%2fapp.py")[0] == 404
    assert ask(f"{hall.url}page/nothing.js")[0] == 404
    assert hall.book.votes() == []


def test_other_sites_are_refused(hall: Hall) -> None:
    vote = {"judge": "x", "number": 0, "choice": "left"}
    assert ask(f"{hall.url}votes", vote, Origin="https://elsewhere.example")[0] == 403
    assert ask(f"{hall.url}votes", vote, Origin="null")[0] == 403
    # A name of theirs that they let point at this machine.
    assert ask(f"{hall.url}state?judge=x", Host="elsewhere.example")[0] == 403
    assert hall.book.votes() == []
    assert ask(f"{hall.url}votes", vote, Origin=hall.url.rstrip("/"))[0] == 200
    policy = ask(hall.url)[2]["content-security-policy"]
    assert "default-src 'self'" in policy


def test_the_command_serves_and_counts(hall: Hall, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for which in ("a", "b"):
        folder = tmp_path / f"take {which}"
        folder.mkdir()
        for one in hall.dubs:
            (folder / f"{one.clip}.mp4").write_bytes(one.file(which).read_bytes())
    arguments = ["judge", str(tmp_path / "take a"), str(tmp_path / "take b"), "--output", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; from dreamhead.cli import main; sys.exit(main())", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    ) as command:
        try:
            assert command.stderr is not None
            said = command.stderr.readline()
            found = re.search(r"3 pairs to judge at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it; votes go to ", said)
            assert found, said
            for number, shown in enumerate(order_for("Zoë", [one.clip for one in hall.dubs], 0)[:2]):
                choice = "left" if shown.left == "b" else "right"
                assert ask(f"{found[1]}votes", {"judge": "Zoë", "number": number, "choice": choice})[0] == 200
            command.send_signal(signal.SIGINT)
            output, errors = command.communicate(timeout=60)
        finally:
            command.kill()
    assert command.returncode == 0, errors
    assert "Traceback" not in errors
    rows = {line.split("  ")[0]: re.findall(r"\d[\d.e-]*", line.partition("  ")[2]) for line in output.splitlines()}
    # Pairs of all, the first better, no difference, the second better, share and interval, p.
    assert rows["Zoë"] == ["2", "3", "0", "0", "2", "0", "0", "66", "0.5"]
    assert rows["all votes"] == ["2", "0", "0", "2", "0", "0", "66", "0.5"]
    assert main([*arguments, "--result"]) == 0
    assert "Zoë" in capfd.readouterr().out


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", str(tmp_path / "none"), str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert f"InputError: {tmp_path}/none: no videos there; allowed: a video or a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_name_in_an_address_is_the_name(hall: Hall) -> None:
    name = "a&b=c#d/ü"
    ask(f"{hall.url}votes", {"judge": name, "number": 0, "choice": "equal"})
    assert json.loads(ask(f"{hall.url}state?judge={quote(name, safe='')}")[1])["done"] == 1
