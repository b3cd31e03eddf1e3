"""Two sets of dubs are matched by their files' names, whatever these are; what can't be matched is said."""

import json
from pathlib import Path

import pytest

from dreamhead.cluster.compared import match_dubs
from dreamhead.errors import InputError, ManifestError

ODD = ("two words", "50% off #1?", "naïve – 日本", "dots.in.it", "'quoted\"")


def folder(path: Path, *names: str, text: str = "") -> str:
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{path.name} {name} {text}")
    return str(path)


def names(a: str, b: str, scratch: Path) -> list[str]:
    return [one.clip for one in match_dubs(a, b, scratch)[0]]


def test_folders_are_matched_by_name_and_suffixes_dont_count(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", *(f"{name}.mp4" for name in ODD), "alone.mp4", "notes.txt", "work/chunk.mp4")
    b = folder(tmp_path / "b", *(f"{name}.mov" for name in ODD), "other.mp4")
    dubs, notes = match_dubs(a, b, tmp_path)
    assert [one.clip for one in dubs] == sorted(ODD)
    assert all(one.a.read_text().startswith(f"a {one.clip}.mp4") for one in dubs)
    assert all(one.b.read_text().startswith(f"b {one.clip}.mov") for one in dubs)
    assert [note.split(" have")[0].split(" of ")[0] for note in notes] == ["1", "1"]
    assert notes[0].endswith("left out: alone")
    assert notes[1].endswith("left out: other")


def test_an_evaluations_folders_are_matched_below(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", "anna/self.mp4", "anna/painted.mp4", "bela/self.mp4")
    b = folder(tmp_path / "b", "anna/self.mp4")
    assert names(a, b, tmp_path) == ["anna/self"]


def test_lists_are_matched_by_their_outputs(tmp_path: Path) -> None:
    folder(tmp_path / "one", "x.mp4", "deep/y.mp4")
    folder(tmp_path / "two", "x.mp4", "deep/y.mp4", "z.mp4")
    rows = [{"output_uri": "one/x.mp4"}, {"output_uri": "one/deep/y.mp4"}]
    rows += [{"output_uri": "one/z.mp4", "status": "failed"}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert names(str(tmp_path / "jobs.jsonl"), str(tmp_path / "two"), tmp_path) == ["x"]
    (tmp_path / "other.csv").write_text("output_uri\ntwo/x.mp4\ntwo/deep/y.mp4\n")
    found = match_dubs(str(tmp_path / "jobs.jsonl"), str(tmp_path / "other.csv"), tmp_path)
    assert [one.clip for one in found[0]] == ["deep/y", "x"]
    assert found[1] == []


def test_two_files_are_one_pair_whatever_they_are_called(tmp_path: Path) -> None:
    folder(tmp_path, "old take.mp4", "new.mov")
    (one,), notes = match_dubs(str(tmp_path / "old take.mp4"), str(tmp_path / "new.mov"), tmp_path)
    assert (one.a.name, one.b.name, notes) == ("old take.mp4", "new.mov", [])


def test_what_is_the_same_in_both_is_left_out(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", "x.mp4", "y.mp4"), folder(tmp_path / "b", "x.mp4", "y.mp4")
    (tmp_path / "b" / "y.mp4").write_bytes((tmp_path / "a" / "y.mp4").read_bytes())
    dubs, notes = match_dubs(a, b, tmp_path)
    assert [one.clip for one in dubs] == ["x"]
    assert notes == ["y: the same video in both, left out"]
    with pytest.raises(InputError, match="hold the same videos: there is nothing to compare"):
        match_dubs(a, a, tmp_path)


def test_bad_input_is_named_with_what_is_allowed(tmp_path: Path) -> None:
    a, empty = folder(tmp_path / "a", "x.mp4"), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"empty: no videos there; allowed: a video or a folder of them \(\.mp4, "):
        match_dubs(a, str(empty), tmp_path)
    with pytest.raises(InputError, match=r"gone: no videos there"):
        match_dubs(str(tmp_path / "gone"), a, tmp_path)
    with pytest.raises(InputError, match=r"gone\.mp4: no such video"):
        match_dubs(f"{a}/x.mp4", str(tmp_path / "gone.mp4"), tmp_path)
    with pytest.raises(InputError, match=r"x\.mp4 is one video and .*a isn't; give two videos, or two folders"):
        match_dubs(a, f"{a}/x.mp4", tmp_path)
    with pytest.raises(InputError, match=r"no video of .*a has the name of one of .*c: x, and y;"):
        match_dubs(a, folder(tmp_path / "c", "y.mp4"), tmp_path)
    with pytest.raises(InputError, match=r"x\.mov and .*x\.mp4 differ in nothing but their suffix"):
        match_dubs(a, folder(tmp_path / "d", "x.mp4", "x.mov"), tmp_path)
    (tmp_path / "list.csv").write_text("video_uri\na/x.mp4\n")
    with pytest.raises(ManifestError, match=r"list\.csv: no rows with the column output_uri"):
        match_dubs(a, str(tmp_path / "list.csv"), tmp_path)
    (tmp_path / "list.csv").write_text("output_uri\na/x.mp4\na/gone.mp4\n")
    with pytest.raises(InputError, match=r"list\.csv: 1 of its outputs aren't there: .*gone\.mp4"):
        match_dubs(a, str(tmp_path / "list.csv"), tmp_path)
