"""`docker/Dockerfile`, as far as it can be judged without Docker: what it names exists, and agrees with the rest."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import metadata

import pytest
from packaging.specifiers import SpecifierSet

from dreamhead import __version__
from tests.deploy.documents import ROOT, read_yaml

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
INSTRUCTIONS = {"ARG", "FROM", "USER", "RUN", "WORKDIR", "ENV", "COPY"}
CONSTRAINTS = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
IMAGE = f"example.com/dreamhead:{__version__}"

Instruction = tuple[str, str]


def test_the_dockerfile_holds_together() -> None:
    assert problems(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("COPY --chown=1000:100 configs", "COPPY configs", "COPPY is no instruction"),
        ("configs ./configs", "config ./configs", "config isn't in the repository"),
        ("configs ./configs", "docs ./docs", "docs is kept from the builder by .dockerignore"),
        ("libegl1 ", "", "scripts/setup installs libgl1 libegl1 libgles2 libglib2.0-0"),
        (".[offline]", ".[ofline]", "extra ofline isn't in pyproject.toml"),
        ('" boto3', '" botto3', "botto3 isn't in constraints.txt"),
        ("--constraint constraints.txt ", "", "pip installs without constraints.txt"),
        ("2.60.0-py311", "2.59.0-py311", "Ray 2.59.0, constraints.txt has 2.60.0"),
        ("2.60.0-py311", "2.60.0-py39", "Python 3.9, pyproject.toml wants >=3.10"),
        ("USER ray\n", "", "runs as root"),
        ("whisper_base; ", "whisper_bass; ", "dreamhead.pretrained has no whisper_bass"),
    ],
)
def test_a_slip_is_noticed(right: str, wrong: str, problem: str) -> None:
    assert DOCKERFILE.count(right) == 1, right
    assert problem in problems(DOCKERFILE.replace(right, wrong))


def test_every_file_runs_the_image_that_is_built() -> None:
    assert f"-t {IMAGE} ." in DOCKERFILE.splitlines()[0]
    used = {read_yaml("cluster.yaml")["docker"]["image"]}
    for name in ("rayjob", "rayservice"):
        used |= set(
            re.findall(r"^ *image: (?:&image )?([^*\s]+)$", (ROOT / "deploy" / f"{name}.yaml").read_text(), re.M)
        )
    assert used == {IMAGE}


def test_what_runs_in_the_image_is_in_it() -> None:
    folder = next(value for name, value in instructions(DOCKERFILE) if name == "WORKDIR")
    entrypoint = read_yaml("deploy/rayjob.yaml")["spec"]["entrypoint"].split()
    inside = [word.removeprefix(f"{folder}/") for word in entrypoint if word.startswith(folder)]
    assert inside == ["ray_jobs/batch_render.py", "configs/dub_farm.yaml"]
    copied = [source for source, _ in copies(instructions(DOCKERFILE))]
    for name in inside:
        assert (ROOT / name).is_file()
        assert name.split("/")[0] in copied


def problems(text: str) -> list[str]:
    """What doesn't agree with the repository, or is no Dockerfile."""
    lines = list(instructions(text))
    found = [f"{name} is no instruction" for name, _ in lines if name not in INSTRUCTIONS]
    commands = " && ".join(value for name, value in lines if name == "RUN")
    found += wrong_base(dict(lines)["ARG"]) + wrong_libraries(commands)
    found += [*wrong_copies(lines), *wrong_packages(commands), *wrong_python(commands)]
    if [value for name, value in lines if name == "USER"][-1] == "root":
        found.append("runs as root")
    return found


def instructions(text: str) -> list[Instruction]:
    """Name and value of each instruction, comments left out, continued lines joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", kept)
    return [(name, value) for name, _, value in (line.partition(" ") for line in joined.splitlines() if line)]


def wrong_base(argument: str) -> list[str]:
    match = re.fullmatch(r"RAY_IMAGE=rayproject/ray:([\d.]+)-py(\d)(\d+)", argument)
    if match is None:
        return [f"{argument} is no image of Ray with its Python"]
    ray, python = match[1], f"{match[2]}.{match[3]}"
    allowed = metadata("dreamhead")["Requires-Python"]
    found = [] if ray == CONSTRAINTS["ray"] else [f"Ray {ray}, constraints.txt has {CONSTRAINTS['ray']}"]
    return found if python in SpecifierSet(allowed) else [*found, f"Python {python}, pyproject.toml wants {allowed}"]


def copies(lines: list[Instruction]) -> Iterator[tuple[str, str]]:
    """Source and target of what is copied."""
    for name, value in lines:
        if name == "COPY":
            *sources, target = [word for word in shlex.split(value) if not word.startswith("--")]
            yield from ((source, target) for source in sources)


def wrong_copies(lines: list[Instruction]) -> Iterator[str]:
    for source, _ in copies(lines):
        if not (ROOT / source).exists():
            yield f"{source} isn't in the repository"
        elif ignored(source):
            yield f"{source} is kept from the builder by .dockerignore"


def ignored(path: str) -> bool:
    """As Docker reads .dockerignore: the last pattern that fits decides."""
    verdict = False
    for pattern in (ROOT / ".dockerignore").read_text().split("\n"):
        if pattern and not pattern.startswith("#") and fnmatch(path, pattern.removeprefix("!")):
            verdict = not pattern.startswith("!")
    return verdict


def wrong_libraries(commands: str) -> list[str]:
    wanted = re.search(r"packages=\((.*)\)", (ROOT / "scripts" / "setup").read_text())
    got = re.search(r"--no-install-recommends +(.*?) *&&", commands)
    assert wanted
    assert got
    return [] if got[1].split() == wanted[1].split() else [f"scripts/setup installs {wanted[1]}"]


def wrong_packages(commands: str) -> Iterator[str]:
    words = next(shlex.split(command) for command in commands.split("&&") if "pip install" in command)
    if "--constraint" not in words:
        yield "pip installs without constraints.txt"
    extras = re.search(r"\.\[(.*)\]", commands)
    for extra in extras[1].split(",") if extras else ():
        if extra not in (metadata("dreamhead").get_all("Provides-Extra") or ()):
            yield f"extra {extra} isn't in pyproject.toml"
    for word in words[words.index("install") + 1 :]:
        if word.isidentifier() and word not in CONSTRAINTS:
            yield f"{word} isn't in constraints.txt"


def wrong_python(commands: str) -> Iterator[str]:
    """Names that the image's own line of Python imports, and the package lacks."""
    line = re.search(r'python -c "(.*?)"', commands)
    assert line
    for node in ast.walk(ast.parse(line[1])):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            yield from (f"{node.module} has no {name.name}" for name in node.names if not hasattr(module, name.name))
