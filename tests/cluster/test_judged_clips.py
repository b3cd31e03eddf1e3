"""What is judged: folders, lists, names, lags, and whose speech is borrowed."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamhead.cluster.judged_clips import read_clips, tasks_of
from dreamhead.errors import ManifestError


def listed(folder: Path, *rows: dict[str, object]) -> str:
    path = folder / "clips.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_a_folder_is_its_videos(tmp_path: Path) -> None:
    for name in ("b.mp4", "a clip.MOV", "notes.txt", "deep/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clips = read_clips(str(tmp_path))
    assert [(clip.clip_id, clip.speaker) for clip in clips] == [("a_clip", "a_clip"), ("b", "b")]
    assert clips[1].audio_uri == clips[1].video_uri == str(tmp_path / "b.mp4")
    assert clips[1].speech_lag_s == 0


def test_a_list_says_more(tmp_path: Path) -> None:
    uri = listed(
        tmp_path,
        {"video_uri": "one.mp4", "speaker": "x", "speech_lag_s": "0.12"},
        {"video_uri": "/there/two.mp4", "audio_uri": "two.wav", "clip_id": "second", "speech_lag_s": None},
    )
    first, second = read_clips(uri)
    assert (first.video_uri, first.speaker, first.speech_lag_s) == (str(tmp_path / "one.mp4"), "x", 0.12)
    assert (second.clip_id, second.video_uri) == ("second", "/there/two.mp4")
    assert second.audio_uri == str(tmp_path / "two.wav")


def test_lags_come_from_a_preparation_unless_the_list_says_otherwise(tmp_path: Path) -> None:
    names = ("one.mp4", "two.mp4", "three.mp4")
    report = tmp_path / "report.parquet"
    rows = [
        {"source_uri": str(tmp_path / name), "lag_s": 0.08, "lag_sure": name != "two.mp4", "kind": "source"}
        for name in names
    ]
    pq.write_table(pa.Table.from_pylist(rows), report)
    uri = listed(tmp_path, *({"video_uri": name} for name in names[:2]), {"video_uri": names[2], "speech_lag_s": 0})
    assert [clip.speech_lag_s for clip in read_clips(uri, str(report))] == [0.08, 0, 0]
    with pytest.raises(ManifestError, match=r"no columns source_uri, lag_s and lag_sure"):
        read_clips(uri, uri)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"audio_uri": "a.wav"}, r"no column video_uri; required are video_uri"),
        ({"video_uri": " "}, r"row 0: video_uri: is required"),
        (
            {"video_uri": "a.mp4", "speech_lag_s": "late"},
            r"row 0: speech_lag_s: must be seconds from -2 to 2, got 'late'",
        ),
        ({"video_uri": "a.mp4", "speech_lag_s": 120}, r"got 120"),
        ({"video_uri": 3}, r"row 0: video_uri: must be text, got 3"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, object], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_clips(listed(tmp_path, row))


def test_names_differ(tmp_path: Path) -> None:
    uri = listed(tmp_path, {"video_uri": "x/a.mp4"}, {"video_uri": "y/a.mp4"})
    with pytest.raises(ManifestError, match=r"several clips are called a; give each its own clip_id"):
        read_clips(uri)
    with pytest.raises(ManifestError, match=r"no videos in this folder; allowed: .mp4"):
        read_clips(str(tmp_path / "none"))


def test_each_condition_goes_through_all_clips_and_cross_borrows_from_the_next(tmp_path: Path) -> None:
    clips = read_clips(listed(tmp_path, *({"video_uri": f"{name}.mp4"} for name in "abc")))
    tasks = tasks_of(clips, ("real", "cross"))
    assert [(task.condition, task.clip.clip_id) for task in tasks[:4]] == [
        ("real", "a"), ("real", "b"), ("real", "c"), ("cross", "a"),
    ]  # fmt: skip
    assert [task.other and task.other.clip_id for task in tasks] == [None, None, None, "b", "c", "a"]
    assert [task.condition for task in tasks_of(clips[:1], ("real", "cross"))] == ["real"]
