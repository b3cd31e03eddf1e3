"""Read what two sets of dubs hold, and match them clip by clip, for a blind comparison."""

import posixpath
from pathlib import Path, PurePosixPath

from dreamhead import storage
from dreamhead.cluster.judged_clips import LISTS, VIDEOS
from dreamhead.cluster.rows import read_rows
from dreamhead.errors import InputError, ManifestError
from dreamhead.evaluation.blind.ballot import Dubs

TOLD = 3
"""Names that a message gives as examples."""


def match_dubs(a: str, b: str, scratch: Path) -> tuple[list[Dubs], list[str]]:
    """Pairs of dubs of the same clip, by the files' names, and what to tell people of those without a partner.

    Args:
        a: a video, a folder of videos, or a list (.parquet, .csv, .jsonl) with the column output_uri: a manifest, or
            a run's results, of which failed rows are left out.
        b: likewise.
        scratch: where videos of an object store are brought.

    Raises InputError or ManifestError that says what is wrong with which.
    """
    if _is_video(a) != _is_video(b):
        single, several = (a, b) if _is_video(a) else (b, a)
        raise InputError(f"{single} is one video and {several} isn't; give two videos, or two folders or lists")
    first, second = (_found(uri) for uri in (a, b))
    if _is_video(a):
        first, second = ({"clip": uri} for found in (first, second) for uri in found.values())
    both = sorted(first.keys() & second.keys())
    if not both:
        raise InputError(
            f"no video of {a} has the name of one of {b}: {_examples(first)}, and {_examples(second)}; "
            "dubs of one clip need one name (suffixes don't count)"
        )
    dubs = [
        Dubs(name, _local(first[name], scratch / "a", number), _local(second[name], scratch / "b", number))
        for number, name in enumerate(both)
    ]
    alike = [one for one in dubs if len({storage.content_digest(str(file)) for file in (one.a, one.b)}) == 1]
    if len(alike) == len(dubs):
        raise InputError(f"{a} and {b} hold the same videos: there is nothing to compare")
    notes = [f"{_examples([one.clip for one in alike])}: the same video in both, left out"] if alike else []
    lonely = [(a, sorted(first.keys() - second.keys()), b), (b, sorted(second.keys() - first.keys()), a)]
    notes += [
        f"{len(names)} of {uri} have no partner in {other} and are left out: {_examples(names)}"
        for uri, names, other in lonely
        if names
    ]
    return [one for one in dubs if one not in alike], notes


def _is_video(uri: str) -> bool:
    return uri.lower().endswith(VIDEOS) and (storage.is_remote(uri) or not Path(storage.local_path(uri)).is_dir())


def _found(uri: str) -> dict[str, str]:
    """Videos by their name without its suffix: below their folder, or below the deepest that holds all of a list."""
    if _is_video(uri):
        if not storage.exists(uri):
            raise InputError(f"{uri}: no such video")
        return {PurePosixPath(uri).stem: uri}
    is_list = uri.lower().endswith(LISTS)
    found = _listed(uri) if is_list else _in_folder(uri)
    if not found:
        raise InputError(
            f"{uri}: no videos there; allowed: a video or a folder of them ({', '.join(VIDEOS)}), "
            f"or a list of them ({', '.join(LISTS)})"
        )
    folder = posixpath.commonpath([posixpath.dirname(file) for file in found]) if is_list else uri.rstrip("/")
    names: dict[str, str] = {}
    for file in found:
        name = file.removeprefix(folder).lstrip("/").rpartition(".")[0]
        if name in names:
            raise InputError(f"{uri}: {names[name]} and {file} differ in nothing but their suffix; one clip, one dub")
        names[name] = file
    return names


def _in_folder(uri: str) -> list[str]:
    """The videos in a folder; where it has none, those in the folders below it."""
    folder = uri.rstrip("/") + "/"
    videos = [file for file in storage.list_files(uri) if file.lower().endswith(VIDEOS)]
    direct = [file for file in videos if "/" not in file.removeprefix(folder)]
    return direct or videos


def _listed(uri: str) -> list[str]:
    rows = read_rows(uri)
    if not rows or not all("output_uri" in row for row in rows):
        raise ManifestError(f"{uri}: no rows with the column output_uri; a manifest or a run's results are needed")
    base = uri.rpartition("/")[0] or "."
    outputs = [str(row["output_uri"]) for row in rows if row["output_uri"] and row.get("status") != "failed"]
    found = [storage.resolve(output, base) for output in outputs]
    gone = [output for output in found if not storage.exists(output)]
    if gone:
        raise InputError(f"{uri}: {len(gone)} of its outputs aren't there: {_examples(gone)}")
    return found


def _local(uri: str, folder: Path, number: int) -> Path:
    if not storage.is_remote(uri):
        return storage.local_path(uri)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}{PurePosixPath(uri).suffix}"
    storage.fetch(uri, path)
    return path


def _examples(names: "dict[str, str] | list[str]") -> str:
    shown = sorted(names)
    more = f" and {len(shown) - TOLD} more" if len(shown) > TOLD else ""
    return ", ".join(shown[:TOLD]) + more
