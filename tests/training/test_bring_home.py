"""What a training gave comes home in small parts and becomes a checkpoint; what isn't whole is refused."""

import json
from pathlib import Path

import pytest
import torch

from dreamhead.checkpoint import Checkpoint
from dreamhead.errors import CheckpointError, TrainingError
from dreamhead.models.reference_mixer import ReferenceMixer
from dreamhead.training.bring_home import PART, bring, main, make_checkpoint, unpack
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import MIXER, MixerStage
from tests import tiny

CPU = torch.device("cpu")
MODEL = {"window": 48, "channels": [16, 16, 32]}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two checkpoints of a mixer; the first was judged best."""
    folder = RunFolder(str(tmp_path / "runs" / MIXER))
    settings = MixerStage.model_validate({"model": MODEL}).model_dump(mode="json")
    record = {"stage": MIXER, "crop_size": 64, "speech_encoder": "log_mel", "settings": settings, "data": "/data"}
    folder.begin(record)
    for step, seed in ((4, 1), (8, 2)):
        torch.manual_seed(seed)
        folder.save(step, {"average": ReferenceMixer(**MODEL).state_dict()})
    folder.judge(4, 1.5, {"psnr": 21.5})
    lines = [{"step": 4, "loss": 0.5}, {"step": 4, "validation": {"psnr": 21.5}}, {"step": 8, "loss": 0.25}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "runs" / MIXER / "log.jsonl").write_text(text)
    (tmp_path / "runs" / MIXER / "pictures").mkdir()
    (tmp_path / "runs" / MIXER / "pictures" / "00000004-painted.jpg").write_bytes(b"a picture")
    return folder


def test_the_best_weights_come_home_in_half_precision_with_their_record(run: RunFolder, tmp_path: Path) -> None:
    parts = bring(run.uri, tmp_path / "out")
    assert [part.name for part in parts] == ["brought.tar.00"]
    card = unpack(tmp_path / "out", tmp_path / "home")
    assert (card["stage"], card["step"], card["last_step"], card["figures"]) == (MIXER, 4, 8, {"psnr": 21.5})
    assert (tmp_path / "home" / "pictures" / "00000004-painted.jpg").read_bytes() == b"a picture"
    assert (tmp_path / "home" / "curves.png").stat().st_size > 0
    assert len((tmp_path / "home" / "log.jsonl").read_text().splitlines()) == 3
    found = ReferenceMixer.from_pretrained(tmp_path / "home" / "network")
    torch.manual_seed(1)
    assert all(
        torch.equal(part.half(), found.state_dict()[name].half())
        for name, part in ReferenceMixer(**MODEL).state_dict().items()
    )


def test_large_archives_come_in_parts(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamhead.training.bring_home.MILLION", 50_000)
    main([run.uri, "--out", str(tmp_path / "out"), "--part-mb", "1"])
    parts = sorted((tmp_path / "out").iterdir())
    assert len(parts) > 2
    assert all(part.stat().st_size <= 50_000 for part in parts)
    assert unpack(tmp_path / "out", tmp_path / "home")["step"] == 4
    parts[1].unlink()
    with pytest.raises(TrainingError, match="don't make an archive of a training"):
        unpack(tmp_path / "out", tmp_path / "again")


def test_a_checkpoint_has_the_new_network_and_the_others_of_its_base(run: RunFolder, tmp_path: Path) -> None:
    base = str(tiny.tiny_checkpoint(tmp_path / "base"))
    bring(run.uri, tmp_path / "out")
    assert make_checkpoint(tmp_path / "out", base, tmp_path / "made") == MIXER
    made, before = Checkpoint.load(str(tmp_path / "made")), Checkpoint.load(base)
    assert made.has_mixer
    assert made.config == before.config
    assert made.landmarks_digest == before.landmarks_digest
    assert made.render_digest("diffusion") == before.render_digest("diffusion")
    assert made.reference_mixer(CPU).config["window"] == 48
    assert "| steps | 8; the weights are those after 4, averaged |" in (tmp_path / "made" / "README.md").read_text()


def test_what_fits_no_checkpoint_is_refused(run: RunFolder, tmp_path: Path) -> None:
    bring(run.uri, tmp_path / "out")
    with pytest.raises(CheckpointError, match="crop_size: trained for 64, the checkpoint base is for 256"):
        make_checkpoint(tmp_path / "out", "base", tmp_path / "made")
    with pytest.raises(TrainingError, match=rf"nowhere: no {PART.format(0)}"):
        unpack(tmp_path / "nowhere", tmp_path / "home")
    with pytest.raises(TrainingError, match="no checkpoint yet"):
        bring(str(tmp_path / "nothing"), tmp_path / "out")
