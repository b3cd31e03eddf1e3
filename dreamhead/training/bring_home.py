"""Take what a training on a lent machine gave, in a few small files; and make a checkpoint of them at home.

    python -m dreamhead.training.bring_home RUN/STAGE --out OUT [--part-mb 15]

The parts, joined, are a tar archive: `network/` as diffusers saves it, in half precision, `card.json` with what it was
trained with and how it was judged, `log.jsonl`, `curves.png` and the pictures of the validations.
"""

import argparse
import io
import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dreamhead import checkpoint, storage
from dreamhead.checkpoint import CheckpointConfig
from dreamhead.errors import CheckpointError, TrainingError
from dreamhead.evaluation.plot import plot
from dreamhead.models.autoencoder import LibraryAutoencoder
from dreamhead.training import networks
from dreamhead.training.journal import read_log
from dreamhead.training.networks import KINDS
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import AUTOENCODER, IMAGE, LANDMARKS, MIXER

PART = "brought.tar.{:02d}"
PART_MB = 15
MILLION = 1_000_000


def bring(stage_uri: str, out: Path, part_mb: int = PART_MB) -> list[Path]:
    """Write a stage's best averaged weights and its record into parts of at most `part_mb` million bytes.

    Raises:
        TrainingError: the stage has no checkpoint yet.
    """
    with tempfile.TemporaryDirectory() as folder:
        gathered = Path(folder)
        _gather(RunFolder(stage_uri), gathered)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(gathered, arcname=".")
    data, size = packed.getvalue(), part_mb * MILLION
    out.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, start in enumerate(range(0, len(data), size)):
        path = out / PART.format(number)
        path.write_bytes(data[start : start + size])
        parts.append(path)
    return parts


def unpack(brought: Path, into: Path) -> dict[str, Any]:
    """Join the parts of a folder and unpack them into another; what `card.json` says.

    Raises:
        TrainingError: no parts, or not such an archive.
    """
    parts = sorted(brought.glob(PART.format(0)[:-2] + "*"))
    if not parts:
        raise TrainingError(f"{brought}: no {PART.format(0)}")
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
            archive.extractall(into, filter="data")
        card: dict[str, Any] = json.loads((into / "card.json").read_bytes())
    except (OSError, tarfile.TarError, ValueError) as error:
        raise TrainingError(f"{brought}: {len(parts)} parts don't make an archive of a training: {error}") from error
    return card


def make_checkpoint(brought: Path, base: str, target: Path) -> str:
    """Put a brought network into a copy of a checkpoint; the stage that it is of.

    Args:
        brought: folder of the parts.
        base: checkpoint that gives the other networks; `base` is the bundled one.
        target: directory to write.

    Raises:
        TrainingError, CheckpointError: the parts or the base can't be read, or don't fit each other.
    """
    with tempfile.TemporaryDirectory() as folder:
        card = unpack(brought, Path(folder))
        stage = str(card["stage"])
        opened = networks.open_checkpoint(base)
        _check(card, opened.config, base)
        parts: dict[str, Any] = {
            LANDMARKS: networks.checkpoint_network(base, LANDMARKS),
            IMAGE: networks.checkpoint_network(base, IMAGE),
            AUTOENCODER: _autoencoder(opened),
            MIXER: networks.checkpoint_network(base, MIXER) if opened.has_mixer else None,
        }
        parts[stage] = networks.read_network(str(Path(folder) / "network"), KINDS[stage])
    config = opened.config.model_copy(update={"autoencoder": type(parts[AUTOENCODER]).__name__})
    text = _card_text(card, base)
    checkpoint.save(target, config, parts[LANDMARKS], parts[IMAGE], parts[AUTOENCODER], text, parts[MIXER])
    return stage


def _gather(run: RunFolder, into: Path) -> None:
    steps = run.steps()
    if not steps:
        raise TrainingError(f"{run.uri}: no checkpoint yet")
    record, best = run.record(), run.best()
    step = best.step if best is not None else steps[-1]
    network = KINDS[record["stage"]](**record["settings"]["model"])
    network.load_state_dict(run.load(step)["average"])
    network.half().save_pretrained(into / "network")
    figures = best.figures if best is not None else {}
    card = {**record, "step": step, "last_step": steps[-1], "figures": figures}
    (into / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    (into / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in read_log(run.uri)), encoding="utf-8")
    _write_curves(read_log(run.uri), into / "curves.png")
    for uri in storage.list_files(storage.join(run.uri, "pictures")):
        storage.fetch(uri, into / "pictures" / uri.rpartition("/")[2])


def _write_curves(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Losses and figures of the validations over the lines of the log."""
    panels: dict[str, dict[str, Any]] = {}
    training = [line for line in lines if "loss" in line]
    judged = [line["validation"] for line in lines if "validation" in line]
    for title, rows in (("training: ", training), ("validation: ", judged)):
        for name in dict.fromkeys(name for row in rows for name in row):
            if name not in ("step", "seconds"):
                panels[title + name] = {name: np.array([row.get(name, np.nan) for row in rows], np.float64)}
    cv2.imwrite(str(path), plot(panels, "lines of the log", "")[..., ::-1])


def _check(card: dict[str, Any], config: CheckpointConfig, base: str) -> None:
    for key in ("crop_size", "speech_encoder"):
        if card[key] != getattr(config, key):
            raise CheckpointError(
                f"{key}: trained for {card[key]!r}, the checkpoint {base} is for {getattr(config, key)!r}"
            )


def _autoencoder(opened: checkpoint.Checkpoint) -> Any:
    found: Any = opened.autoencoder(networks.CPU)
    return networks.without_origin(found.autoencoder if isinstance(found, LibraryAutoencoder) else found)


def _card_text(card: dict[str, Any], base: str) -> str:
    figures = "\n".join(f"| validation: {name} | {value:.4g} |" for name, value in card["figures"].items())
    settings = json.dumps(card["settings"], indent=2)
    return (
        f"# Checkpoint\n\nThe networks of the checkpoint `{base}`, but for `{card['stage']}`.\n\n"
        f"## {card['stage']}\n\n| | |\n|---|---|\n| data | `{card['data']}` |\n"
        f"| steps | {card['last_step']}; the weights are those after {card['step']}, averaged |\n{figures}\n\n"
        f"```json\n{settings}\n```\n\n"
        "Data keep their owners' licences; say here which they are before you pass these weights on.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command at the top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", help="directory of the run's stage")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part-mb", type=int, default=PART_MB)
    arguments = parser.parse_args(argv)
    bring(storage.resolve(arguments.stage, "."), arguments.out, arguments.part_mb)


if __name__ == "__main__":
    main()
