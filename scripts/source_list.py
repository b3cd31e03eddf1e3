"""List the videos of folders in a table for ray_jobs/prepare_dataset.py.

    scripts/list_sources videos/ --output sources.csv
    scripts/list_sources videos/ more/ --table people.csv --table more/clips.tsv \\
        --leave-out C --pictures-only 'B,Dubbed*' --output sources.csv

A --table, .csv or .tsv, says who speaks in a file. It must have the columns `file` (its name, or the end of its path)
and `speaker`; `class`, `spoken` and `split` are read where they are there. A file that no table names is its own
speaker, by its name without suffix. --leave-out and --pictures-only take classes and patterns of file names, with
commas between.
"""

import argparse
import csv
import io
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dreamhead import storage
from dreamhead.cluster.sources import TRUTHS, VIDEOS
from dreamhead.errors import DreamheadError, ManifestError
from dreamhead.stages.preparation.source import stem_of
from dreamhead.training.dataset import SPLITS

COLUMNS = ("video_uri", "speaker", "spoken", "split")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
NAMED = 5
"""Most files that a message names."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a table says of one file."""

    file: str
    speaker: str
    kind: str = ""
    """The column `class`."""
    spoken: bool = True
    split: str = ""

    def names(self, uri: str) -> bool:
        """Whether this is the file at `uri`."""
        return f"/{uri}".endswith(f"/{self.file}")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table; 0 when it is there, 2 with one line that says why it isn't."""
    arguments = _parser().parse_args(argv)
    try:
        known = [row for uri in arguments.table for row in read_table(uri)]
        rows = list_sources(arguments.folders, known, _words(arguments.leave_out), _words(arguments.pictures_only))
        storage.write_bytes(storage.resolve(arguments.output, "."), _csv(rows))
    except DreamheadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    speakers, silent = {row["speaker"] for row in rows}, sum(row["spoken"] == "false" for row in rows)
    print(f"{arguments.output}: {len(rows)} files of {len(speakers)} speakers, {silent} of them for pictures only")
    return 0


def read_table(uri: str) -> list[Known]:
    """What a .csv or .tsv says of files; raises ManifestError naming the line."""
    delimiter = DELIMITERS.get("." + uri.rpartition(".")[2].lower())
    if delimiter is None:
        raise ManifestError(f"{uri}: unknown kind of table; allowed: {', '.join(DELIMITERS)}")
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{uri}: not UTF-8: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    missing = {"file", "speaker"} - set(reader.fieldnames or ())
    if missing:
        raise ManifestError(f"{uri}: no column {', '.join(sorted(missing))}; it has {reader.fieldnames}")
    return [_known(row, f"{uri}: line {reader.line_num}") for row in reader]


def list_sources(
    folders: Iterable[str], known: Sequence[Known], leave_out: Sequence[str], pictures_only: Sequence[str]
) -> list[dict[str, str]]:
    """Rows of COLUMNS for the videos of folders, folder by folder, by path.

    Args:
        leave_out: classes and patterns of file names that aren't listed.
        pictures_only: the same, of those whose sound isn't the speech of the face that is seen.

    Raises:
        ManifestError: a folder has no videos, it isn't sure who speaks in a file, or a table names one that isn't
            there.
    """
    rows, found, unnamed = [], set(), defaultdict(list)
    for uri in (uri for folder in folders for uri in _videos(folder)):
        of_it = [row for row in known if row.names(uri)]
        if len(set(of_it)) > 1:
            raise ManifestError(
                f"{uri}: the tables have {len(of_it)} rows for it that differ; name it by more of its path"
            )
        found.update(of_it)
        its = of_it[0] if of_it else Known(file=uri, speaker=stem_of(uri))
        if _is_among(its, uri, leave_out):
            continue
        if not of_it:
            unnamed[its.speaker].append(uri)
        spoken = its.spoken and not _is_among(its, uri, pictures_only)
        values = (uri, its.speaker, "true" if spoken else "false", its.split)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    _check_unnamed(unnamed)
    _check_all_found(row.file for row in known if row not in found and not _is_among(row, row.file, leave_out))
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="list_sources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="searched to its depths; a path or s3://")
    parser.add_argument("--output", required=True, help="the table to write, .csv")
    parser.add_argument("--table", action="append", default=[], metavar="FILE", help="who speaks; may be repeated")
    parser.add_argument("--leave-out", action="append", default=[], metavar="WORDS", help="what isn't listed")
    parser.add_argument(
        "--pictures-only", action="append", default=[], metavar="WORDS", help="whose sound isn't their speech"
    )
    return parser


def _words(given: Iterable[str]) -> list[str]:
    return [word.strip() for part in given for word in part.split(",") if word.strip()]


def _known(row: dict[str, str | None], where: str) -> Known:
    values = {name: (row.get(name) or "").strip() for name in ("file", "speaker", "class", "spoken", "split")}
    if not values["file"] or not values["speaker"]:
        raise ManifestError(f"{where}: file and speaker must be given")
    if values["spoken"].lower() not in ("", *TRUTHS):
        raise ManifestError(f"{where}: spoken must be true or false, got {values['spoken']!r}")
    if values["split"] not in ("", *SPLITS):
        raise ManifestError(f"{where}: split must be {' or '.join(SPLITS)}, got {values['split']!r}")
    spoken = TRUTHS.get(values["spoken"].lower(), True)
    return Known(
        file=values["file"], speaker=values["speaker"], kind=values["class"], spoken=spoken, split=values["split"]
    )


def _videos(folder: str) -> list[str]:
    base = storage.resolve(folder, ".").rstrip("/")
    found = [uri for uri in storage.list_files(base) if uri.lower().endswith(VIDEOS)]
    if not found:
        raise ManifestError(f"{folder}: no videos ({', '.join(VIDEOS)}) below it")
    return found


def _is_among(its: Known, uri: str, words: Iterable[str]) -> bool:
    name = uri.rpartition("/")[2]
    return any(word == its.kind or fnmatchcase(name, word) for word in words)


def _check_unnamed(unnamed: dict[str, list[str]]) -> None:
    """Two files of the same name in two folders are hardly of the same person: that must be said."""
    for speaker, uris in unnamed.items():
        if len(uris) > 1:
            raise ManifestError(
                f"{speaker} is the name of {len(uris)} files: say by --table who speaks in each: {uris}"
            )


def _check_all_found(files: Iterable[str]) -> None:
    """A slip in a name would make another speaker of a file, who might be trained on and judged by."""
    if missing := list(Counter(files)):
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ManifestError(f"a table names files that aren't in the folders: {', '.join(missing[:NAMED])}{more}")


def _csv(rows: Iterable[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


if __name__ == "__main__":
    sys.exit(main())
