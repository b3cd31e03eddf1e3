"""Make the folder that goes to a lent machine: packages, data, a manifest; say what takes how much.

    scripts/pack_gpu DATA --stage landmark_to_image
    scripts/pack_gpu --stage audio_to_landmark --without av DATA
    scripts/pack_gpu                        # packages only, for tests and benchmarks

DATA is made by ray_jobs/prepare_dataset.py. What lies in the output folder under the same names is replaced.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamhead.errors import ConfigError, DreamheadError, WeightsUnavailableError
from dreamhead.models.perceptual import default_weights
from dreamhead.training.packed import INDEX
from dreamhead.training.packing import Packed, Packing, pack
from dreamhead.training.settings import IMAGE, MIXER, STAGES
from scripts.bare_site import PACKAGES, make_site, pinned

ROOT = Path(__file__).parents[1]
LIMIT_BYTES = 64 * 2**20
"""What travels to a lent machine, all together."""
RESERVE_BYTES = 256 * 1024
"""Left free: the manifest, and what git lists tomorrow."""
CRF = 18
"""benchmarks/packing.py found up to 23 to cost less than 0.1 dB; less loss leaves more detail to learn, docs/gpu.md."""
PERCEPTUAL = "vgg16_features.safetensors"
"""As configs/gpu.yaml names it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Make the folder; 0 when it is whole, 2 with one line that says why it isn't."""
    arguments = _parser().parse_args(argv)
    try:
        _make(arguments)
    except DreamheadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pack_gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", default="", metavar="DATA", help="prepared data set; none: packages only")
    parser.add_argument("--out", type=Path, default=ROOT / ".gpu", help="folder to make; default: .gpu in the checkout")
    stages = (*STAGES, MIXER)
    parser.add_argument("--stage", action="append", choices=stages, help=f"what the data serves; default: {IMAGE}")
    parser.add_argument("--crf", type=int, default=CRF, help=f"loss of the pictures, more is smaller; default: {CRF}")
    parser.add_argument("--picture-step", type=int, default=1, metavar="N", help="keep every Nth picture")
    parser.add_argument(
        "--max-enlarged",
        type=float,
        default=1.3,
        metavar="N",
        help="pictures of faces that were enlarged more are soft, and left out; default: 1.3",
    )
    parser.add_argument("--variants", type=int, default=2, metavar="N", help="most encodings of a clip's speech")
    parser.add_argument("--budget-mb", type=float, metavar="MIB", help="of the folder; default: what is left of 64 MiB")
    parser.add_argument("--python", default="3.12", metavar="3.N", help="the machine's Python; default: 3.12")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help=f"of {', '.join(PACKAGES)}")
    return parser


def _make(arguments: argparse.Namespace) -> None:
    for name in ("picture_step", "variants"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: allowed: 1 or more")
    out, beside = arguments.out, checkout_bytes(ROOT)
    free = LIMIT_BYTES - beside - RESERVE_BYTES
    budget = free if arguments.budget_mb is None else round(arguments.budget_mb * 2**20)
    versions = pinned(ROOT / "constraints.txt", arguments.python, arguments.without)
    make_site(versions, arguments.python, out / "site.tar.xz")
    site = (out / "site.tar.xz").stat().st_size
    manifest: dict[str, Any] = {**_commit(), "site": {"python": arguments.python, "bytes": site, "versions": versions}}
    _show("site.tar.xz", site, ", ".join(f"{name} {version}" for name, version in versions.items()))
    _remove_data(out / "data")
    _bring_perceptual(arguments, out / PERCEPTUAL)
    if arguments.data:
        manifest["data"] = _pack_data(arguments, out / "data", budget - folder_bytes(out))
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    _show_total(out, beside, budget)


def _bring_perceptual(arguments: argparse.Namespace, target: Path) -> None:
    """What the mixer's loss sees pictures with, where the mixer is trained."""
    target.unlink(missing_ok=True)
    if MIXER not in (arguments.stage or []):
        return
    source = default_weights()
    if not source.is_file():
        raise WeightsUnavailableError(f"{source}: no such file; scripts/make_perceptual makes it")
    shutil.copyfile(source, target)
    _show(target.name, target.stat().st_size, "for the perceptual loss")


def _pack_data(arguments: argparse.Namespace, target: Path, budget: int) -> dict[str, Any]:
    packing = Packing(
        stages=tuple(arguments.stage or [IMAGE]),
        crf=arguments.crf,
        picture_step=arguments.picture_step,
        variants=arguments.variants,
        budget_bytes=budget,
        max_enlarged=arguments.max_enlarged,
    )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".data-") as scratch:
        packed = pack(arguments.data, Path(scratch) / "data", packing, lambda line: print(f"  {line}", flush=True))
        (Path(scratch) / "data").rename(target)
    told = _told(packed)
    size = folder_bytes(target)
    _show("data", size, f"{told['clips']} clips, {told['frames']} frames of {told['speakers']} speakers")
    if packed.left_out:
        print(
            f"  left out, soft or no room: {len(packed.left_out)} clips, "
            f"{sum(clip.info.frames for clip in packed.left_out)} frames"
        )
    how = {"stages": packing.stages, "crf": packing.crf, "picture_step": packing.picture_step}
    return {"from": arguments.data, "bytes": size, **how, "variants": packing.variants, **told}


def _told(packed: Packed) -> dict[str, Any]:
    infos = [clip.info for clip in packed.kept]
    frames: Counter[str] = Counter()
    for info in infos:
        frames[info.speaker] += info.frames
    return {
        "clips": len(infos),
        "frames": sum(frames.values()),
        "speakers": len(frames),
        "frames_of": dict(sorted(frames.items())),
        "left_out": [clip.info.clip_id for clip in packed.left_out],
    }


def _remove_data(folder: Path) -> None:
    """Only what was packed here before: never another's folder."""
    if not folder.exists():
        return
    if not (folder / INDEX).is_file():
        raise ConfigError(f"{folder}: holds no {INDEX}, so it wasn't packed here; move it away or choose another --out")
    shutil.rmtree(folder)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def checkout_bytes(root: Path) -> int:
    """Bytes of what travels with every call: files that git tracks or doesn't ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    paths = {root / name for name in listed.stdout.decode().split("\0") if name}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _commit() -> dict[str, Any]:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    return {"commit": git("rev-parse", "HEAD"), "changed_since": bool(git("status", "--porcelain"))}


def _show_total(out: Path, beside: int, budget: int) -> None:
    total = folder_bytes(out)
    _show(str(out), total, f"of {budget:,}")
    _show("checkout", beside, "travels too")
    _show("room left", LIMIT_BYTES - beside - total, f"of {LIMIT_BYTES:,}")
    if total > budget:
        raise ConfigError(f"{out}: {total:,} bytes, over the budget of {budget:,}: leave packages out by --without")
    if total + beside > LIMIT_BYTES:
        raise ConfigError(f"{out}: {total:,} bytes and the checkout's {beside:,} are over {LIMIT_BYTES:,}")


def _show(what: str, size: int, note: str) -> None:
    print(f"{what:14} {size:>12,} bytes  {note}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
