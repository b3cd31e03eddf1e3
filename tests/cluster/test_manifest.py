"""Manifests: every kind of file, every bad input, and what a good row becomes."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamhead.cluster.manifest import read_manifest
from dreamhead.errors import ManifestError
from dreamhead.records import Segment

GOOD = {"video_uri": "in/a.mp4", "audio_uri": "s3://bucket/a.wav", "output_uri": "/out/a.mp4"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_row_becomes_the_same_job_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    segments: Any = [{"start_s": 0.5, "end_s": 2.0}]
    row = GOOD | {
        "seed": 7,
        "segments": json.dumps(segments) if suffix == "csv" else segments,
        "face": "point:10,20.5@1",
        "on_longer_audio": "freeze",
        "language": "de",
        "consent_id": "c-1",
        "client": "studio",
    }
    manifest = read_manifest(write(tmp_path / f"m.{suffix}", [row]))
    (job,) = manifest.jobs
    assert not manifest.failed
    assert job.video_uri == str(tmp_path / "in/a.mp4")
    assert (job.audio_uri, job.output_uri) == (GOOD["audio_uri"], GOOD["output_uri"])
    assert (job.seed, job.segments, job.face) == (7, (Segment(0.5, 2.0),), "point:10,20.5@1")
    assert (job.on_longer_audio, job.language, job.consent_id) == ("freeze", "de", "c-1")
    assert job.extra == {"client": '"studio"'}
    assert len(job.job_id) == 16


def test_an_identity_follows_the_row_and_not_its_place(tmp_path: Path) -> None:
    other = GOOD | {"output_uri": "/out/b.mp4"}
    first = read_manifest(write(tmp_path / "one.jsonl", [GOOD, other])).jobs
    second = read_manifest(write(tmp_path / "two.jsonl", [other, GOOD])).jobs
    assert [job.job_id for job in first] == [job.job_id for job in reversed(second)]
    assert first[0].job_id != first[1].job_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_uri": None}, "video_uri: is required, got nothing"),
        ({"audio_uri": " "}, "audio_uri: is required, got nothing"),
        ({"video_uri": 5}, "video_uri: must be text, got 5"),
        ({"output_uri": "ftp://host/a.mp4"}, "output_uri: ftp://host/a.mp4: unknown scheme 'ftp'"),
        ({"seed": -1}, "seed: must be a whole number from 0 to"),
        ({"seed": 1.5}, "seed: must be a whole number from 0 to"),
        ({"seed": True}, "seed: must be a whole number from 0 to"),
        ({"face": "left"}, "face: 'left' is not allowed; use largest, point:x,y@seconds or box:x0,y0,x1,y1@seconds"),
        ({"face": "point:-5,5@0.5"}, "face: 'point:-5,5@0.5' is not allowed; use largest, point:x,y@seconds or box:"),
        ({"face": "point:5,5@-1"}, "face: 'point:5,5@-1' is not allowed"),
        ({"face": "box:9,5,9,8@0"}, "face: 'box:9,5,9,8@0' is an empty box; x0 < x1 and y0 < y1 are needed"),
        ({"on_longer_audio": "loop"}, "on_longer_audio: must be one of error, trim, freeze, pingpong, got 'loop'"),
        ({"job_id": "../x"}, "job_id: must be 1 to 128 of"),
        ({"language": 3}, "language: must be text, got 3"),
        ({"segments": "[{"}, "segments: not valid JSON"),
        ({"segments": {"start_s": 1}}, "segments: must be a list of {start_s, end_s}"),
        ({"segments": [{"start_s": 1}]}, "segments: each must have start_s and end_s"),
        ({"segments": [{"start_s": 2, "end_s": 1}]}, "segments: 0 <= start_s < end_s is needed, in seconds"),
        ({"segments": [{"start_s": "0", "end_s": 1}]}, "segments: 0 <= start_s < end_s is needed, in seconds"),
    ],
)
def test_a_bad_row_fails_alone_and_names_its_column(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    bad = GOOD | {"output_uri": "/out/b.mp4", "client": "x"} | change
    manifest = read_manifest(write(tmp_path / "m.jsonl", [bad, GOOD]))
    assert [job.row for job in manifest.jobs] == [1]
    (row,) = manifest.failed
    assert (row["row"], row["status"], row["error_type"]) == (0, "failed", "InputError")
    assert row["error"].startswith(message)
    assert row["extra"] == {"client": '"x"'}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.xlsx", "", r"m.xlsx: unknown kind of manifest; allowed: .parquet, .csv, .jsonl"),
        ("m.jsonl", "", "m.jsonl: the manifest has no rows"),
        ("m.jsonl", "{", "m.jsonl: not a valid .jsonl file"),
        ("m.jsonl", "[1]", "line 1 is not a JSON object"),
        ("m.parquet", "not parquet", "m.parquet: not a valid .parquet file"),
        ("m.csv", "video_uri,audio_uri\na,b", "m.csv: no column output_uri; required are video_uri, audio_uri, output"),
        ("m.csv", "video_uri,audio_uri,output_uri\na,b,c,d", "line 2 has more fields than the header's 3"),
        (
            "m.csv",
            "video_uri;audio_uri;output_uri\na;b;c",
            r"m\.csv: not a valid \.csv file: the header is one field with 2 ';' \('video_uri;audio_uri;output_uri'\): "
            "the delimiter must be a comma",
        ),
        ("m.csv", '"video_uri";"audio_uri";"output_uri"\n"a";"b";"c"', "with 2 ';' .* the delimiter must be a comma"),
        ("m.csv", "video_uri\taudio_uri\toutput_uri\na\tb\tc", "one field with 2 tabs .* must be a comma"),
        ("m.csv", "video_uri,video_uri ,audio_uri,output_uri\na,b,c,d", "the header has 'video_uri' more than once"),
        (
            "m.csv",
            "Video_URI,audio-uri,output_uri\na,b,c",
            r"no column video_uri, audio_uri \(there is 'Video_URI': did you mean 'video_uri'\?\) "
            r"\(there is 'audio-uri': did you mean 'audio_uri'\?\); required are video_uri, audio_uri, output_uri",
        ),
        (
            "m.csv",
            "video_uri,audio_url,output_uri\na,b,c",
            r"no column audio_uri \(there is 'audio_url': did you mean 'audio_uri'\?\); required",
        ),
        ("m.csv", "video_uri,audio_uri,speech\na,b,c", "no column output_uri; required"),
        (
            "m.jsonl",
            '{"video_uri": "a", "audio_uri ": "b", "output_uri": "c"}',
            r"no column audio_uri \(there is 'audio_uri ': did you mean 'audio_uri'\?\)",
        ),
        (
            "m.csv",
            "video_uri,audio_uri,output_uri,Segments\na,b,c,[]",
            "the column 'Segments' would count for nothing: its name is 'segments'",
        ),
    ],
)
def test_a_manifest_that_cant_be_used_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ManifestError, match=message):
        read_manifest(str(tmp_path / name))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_of_wide_letters_is_told(tmp_path: Path, suffix: str, encoding: str) -> None:
    text = "video_uri,audio_uri,output_uri\na,b,c" if suffix == "csv" else json.dumps(GOOD)
    (tmp_path / f"m.{suffix}").write_bytes(text.encode(encoding))
    with pytest.raises(ManifestError, match=r"it is UTF-16 or UTF-32 text, .*save it as UTF-8"):
        read_manifest(str(tmp_path / f"m.{suffix}"))


def test_text_of_another_alphabet_is_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("video_uri,audio_uri,output_uri\na,é,c".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"line 2 is not UTF-8 text \(byte 0xe9\); save it as UTF-8"):
        read_manifest(str(tmp_path / "m.csv"))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "m.csv",
            " video_uri , audio_uri,\toutput_uri, seed,client\n in/a.mp4 , s3://bucket/a.wav , /out/a.mp4 , 7 ,x",
        ),
        ("m.csv", "video_uri,audio_uri,output_uri,seed,client\r\nin/a.mp4,s3://bucket/a.wav,/out/a.mp4,7,x\r\n"),
        ("m.jsonl", json.dumps(GOOD | {"seed": 7, "client": "x"})),
    ],
)
def test_spaces_around_names_and_the_mark_of_utf8_are_nothing(tmp_path: Path, mark: str, name: str, text: str) -> None:
    (tmp_path / name).write_bytes((mark + text).encode())
    (job,) = read_manifest(str(tmp_path / name)).jobs
    assert (job.audio_uri, job.output_uri, job.seed) == (GOOD["audio_uri"], GOOD["output_uri"], 7)
    assert (job.video_uri, job.extra) == (str(tmp_path / "in/a.mp4"), {"client": '"x"'})


def test_a_near_miss_in_parquet_is_hinted(tmp_path: Path) -> None:
    row = {"video_uri": "a", "AudioUri": "b", "output": "c"}
    with pytest.raises(
        ManifestError, match=r"no column audio_uri, output_uri .*'AudioUri': did you mean 'audio_uri'\?"
    ):
        read_manifest(write(tmp_path / "m.parquet", [row]))


def test_a_manifest_that_isnt_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"the manifest can't be read: .*gone.csv"):
        read_manifest(str(tmp_path / "gone.csv"))


def test_rows_that_share_an_output_are_refused_by_number(tmp_path: Path) -> None:
    rows = [GOOD, GOOD | {"output_uri": "/out/b.mp4"}, GOOD | {"seed": 3}]
    with pytest.raises(ManifestError, match=r"output_uri must differ from row to row; rows 0, 2: /out/a.mp4"):
        read_manifest(write(tmp_path / "m.jsonl", rows))


def test_one_place_in_two_spellings_is_a_shared_output(tmp_path: Path) -> None:
    rows = [GOOD, GOOD | {"output_uri": "file:///out/a.mp4"}, GOOD | {"output_uri": "/out/b/../a.mp4"}]
    with pytest.raises(ManifestError, match=r"rows 0, 1, 2: /out/a.mp4"):
        read_manifest(write(tmp_path / "m.jsonl", rows))


@pytest.mark.parametrize(
    ("spelled", "source"),
    [("in/a.mp4", "video_uri of row 0"), ("in/x/../b.mp4", "video_uri of row 1"), ("s3://bucket/a.wav", "audio_uri")],
)
def test_no_row_may_overwrite_an_input_of_any_row(tmp_path: Path, spelled: str, source: str) -> None:
    rows = [GOOD, GOOD | {"video_uri": "in/b.mp4", "output_uri": "/out/b.mp4"}, GOOD | {"output_uri": spelled}]
    manifest = read_manifest(write(tmp_path / "m.jsonl", rows))
    assert [job.row for job in manifest.jobs] == [0, 1]
    (row,) = manifest.failed
    assert (row["row"], row["error_type"]) == (2, "InputError")
    assert f"is the {source}" in row["error"]
    assert "nothing is overwritten" in row["error"]


def test_no_row_may_overwrite_an_input_of_a_bad_row(tmp_path: Path) -> None:
    bad = GOOD | {"video_uri": "/in/only.mp4", "output_uri": "/out/b.mp4", "face": "left"}
    manifest = read_manifest(write(tmp_path / "m.jsonl", [bad, GOOD | {"output_uri": "/in/only.mp4"}]))
    assert manifest.jobs == ()
    assert (
        "output_uri: /in/only.mp4 is the video_uri of row 0; nothing is overwritten"
        in {row["row"]: row["error"] for row in manifest.failed}[1]
    )


def test_rows_that_share_a_job_id_are_refused_by_number(tmp_path: Path) -> None:
    rows = [GOOD | {"job_id": "x"}, GOOD | {"job_id": "x", "output_uri": "/out/b.mp4"}]
    with pytest.raises(ManifestError, match="job_id must differ from row to row; rows 0, 1: x"):
        read_manifest(write(tmp_path / "m.jsonl", rows))
