"""The table of sources: what is in it, who speaks, and what is refused."""

from pathlib import Path

import pytest

from dreamhead.cluster.sources import SplitRule, read_sources
from scripts import source_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two folders of files with a video's name, and a table of the second."""
    for name in (
        "own/anna.mp4",
        "own/anna_again.mp4",
        "own/notes.txt",
        "more/deep/b1.mpg",
        "more/c1.mp4",
        "more/d1.mp4",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "same.csv").write_text("file,speaker\nanna_again.mp4,anna\n")
    lines = ["file\tspeaker\tclass\tspoken\tsplit\tfrom", "b1.mpg\tbert\tA\t\tvalidation\tx"]
    lines += ["c1.mp4\tcarl\tB\tyes\t\tx", "more/d1.mp4\tdora\tC\tno\t\tx"]
    (tmp_path / "more.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(folder: Path, *more: str) -> int:
    fixed = [str(folder / "own"), str(folder / "more"), "--output", str(folder / "out/sources.csv")]
    tables = ["--table", str(folder / "same.csv"), "--table", str(folder / "more.tsv")]
    return source_list.main([*fixed, *tables, *more])


def listed(folder: Path) -> list[tuple[str, str, bool, str]]:
    """What preparation reads of the table: path, speaker, spoken, split."""
    found = read_sources(str(folder / "out/sources.csv"), {}, SplitRule())
    assert not found.failed
    prefix = f"{folder}/"
    return [(source.uri.removeprefix(prefix), source.speaker, source.spoken, source.split) for source in found.sources]


def test_tables_join_people_and_say_what_their_sound_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 0
    assert listed(folder) == [
        ("own/anna.mp4", "anna", True, "train"),
        ("own/anna_again.mp4", "anna", True, "train"),
        ("more/c1.mp4", "carl", True, "train"),
        ("more/d1.mp4", "dora", False, "train"),
        ("more/deep/b1.mpg", "bert", True, "validation"),
    ]
    assert "5 files of 4 speakers, 1 of them for pictures only" in capsys.readouterr().out


def test_classes_and_names_are_left_out_or_for_pictures_only(folder: Path) -> None:
    assert run(folder, "--leave-out", "C, anna_*", "--pictures-only", "B", "--pictures-only", "b?.mpg") == 0
    assert [(uri, spoken) for uri, _, spoken, _ in listed(folder)] == [
        ("own/anna.mp4", True),
        ("more/c1.mp4", False),
        ("more/deep/b1.mpg", False),
    ]


def test_without_tables_everyone_is_their_own_speaker(folder: Path) -> None:
    words = [str(folder / "own"), "--output", str(folder / "out/sources.csv")]
    assert source_list.main(words) == 0
    assert [speaker for _, speaker, _, _ in listed(folder)] == ["anna", "anna_again"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,speaker\nann.mp4,anna\n", "a table names files that aren't in the folders: ann.mp4"),
        ("file,speaker\nanna.mp4,anna\nown/anna.mp4,eve\n", "have 2 rows for it that differ"),
        ("file,who\nanna.mp4,anna\n", "no column speaker; it has ['file', 'who']"),
        ("file,speaker\nanna.mp4,\n", "line 2: file and speaker must be given"),
        ("file,speaker,spoken\nanna.mp4,anna,maybe\n", "line 2: spoken must be true or false, got 'maybe'"),
        ("file,speaker,split\nanna.mp4,anna,test\n", "line 2: split must be train or validation, got 'test'"),
    ],
)
def test_a_table_that_can_not_be_meant_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], table: str, message: str
) -> None:
    (folder / "wrong.csv").write_text(table)
    assert run(folder, "--table", str(folder / "wrong.csv")) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out/sources.csv").exists()


def test_two_files_of_one_name_need_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "more/anna.mp4").write_bytes(b"")
    assert run(folder) == 2
    assert "anna is the name of 2 files: say by --table who speaks in each" in capsys.readouterr().err
    (folder / "paths.csv").write_text("file,speaker\nmore/anna.mp4,another anna\n")
    assert run(folder, "--table", str(folder / "paths.csv")) == 0


def test_a_folder_without_videos_and_a_table_of_another_kind_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    assert source_list.main([str(folder / "empty"), "--output", str(folder / "s.csv")]) == 2
    assert "no videos" in capsys.readouterr().err
    assert run(folder, "--table", str(folder / "people.xlsx")) == 2
    assert "unknown kind of table; allowed: .csv, .tsv" in capsys.readouterr().err
