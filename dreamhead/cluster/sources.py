"""Read what shall be prepared: a folder of videos or a table, who speaks in each, and who is kept for validation."""

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import yaml

from dreamhead import storage
from dreamhead.cluster.rows import Row, check_columns, read_csv, read_rows
from dreamhead.errors import InputError, ManifestError, StorageError
from dreamhead.stages.preparation import ledger
from dreamhead.stages.preparation.source import Source, falls_into_validation, stem_of
from dreamhead.training.dataset import SPLITS

TABLES = (".parquet", ".csv", ".jsonl")
VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts")
COLUMNS = ("video_uri", "speaker", "start_s", "end_s", "spoken", "split")
CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")
TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
TRAIN, VALIDATION = SPLITS


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """Which speakers nothing is trained on, where the table doesn't say."""

    speakers: frozenset[str] = frozenset()
    share: float = 0.0
    """Of all speakers, by a hash of the name."""

    def split(self, speaker: str) -> str:
        """The split of one speaker."""
        kept = speaker in self.speakers or falls_into_validation(speaker, self.share)
        return VALIDATION if kept else TRAIN


@dataclass(frozen=True)
class Sources:
    """What is asked for."""

    sources: tuple[Source, ...]
    failed: tuple[Row, ...]
    """Report rows of a table's bad rows."""


def read_sources(uri: str, speakers: Mapping[str, str], rule: SplitRule) -> Sources:
    """Sources below a folder, or of a table's rows.

    Args:
        speakers: who speaks, by a file's name without suffix, or by its path below the folder.

    Raises:
        ManifestError: nothing is there, a speaker is in both splits, or one to validate on isn't there.
    """
    found = _from_table(uri, speakers, rule) if uri.lower().endswith(TABLES) else _from_folder(uri, speakers, rule)
    _check_splits(uri, found.sources)
    unknown = rule.speakers - {source.speaker for source in found.sources}
    if unknown:
        raise ManifestError(f"{uri}: no clip of the validation speakers {', '.join(sorted(unknown))}")
    names = defaultdict(list)
    for source in found.sources:
        names[source.name].append(source.uri)
    if twice := [uris[0] for uris in names.values() if len(uris) > 1]:
        raise ManifestError(f"{uri}: the same stretch is listed twice: {', '.join(twice)}")
    return found


def read_speakers(uri: str) -> dict[str, str]:
    """Speakers by a file's stem, or its path below the input: YAML, or CSV with the columns `stem` and `speaker`.

    Raises ManifestError.
    """
    try:
        data = storage.read_bytes(uri)
        if uri.lower().endswith(".csv"):
            return {row["stem"].strip(): row["speaker"].strip() for row in read_csv(data)}
        if uri.lower().endswith((".yaml", ".yml")):
            table = yaml.safe_load(data.decode("utf-8-sig"))
            if not isinstance(table, dict):
                raise ValueError("not a table of stems and speakers")
            return {str(stem): str(speaker) for stem, speaker in table.items()}
    except StorageError as error:
        raise ManifestError(f"the speakers can't be read: {error}") from error
    except (KeyError, AttributeError) as error:
        raise ManifestError(f"{uri}: every row needs the columns stem and speaker") from error
    except (ValueError, csv.Error, yaml.YAMLError) as error:
        raise ManifestError(f"{uri}: not a valid list of speakers: {error}") from error
    raise ManifestError(f"{uri}: unknown kind of list of speakers; allowed: .csv, .yaml")


def _from_folder(uri: str, speakers: Mapping[str, str], rule: SplitRule) -> Sources:
    base = storage.resolve(uri, ".").rstrip("/")
    files = [file for file in storage.list_files(base) if file.lower().endswith(VIDEOS)]
    if not files:
        raise ManifestError(
            f"{uri}: no videos ({', '.join(VIDEOS)}) below it; allowed: a folder, or a table ({', '.join(TABLES)})"
        )
    _check_stems(uri, base, files, speakers)
    named = [(file, _speaker(file, base, speakers)) for file in files]
    return Sources(tuple(Source(uri=file, speaker=name, split=rule.split(name)) for file, name in named), ())


def _check_stems(uri: str, base: str, files: Sequence[str], speakers: Mapping[str, str]) -> None:
    """Two files of the same name in two folders are hardly of the same person: that must be said."""
    unnamed = defaultdict(list)
    for file in files:
        if stem_of(file) not in speakers and _below(file, base) not in speakers:
            unnamed[stem_of(file)].append(_below(file, base))
    for stem, paths in unnamed.items():
        if len(paths) > 1:
            raise ManifestError(
                f"{uri}: {stem} is the name of {len(paths)} files ({', '.join(paths[:3])}): say who speaks in each, by "
                "--speakers with their paths, or by a table with the column speaker"
            )


def _speaker(file: str, base: str, speakers: Mapping[str, str]) -> str:
    return speakers.get(_below(file, base)) or speakers.get(stem_of(file)) or stem_of(file)


def _below(file: str, base: str) -> str:
    return file.removeprefix(base + "/")


def _from_table(uri: str, speakers: Mapping[str, str], rule: SplitRule) -> Sources:
    rows = read_rows(uri)
    if not rows:
        raise ManifestError(f"{uri}: the table has no rows")
    check_columns(uri, rows, COLUMNS[:1], COLUMNS[1:])
    base = storage.resolve(uri, ".").rpartition("/")[0] or "/"
    sources, failed = [], []
    for number, row in enumerate(rows):
        try:
            sources.append(_from_row(row, base, speakers, rule))
        except InputError as error:
            given = Source(uri=str(row.get("video_uri") or ""), speaker=str(row.get("speaker") or ""), split="")
            failed.append(ledger.failed_row(given, f"{type(error).__name__}: row {number}: {error}"))
    return Sources(tuple(sources), tuple(failed))


def _from_row(row: Row, base: str, speakers: Mapping[str, str], rule: SplitRule) -> Source:
    text = str(row.get("video_uri") or "").strip()
    if not text:
        raise InputError("video_uri: is required, got nothing")
    try:
        storage.is_remote(text)
    except StorageError as error:
        raise InputError(f"video_uri: {error}") from error
    uri = storage.resolve(text, base)
    speaker = str(row.get("speaker") or "").strip() or _speaker(uri, base, speakers)
    start_s, end_s = _seconds(row, "start_s") or 0.0, _seconds(row, "end_s")
    if end_s is not None and end_s <= start_s:
        raise InputError(f"end_s: must be after start_s {start_s:g}, got {end_s:g}")
    return Source(
        uri=uri,
        speaker=speaker,
        split=_split(row) or rule.split(speaker),
        start_s=start_s,
        end_s=end_s,
        spoken=_truth(row, "spoken"),
    )


def _seconds(row: Row, name: str) -> float | None:
    """Seconds, or a time as 1:02:03.5; None when there is nothing."""
    value = row.get(name)
    if value is None or value == "" or value != value:
        return None
    match = CLOCK.fullmatch(str(value).strip())
    if match is None:
        raise InputError(f"{name}: must be seconds, or hours:minutes:seconds, got {value!r}")
    hours, minutes, seconds = match.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _truth(row: Row, name: str) -> bool:
    value = row.get(name)
    if value is None or value == "":
        return True
    text = str(value).strip().lower()
    if text not in TRUTHS:
        raise InputError(f"{name}: must be true or false, got {value!r}")
    return TRUTHS[text]


def _split(row: Row) -> str:
    text = str(row.get("split") or "").strip().lower()
    if text and text not in SPLITS:
        raise InputError(f"split: must be {' or '.join(SPLITS)}, got {row.get('split')!r}")
    return text


def _check_splits(uri: str, sources: Collection[Source]) -> None:
    splits = defaultdict(set)
    for source in sources:
        splits[source.speaker].add(source.split)
    if both := sorted(speaker for speaker, found in splits.items() if len(found) > 1):
        raise ManifestError(f"{uri}: a speaker is trained on or validated on, never both: {', '.join(both)}")
