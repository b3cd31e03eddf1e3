"""One source from its video to its shard: late sound is found and corrected, a bad video is a row."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dreamhead import storage
from dreamhead.config import PreparationSettings
from dreamhead.errors import InputError
from dreamhead.faces import geometry
from dreamhead.media.video import probe
from dreamhead.models.audio_encoder import LogMelEncoder
from dreamhead.stages.preparation.ledger import Ledger
from dreamhead.stages.preparation.source import Source
from dreamhead.stages.preparation.work import (
    Networks,
    PrepareSource,
    _bytes_of,
    _parts,
    frame_range,
    source_fingerprint,
)
from dreamhead.training.dataset import Clip, list_clips, read_clip
from tests.stages.preparation.conftest import RATE, SECONDS, SETTINGS, Talker


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def prepare(tiny_weights: str, output: str) -> Iterator[PrepareSource]:
    prepare = PrepareSource(SETTINGS, Networks(checkpoint_uri=tiny_weights), output)
    yield prepare
    prepare.close()


@pytest.fixture(scope="module")
def late(talker: Talker, tmp_path_factory: pytest.TempPathFactory) -> Source:
    uri = talker.write(tmp_path_factory.mktemp("videos") / "late.mov", late_s=0.12)
    return Source(uri=uri, speaker="sally", split="validation", digest="d")


@pytest.fixture(scope="module")
def row(prepare: PrepareSource, late: Source) -> dict[str, object]:
    return prepare(late)


@pytest.fixture(scope="module")
def clips(row: dict[str, object], output: str) -> list[Clip]:
    return [read_clip(info) for info in list_clips(output, "validation")]


def test_late_sound_is_found(row: dict[str, object], output: str) -> None:
    assert row["status"] == "prepared"
    assert row["lag_s"] == pytest.approx(0.12, abs=0.02)
    assert row["lag_sure"] is True
    assert row["clips"] == {"spoken": 2, "pictures": 0, "rejected": 0}
    assert row["seconds"] == pytest.approx(SECONDS)
    lines = [line for line in Ledger(output).rows() if line["kind"] == "clip"]
    assert [(line["status"], line["frames"], line["start_s"]) for line in lines] == [
        ("spoken", 50, 0),
        ("spoken", 50, 2),
    ]
    assert all(line["second_face"] == 0 and line["lag_fit"] > 0.3 and line["face_px"] > 60 for line in lines)


def test_shards_hold_what_the_schema_says(
    clips: list[Clip], row: dict[str, object], late: Source, talker: Talker
) -> None:
    assert [clip.clip_id for clip in clips] == [f"{late.name}-000000", f"{late.name}-000050"]
    for number, clip in enumerate(clips):
        assert (clip.speaker, clip.frame_rate, clip.crop_size) == ("sally", pytest.approx(RATE), 64)
        assert clip.crop(49).shape == (64, 64, 3)
        opening = geometry.lip_opening(clip.canonical())
        assert np.corrcoef(opening, talker.opening[50 * number : 50 * number + 50])[0, 1] > 0.9
        assert geometry.lip_opening(clip.neutral) == pytest.approx(0, abs=1e-5)
        assert clip.articulation == pytest.approx(np.quantile(talker.opening, 0.95), rel=0.3)
        assert [variant.speed for variant in clip.variants[:2]] == [1, 1]
        assert len(clip.variants) == SETTINGS.variants.count
        assert all(len(variant.features) == 100 // variant.speed for variant in clip.variants)


def test_features_are_of_the_sound_where_the_lips_are(clips: list[Clip], talker: Talker) -> None:
    """The talker's sound before it was delayed, but for what the lag was missed by."""
    expected = LogMelEncoder()(talker.samples)
    for number, clip in enumerate(clips):
        own = expected[100 * number : 100 * number + 100]
        errors = {
            shift: float(np.abs(clip.variants[0].features[5:90] - own[5 + shift : 90 + shift]).mean())
            for shift in range(-4, 5)
        }
        assert abs(min(errors, key=lambda shift: errors[shift])) <= 1


def test_a_silent_video_is_for_pictures(prepare: PrepareSource, talker: Talker, tmp_path: Path, output: str) -> None:
    source = Source(uri=talker.write(tmp_path / "mute.mp4", silent=True), speaker="mute", split="train")
    assert prepare(source)["clips"] == {"spoken": 0, "pictures": 2, "rejected": 0}
    lines = [line for line in Ledger(output).rows() if line["speaker"] == "mute"]
    assert [line["reasons"] for line in lines] == [[], ["no sound"], ["no sound"]]
    infos = [info for info in list_clips(output, "train") if info.speaker == "mute"]
    assert [info.spoken for info in infos] == [False, False]
    assert read_clip(infos[0]).variants == []


def test_speech_isnt_looked_for_where_the_table_says_so(
    prepare: PrepareSource, late: Source, tmp_path: Path, output: str
) -> None:
    source = dataclasses.replace(late, split="train", speaker="told", start_s=0.5, end_s=1.9, spoken=False)
    prepare(source)
    (line,) = (line for line in Ledger(output).rows() if line["speaker"] == "told" and line["kind"] == "clip")
    assert (line["status"], line["reasons"]) == ("pictures", ["said not to be speech"])
    assert (line["start_s"], line["frames"]) == (pytest.approx(0.52), 35)


def test_a_bad_video_is_a_row(prepare: PrepareSource, tmp_path: Path, output: str) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video")
    source = Source(uri=str(path), speaker="bad", split="train")
    row = prepare(source)
    assert row["status"] == "failed"
    assert str(row["error"]).startswith("MediaError: ")
    assert "bad.mp4" in str(row["error"])
    assert not storage.exists(Ledger(output).attempts_uri(source))


def test_a_video_of_nobody_has_no_clips(prepare: PrepareSource, make_video: Callable[..., str], output: str) -> None:
    source = Source(uri=make_video("nobody.mp4", frames=12), speaker="nobody", split="train")
    row = prepare(source)
    assert (row["status"], row["reasons"], row["shards"]) == ("prepared", ["no face"], [])


def test_a_source_that_kills_its_process_is_given_up(
    prepare: PrepareSource, make_video: Callable[..., str], output: str
) -> None:
    source = Source(uri=make_video("poison.mp4", frames=12), speaker="poison", split="train")
    tries = [{"node": "", "error": ""}] * 3
    storage.write_bytes(Ledger(output).attempts_uri(source), json.dumps({"tries": tries}).encode())
    assert "given up after 3 tries, the last failed with: the process died" in prepare(source)["error"]


def test_a_stretch_outside_the_video_is_refused(make_video: Callable[..., str]) -> None:
    info = probe(make_video(frames=25))
    source = Source(uri="clip.mp4", speaker="a", split="train")
    assert frame_range(info, source) == (0, 25)
    assert frame_range(info, dataclasses.replace(source, start_s=0.04, end_s=0.5)) == (1, 13)
    with pytest.raises(InputError, match=r"no frame from start_s 1 to end_s inf; the video is 1 s long"):
        frame_range(info, dataclasses.replace(source, start_s=1.0))


def test_shards_are_split_by_size() -> None:
    rows = [{"crops": [b"x" * 30, b"y" * 10], "n": number, "features": [{"data": b"z" * 10}]} for number in range(5)]
    assert _bytes_of(rows[0]) == 50
    parts = [[row["n"] for row in part] for part in _parts(iter(rows), 100)]
    assert parts == [[0, 1], [2, 3], [4]]
    assert [list(part) for part in _parts(iter([]), 100)] == []


def test_the_fingerprint_follows_what_shapes_the_shard(late: Source) -> None:
    def digest(source: Source = late, settings: PreparationSettings = SETTINGS, networks: str = "n") -> str:
        return source_fingerprint(source, settings, networks)

    same = SETTINGS.model_copy(update={"cpu_threads": 7, "max_attempts": 9, "no_progress_timeout_s": 5.0})
    assert digest(settings=same) == digest()
    others = [
        digest(dataclasses.replace(late, digest="e")),
        digest(dataclasses.replace(late, split="train")),
        digest(settings=SETTINGS.model_copy(update={"clip_s": 3.0})),
        digest(networks="other"),
    ]
    assert len({digest(), *others}) == 5
