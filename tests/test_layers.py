"""Imports point down, and Ray stays in its rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dreamhead"

LAYERS = (
    ("errors", "config", "records"),
    ("disk", "scratch", "s3_errors", "object_store", "storage", "versioned", "pretrained", "media", "faces"),
    ("models", "diffusion"),
    ("checkpoint", "pipelines"),
    ("training", "stages", "evaluation", "provenance"),
    ("cluster", "serving"),
    ("client",),
    ("cli", "demo"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
NEVER = {("diffusion", "models"), ("pipelines", "training"), ("models", "media")}
RAY_ROOMS = {"cluster", "serving"}


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, those inside functions too; a relative one begins with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def fault(room: str, imported: str) -> str:
    """What is wrong with this import in a room of the package; empty when nothing is."""
    parts = imported.split(".")
    if imported.startswith("."):
        return "relative"
    if parts[0] == "ray":
        return "" if room in RAY_ROOMS else "ray outside cluster and serving"
    if parts[0] != "dreamhead" or parts[1:] in ([], ["__version__"]):
        return ""
    if parts[1] not in LEVEL:
        return "a room without a layer"
    if LEVEL[parts[1]] > LEVEL[room]:
        return "points up"
    return "forbidden pair" if (room, parts[1]) in NEVER else ""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in LEVEL, f"{path}: give {room} a layer in LAYERS"
    found = ((line, name, fault(room, name)) for line, name in imports(path.read_text()))
    faults = [f"{path}:{line}: {name}: {problem}" for line, name, problem in found if problem]
    assert faults == []


def test_the_package_itself_is_light() -> None:
    heavy = {"torch", "ray", "cv2", "mediapipe"}
    assert not {name.split(".")[0] for _, name in imports((PACKAGE / "__init__.py").read_text())} & heavy


@pytest.mark.parametrize(
    ("room", "line", "problem"),
    [
        ("media", "import ray", "ray outside cluster and serving"),
        ("cluster", "from ray import data", ""),
        ("models", "from dreamhead.cluster import batch", "points up"),
        ("models", "from dreamhead.media.video import Video", "forbidden pair"),
        ("diffusion", "import dreamhead.models.unet", "forbidden pair"),
        ("pipelines", "from dreamhead import checkpoint", ""),
        ("pipelines", "from . import speech", "relative"),
        ("cli", "def f():\n    from dreamhead.attic import old", "a room without a layer"),
    ],
)
def test_the_rule_finds(room: str, line: str, problem: str) -> None:
    (_, name) = next(imports(line))
    assert fault(room, name) == problem
