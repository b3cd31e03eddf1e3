"""What can't be trained is refused before the first step, by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamhead.config import load_yaml, parse
from dreamhead.errors import CheckpointError, ConfigError, InputError, TrainingError
from dreamhead.training import networks
from dreamhead.training.dataset import write_clips
from dreamhead.training.plan import Request, plan, plan_ahead
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import AUTOENCODER, IMAGE, LANDMARKS, STAGES, TrainingSettings
from tests import tiny
from tests.training.lines import bare_row

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"
FITS: dict[str, Any] = {
    "crop_size": 64,
    "speech_encoder": "log_mel",
    "feature_size": 80,
    "spoken": True,
    "frame_rate": 25.0,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of toy networks, whose sizes aren't those of configs/tiny.yaml."""
    return str(tiny.tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")))


def settings(**changes: Any) -> TrainingSettings:
    values = load_yaml(CONFIG, TrainingSettings).model_dump(exclude_unset=True)
    return parse({**values, **changes}, TrainingSettings, "here")


def unsized(stage: str) -> TrainingSettings:
    """The settings of configs/tiny.yaml without the sizes of one network."""
    values = load_yaml(CONFIG, TrainingSettings).model_dump(exclude_unset=True)
    del values[stage]["model"]
    return parse(values, TrainingSettings, "here")


def request(folder: Path, rows: dict[str, list[dict[str, object]]] | None = None, **more: Any) -> Request:
    given = {"train": [bare_row("a", 80, **FITS)], "validation": [bare_row("b", 80, **FITS)]}
    for split, its in {**given, **(rows or {})}.items():
        if its:
            write_clips(str(folder / "data" / split / "s.parquet"), its)
    values = {"settings": settings(), "data_uri": str(folder / "data"), "run_uri": str(folder / "runs" / "x")}
    return Request(**{**values, **more})


def test_a_plan_holds_the_clips_and_notes_what_it_began_with(tmp_path: Path) -> None:
    asked = request(tmp_path, {"train": [bare_row("a", 80, **FITS), bare_row("mute", 80, **{**FITS, "spoken": False})]})
    found = plan(asked, LANDMARKS)
    assert [clip.clip_id for clip in found.clips.train] == ["a"]
    assert [clip.clip_id for clip in found.clips.validation] == ["b"]
    assert (found.steps, found.is_done) == (60, False)
    record = json.loads((tmp_path / "runs/x" / LANDMARKS / "settings.json").read_text())
    assert record["settings"]["loop"]["steps"] == 60
    assert record["data"] == str(tmp_path / "data")
    assert [clip.clip_id for clip in plan(asked, AUTOENCODER).clips.train] == ["a", "mute"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"crop_size": 128}, "crop_size is 128, the settings want 64"),
        ({"speech_encoder": "whisper"}, "speech_encoder is 'whisper', the settings want 'log_mel'"),
        ({"feature_size": 512}, "feature_size is 512, the settings want 80"),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_data_for_other_settings_are_named(tmp_path: Path, split: str, value: dict[str, Any], message: str) -> None:
    rows = [bare_row("good", 80, **FITS), bare_row("bad", 80, **{**FITS, **value})]
    with pytest.raises(InputError) as caught:
        plan(request(tmp_path, {split: rows}), AUTOENCODER)
    assert str(caught.value) == f"{tmp_path}/data/{split}/s.parquet: row 1: {message}"
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_no_shard_is_named(tmp_path: Path) -> None:
    asked = request(tmp_path)
    (tmp_path / "data/train/t.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=f"{tmp_path}/data/train/t.parquet: not a readable shard"):
        plan(asked, AUTOENCODER)


def test_clips_without_use_are_told_from_none(tmp_path: Path) -> None:
    asked = request(tmp_path, {"train": [bare_row("mute", 80, **{**FITS, "spoken": False})]})
    with pytest.raises(InputError) as caught:
        plan(asked, LANDMARKS)
    assert str(caught.value) == f"{tmp_path}/data/train: none of its 1 clips can be used for audio_to_landmark"
    with pytest.raises(InputError, match=r"data/validation: no \*.parquet shards"):
        plan(request(tmp_path / "other", {"validation": []}), AUTOENCODER)


def test_changed_settings_need_another_name(tmp_path: Path) -> None:
    plan(request(tmp_path), LANDMARKS)
    same = load_yaml(CONFIG, TrainingSettings).audio_to_landmark.model_dump(exclude_unset=True)
    other = settings(audio_to_landmark={**same, "loop": {**same["loop"], "seed": 4}})
    with pytest.raises(TrainingError, match=r"with other settings: settings\.loop\.seed: the run has 0, now it is 4"):
        plan(request(tmp_path, settings=other), LANDMARKS)
    with pytest.raises(TrainingError, match="clips: the run has"):
        plan(request(tmp_path, {"train": [bare_row("c", 80, **FITS)]}), LANDMARKS)


def test_painting_needs_an_autoencoder(tmp_path: Path, checkpoint: str) -> None:
    with pytest.raises(TrainingError) as caught:
        plan(request(tmp_path), IMAGE)
    assert str(caught.value) == (
        f"{tmp_path}/runs/x/autoencoder: no finished autoencoder, which landmark_to_image paints into; "
        "train --stage autoencoder first, or name a checkpoint by --autoencoder"
    )
    found = plan(request(tmp_path, autoencoder=checkpoint), IMAGE).autoencoder
    assert found is not None
    assert (found.kind, found.uri) == ("checkpoint", checkpoint)


def test_the_autoencoder_must_have_as_many_channels(tmp_path: Path, checkpoint: str) -> None:
    wide = settings(landmark_to_image={"model": {"latent_channels": 6}, "loop": {"steps": 5}})
    with pytest.raises(ConfigError) as caught:
        plan(request(tmp_path, settings=wide, autoencoder=checkpoint), IMAGE)
    assert str(caught.value) == (
        f"landmark_to_image.model.latent_channels: the settings say 6, the autoencoder, that of {checkpoint}, has 4"
    )
    with pytest.raises(ConfigError, match="the settings say 6, the autoencoder, the settings', has 4"):
        plan_ahead(request(tmp_path, settings=wide), STAGES)


def test_all_that_can_be_known_is_checked_before_the_first_stage(tmp_path: Path, checkpoint: str) -> None:
    assert list(plan_ahead(request(tmp_path / "fresh"), STAGES)) == [AUTOENCODER, LANDMARKS]
    given = plan_ahead(request(tmp_path / "given", autoencoder=checkpoint), (LANDMARKS, IMAGE))
    assert list(given) == [LANDMARKS, IMAGE]
    mute = {"train": [bare_row("mute", 80, **{**FITS, "spoken": False})]}
    with pytest.raises(InputError, match="none of its 1 clips can be used for audio_to_landmark"):
        plan_ahead(request(tmp_path / "mute", mute), STAGES)


def test_the_path_of_a_checkpoint_is_not_carried_on(checkpoint: str) -> None:
    network = networks.checkpoint_network(checkpoint, IMAGE)
    assert "_name_or_path" not in network.config
    opened = networks.open_checkpoint(checkpoint).latent_denoiser(networks.CPU)
    assert str(opened.config["_name_or_path"]).startswith(checkpoint)
    for name, part in opened.state_dict().items():
        assert torch.equal(part, network.state_dict()[name])


def test_a_checkpoint_brings_its_sizes(tmp_path: Path, checkpoint: str) -> None:
    found = plan(request(tmp_path, settings=unsized(LANDMARKS), init_from=checkpoint), LANDMARKS)
    model = found.settings.audio_to_landmark.model
    assert (model.coefficients, model.hidden_size, model.speech_size) == (4, 16, tiny.SPEECH_SIZE)
    record = RunFolder(found.folder_uri).record()
    assert record["settings"]["model"]["coefficients"] == 4
    assert len(record["init_from"]) == 64


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path: Path, checkpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(request(tmp_path, init_from=checkpoint), LANDMARKS)
    assert str(caught.value) == (
        f"audio_to_landmark.model.blocks: the settings say 2, the checkpoint {checkpoint} has 1; "
        "leave it out to take the checkpoint's"
    )
    with pytest.raises(ConfigError, match=f"crop_size: the settings say 128, the checkpoint {checkpoint} was trained"):
        plan(request(tmp_path, settings=settings(crop_size=128), init_from=checkpoint), LANDMARKS)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint directory"):
        plan(request(tmp_path, init_from=str(tmp_path)), LANDMARKS)
