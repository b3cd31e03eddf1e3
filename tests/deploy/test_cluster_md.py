"""`docs/cluster.md`: its commands parse, its files exist, its limits are the code's, and its sums add up."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer
from ray.dashboard.modules.job.cli import job_cli_group
from ray.scripts import scripts

from dreamhead.cli import app
from dreamhead.cluster.batch import _parser
from dreamhead.config import PoolsSettings
from tests.deploy.documents import ROOT, read_yaml

TEXT = (ROOT / "docs" / "cluster.md").read_text()
BLOCKS = [block.strip().splitlines() for block in re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)]
COMMANDS: dict[str, click.Command] = {
    "ray up": scripts.up,
    "ray down": scripts.down,
    "ray dashboard": scripts.dashboard,
    "ray exec": scripts.exec,
    "ray attach": scripts.attach,
    "ray get-auth-token": scripts.get_auth_token,
    "ray job submit": job_cli_group.commands["submit"],
    "ray job logs": job_cli_group.commands["logs"],
    "ray job stop": job_cli_group.commands["stop"],
}


def test_from_nothing_to_a_finished_manifest_takes_less_than_ten_commands() -> None:
    assert all(len(block) < 10 for block in BLOCKS)


def lines() -> list[str]:
    """Commands of Ray and of DreamHead, those within sentences too."""
    parts = (part.strip() for block in BLOCKS for line in block for part in line.split("&&"))
    blocks = [re.sub(r"( \d?[<>]\S+)* &$", "", part) for part in parts]
    spoken = re.findall(r"`((?:ray|dreamhead) [^`]+)`", TEXT)
    return [line for line in (*blocks, *spoken) if line.startswith(("ray ", "dreamhead "))]


@pytest.mark.parametrize("line", lines())
def test_a_command_parses(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "dreamhead":
        group: Any = typer.main.get_command(app)
        name, command, size = f"dreamhead {words[1]}", group.commands[words[1]], 2
    else:
        size = 3 if words[1] == "job" else 2
        name, command = " ".join(words[:size]), COMMANDS[" ".join(words[:size])]
    context = command.make_context(name, words[size:] or ["cluster.yaml"], resilient_parsing=len(words) < 4)
    assert not context.args


def test_the_job_that_is_submitted_is_the_rayjobs() -> None:
    line = next(line for line in lines() if line.startswith("ray job submit"))
    entrypoint = line.partition(" -- ")[2].split()
    assert entrypoint == read_yaml("deploy/rayjob.yaml")["spec"]["entrypoint"].split()
    given = _parser().parse_args(entrypoint[2:])
    assert given.manifest == "s3://my-bucket/manifest.parquet"
    assert "--retry-failed" in TEXT
    assert _parser().parse_args(["m.csv", "--retry-failed", "--clean"])


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:docker|deploy|configs|docs)/[\w./]+)`", TEXT))))
def test_a_file_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize(("name", "limit"), re.findall(r"^\| `pools\.(\w+)` \| (\d+) \|", TEXT, re.MULTILINE))
def test_a_limit_is_the_codes(name: str, limit: str) -> None:
    assert getattr(PoolsSettings(), name) == float(limit)


def test_the_limits_are_those_of_the_pools() -> None:
    told = set(re.findall(r"^\| `pools\.(\w+)` \| \d", TEXT, re.MULTILINE))
    limits = {name for name in PoolsSettings.model_fields if name.startswith("max_") or name.endswith("timeout_s")}
    assert told == limits


def costs() -> Iterator[list[float]]:
    for row in re.findall(r"^\| (\d+) \| \$(.*) \|$", TEXT, re.MULTILINE):
        yield [float(row[0]), *(float(price) for price in row[1].split(" | $"))]


@pytest.mark.parametrize(("speed", "render", "analysis", "head", "total"), list(costs()))
def test_an_hours_costs_add_up(speed: float, render: float, analysis: float, head: float, total: float) -> None:
    rate, gpu, core, vcpus, gpus = 25, 0.45, 0.02, 2, 40
    exact = rate / speed * gpu, 2 * rate / 39.4 * vcpus * core, 0.20 / (gpus * speed / rate)
    assert (render, analysis, head) == pytest.approx(exact, abs=6e-4)
    assert total == pytest.approx(sum(exact) * 1.1, abs=6e-3)


def test_the_speeds_are_the_readmes() -> None:
    readme = (ROOT / "README.md").read_text()
    analyse, *_, everything = re.findall(r"^\| (39\.4) frames/s \|.*\| ([\d.]+) \|$", readme, re.MULTILINE)[0]
    assert f"/ {analyse} *" in TEXT
    assert f"README's {everything} frames/s" in TEXT
