"""What shall be prepared: folders and tables, speakers, splits, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from dreamhead.cluster.sources import SplitRule, read_sources, read_speakers
from dreamhead.errors import ManifestError


def folder(path: Path, *names: str) -> str:
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"video")
    return str(path)


def table(path: Path, *rows: dict[str, Any]) -> str:
    file = path / "videos.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_a_folder_is_read_to_its_depths(tmp_path: Path) -> None:
    uri = folder(tmp_path, "b.MP4", "deep/a.mov", "notes.txt")
    found = read_sources(uri, {"a": "anna"}, SplitRule(speakers=frozenset({"anna"})))
    assert [(source.uri, source.speaker, source.split) for source in found.sources] == [
        (f"{tmp_path}/b.MP4", "b", "train"),
        (f"{tmp_path}/deep/a.mov", "anna", "validation"),
    ]
    assert found.failed == ()


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "videos", "a.mp4")
    monkeypatch.chdir(tmp_path)
    assert read_sources("videos/", {}, SplitRule()).sources[0].uri == f"{tmp_path}/videos/a.mp4"


def test_files_of_one_name_need_a_speaker_each(tmp_path: Path) -> None:
    uri = folder(tmp_path, "M003/001.mp4", "W009/001.mp4")
    with pytest.raises(ManifestError, match=r"001 is the name of 2 files \(M003/001\.mp4, W009/001\.mp4\): say who"):
        read_sources(uri, {}, SplitRule())
    speakers = {"M003/001.mp4": "M003", "W009/001.mp4": "W009"}
    assert [source.speaker for source in read_sources(uri, speakers, SplitRule()).sources] == ["M003", "W009"]
    assert {source.speaker for source in read_sources(uri, {"001": "one"}, SplitRule()).sources} == {"one"}


def test_a_table_says_what_and_when(tmp_path: Path) -> None:
    uri = table(
        tmp_path,
        {"video_uri": "a.mp4", "speaker": "anna", "start_s": "1:02.5", "end_s": 70, "split": "validation"},
        {"video_uri": "s3://bucket/b.mp4", "spoken": "no", "start_s": None},
        {"video_uri": "a.mp4", "speaker": "anna", "start_s": 80.0, "split": "validation", "spoken": True},
    )
    first, second, third = read_sources(uri, {"b": "bert"}, SplitRule()).sources
    assert (first.uri, first.speaker, first.split) == (f"{tmp_path}/a.mp4", "anna", "validation")
    assert (first.start_s, first.end_s, first.spoken) == (62.5, 70.0, True)
    assert (second.uri, second.speaker, second.split, second.spoken) == ("s3://bucket/b.mp4", "bert", "train", False)
    assert (third.start_s, third.end_s) == (80.0, None)


def test_a_csv_with_clock_times(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("video_uri,start_s,end_s\na.mp4,00:30,1:00:00\n")
    (source,) = read_sources(str(tmp_path / "list.csv"), {}, SplitRule()).sources
    assert (source.start_s, source.end_s, source.speaker) == (30.0, 3600.0, "a")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video_uri": ""}, "video_uri: is required, got nothing"),
        ({"video_uri": "ftp://a.mp4"}, "video_uri: ftp://a.mp4: unknown scheme"),
        ({"start_s": "soon"}, "start_s: must be seconds, or hours:minutes:seconds, got 'soon'"),
        ({"start_s": 2, "end_s": 1}, "end_s: must be after start_s 2, got 1"),
        ({"spoken": "perhaps"}, "spoken: must be true or false, got 'perhaps'"),
        ({"split": "test"}, "split: must be train or validation, got 'test'"),
    ],
)
def test_a_bad_row_fails_alone(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    uri = table(tmp_path, {"video_uri": "good.mp4"}, {"video_uri": "bad.mp4"} | values)
    found = read_sources(uri, {}, SplitRule())
    assert [source.stem for source in found.sources] == ["good"]
    (row,) = found.failed
    assert row["status"] == "failed"
    assert f"InputError: row 1: {message}" in row["error"]


def test_a_whole_speaker_is_in_one_split(tmp_path: Path) -> None:
    uri = table(tmp_path, {"video_uri": "a.mp4", "split": "train"}, {"video_uri": "x/a.mp4", "split": "validation"})
    with pytest.raises(ManifestError, match="trained on or validated on, never both: a"):
        read_sources(uri, {}, SplitRule())
    many = folder(tmp_path / "many", *(f"v{number}.mp4" for number in range(40)))
    split = {source.speaker: source.split for source in read_sources(many, {}, SplitRule(share=0.3)).sources}
    assert 4 < sum(value == "validation" for value in split.values()) < 20
    assert split == {source.speaker: source.split for source in read_sources(many, {}, SplitRule(share=0.3)).sources}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the table has no rows"),
        ([{"uri": "a.mp4"}], "no column video_uri"),
        ([{"video_uri": "a.mp4"}, {"video_uri": "a.mp4"}], "the same stretch is listed twice: .*/a.mp4"),
    ],
)
def test_a_table_as_a_whole_is_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_sources(table(tmp_path, *rows), {}, SplitRule())


def test_nothing_to_prepare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no videos \(\.mp4, .*below it; allowed: a folder, or a table"):
        read_sources(str(tmp_path), {}, SplitRule())
    uri = folder(tmp_path, "a.mp4")
    with pytest.raises(ManifestError, match="no clip of the validation speakers bert"):
        read_sources(uri, {}, SplitRule(speakers=frozenset({"bert"})))


def test_speakers_by_csv_and_yaml(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("stem,speaker\na, anna\n")
    (tmp_path / "s.yaml").write_text("a: anna\n7: 12\n")
    assert read_speakers(str(tmp_path / "s.csv")) == {"a": "anna"}
    (tmp_path / "spaced.csv").write_text("stem , speaker\na, anna\n")
    assert read_speakers(str(tmp_path / "spaced.csv")) == {"a": "anna"}
    assert read_speakers(str(tmp_path / "s.yaml")) == {"a": "anna", "7": "12"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "stem,who\na,anna\n", "every row needs the columns stem and speaker"),
        ("s.yaml", "- a\n", "not a valid list of speakers: not a table"),
        ("s.yaml", "a: [", "not a valid list of speakers"),
        ("s.txt", "a", "unknown kind of list of speakers; allowed: .csv, .yaml"),
    ],
)
def test_bad_lists_of_speakers_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_speakers(str(tmp_path / name))


def test_a_missing_list_of_speakers_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"the speakers can't be read: .*gone\.csv"):
        read_speakers(str(tmp_path / "gone.csv"))
