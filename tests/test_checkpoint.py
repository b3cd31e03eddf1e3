"""A checkpoint is read back as it was written, or refused by the name of what is wrong."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from dreamhead import checkpoint, storage
from dreamhead.checkpoint import BUNDLED, Checkpoint, CheckpointConfig
from dreamhead.errors import CheckpointError
from dreamhead.models.autoencoder import LibraryAutoencoder
from tests import tiny
from tests.fault_proxy import FaultProxy
from tests.s3 import s3_bucket_behind_proxy

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def test_networks_come_back_as_they_were_written(tmp_path: Path) -> None:
    landmarks, image, autoencoder = tiny.landmark_denoiser(), tiny.latent_denoiser(), tiny.autoencoder()
    autoencoder.latent_std.fill_(2)
    config = CheckpointConfig(speech_encoder="log_mel", crop_size=64)
    checkpoint.save(tmp_path, config, landmarks, image, autoencoder, "A card.\n")
    loaded = Checkpoint.load(str(tmp_path))
    assert loaded.config == config
    assert (tmp_path / "README.md").read_text() == "A card.\n"
    pairs = [
        (landmarks, loaded.landmark_denoiser(CPU)),
        (image, loaded.latent_denoiser(CPU)),
        (autoencoder, loaded.autoencoder(CPU)),
    ]
    for before, after in pairs:
        assert not after.training
        assert not any(parameter.requires_grad for parameter in after.parameters())
        assert {part.dtype for part in after.state_dict().values()} == {torch.float32}
        for name, part in before.state_dict().items():
            assert torch.equal(after.state_dict()[name], part), name
    pixels = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(pairs[2][1].encode(pixels), autoencoder.encode(pixels), atol=1e-5, rtol=1e-4)


def test_one_of_diffusers_autoencoders_may_be_named(tmp_path: Path) -> None:
    config = CheckpointConfig(speech_encoder="log_mel", crop_size=64, autoencoder="AutoencoderTiny")
    blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    inner = diffusers.AutoencoderTiny(**blocks, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4)
    checkpoint.save(tmp_path, config, tiny.landmark_denoiser(), tiny.latent_denoiser(), inner, "")
    loaded = Checkpoint.load(str(tmp_path)).autoencoder(CPU)
    assert isinstance(loaded, LibraryAutoencoder)
    assert loaded.encode(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 4, 4)


@pytest.mark.parametrize("name", ["config.json", "README.md", "autoencoder/diffusion_pytorch_model.safetensors"])
def test_a_changed_byte_is_refused_by_the_files_name(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name}: SHA-256 is .* changed or damaged"):
        Checkpoint.load(str(copy))


def test_a_missing_file_is_refused_by_its_name(copy: Path) -> None:
    (copy / "landmark_to_image" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"landmark_to_image/config.json: missing, though digests.json lists it"):
        Checkpoint.load(str(copy))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a checkpoint directory, it has no digests\.json"):
        Checkpoint.load(str(tmp_path))
    with pytest.raises(CheckpointError, match="not a checkpoint directory"):
        Checkpoint.load(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("text", ["{", "[]", '"text"'])
def test_damaged_digests_are_refused(copy: Path, text: str) -> None:
    (copy / "digests.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"digests.json: not"):
        Checkpoint.load(str(copy))


def test_a_config_that_does_not_parse_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"crop_size": 100, "colour": "red"}))
    checkpoint.write_digests(copy)
    with pytest.raises(CheckpointError, match=r"config.json: crop_size: .*multiple of 32.*colour"):
        Checkpoint.load(str(copy))


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    path = copy / "audio_to_landmark" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 32}))
    checkpoint.write_digests(copy)
    with pytest.raises(CheckpointError, match="audio_to_landmark: can't load LandmarkDenoiser"):
        Checkpoint.load(str(copy)).landmark_denoiser(CPU)


def digests(folder: Path) -> np.ndarray:
    loaded = Checkpoint.load(str(folder))
    return np.array([loaded.digest, loaded.landmarks_digest, loaded.render_digest("diffusion")])


@pytest.mark.parametrize(
    ("name", "all_landmarks_render"),
    [
        ("README.md", [True, False, False]),
        ("audio_to_landmark/config.json", [True, True, False]),
        ("landmark_to_image/config.json", [True, False, True]),
        ("autoencoder/config.json", [True, False, True]),
    ],
)
def test_digests_change_with_their_parts_only(copy: Path, name: str, all_landmarks_render: list[bool]) -> None:
    before = digests(copy)
    (copy / name).write_text((copy / name).read_text() + "\n")
    checkpoint.write_digests(copy)
    assert (digests(copy) != before).tolist() == all_landmarks_render


def test_another_speech_encoder_changes_the_landmarks_digest(copy: Path) -> None:
    before = digests(copy)
    (copy / "config.json").write_text(json.dumps({"speech_encoder": "whisper", "crop_size": 64}))
    checkpoint.write_digests(copy)
    assert (digests(copy) != before).tolist() == [True, True, False]


def test_a_copy_elsewhere_has_the_same_digests(written: Path, copy: Path) -> None:
    assert (digests(copy) == digests(written)).all()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FaultProxy]]:
    with s3_bucket_behind_proxy("weights") as found:
        yield found


@pytest.fixture
def remote(
    written: Path, endpoint: tuple[str, FaultProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, FaultProxy]]:
    """Uri of the checkpoint in object storage, and an empty folder for temporary files."""
    base, proxy = endpoint
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    proxy.clear()
    for path in written.rglob("*"):
        if path.is_file():
            storage.publish(path, f"{base}/{tmp_path.name}/{path.relative_to(written).as_posix()}")
    proxy.clear()
    yield f"{base}/{tmp_path.name}", proxy
    proxy.clear()


def test_processes_of_a_node_fetch_a_checkpoint_once(written: Path, remote: tuple[str, FaultProxy]) -> None:
    uri, proxy = remote
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(Checkpoint.load, [uri] * 4))
    assert {one.digest for one in loaded} == {Checkpoint.load(str(written)).digest}
    weights = proxy.seen("GET", r".*\.safetensors")
    assert len(weights) == len({request.target for request in weights}) == 3


def test_a_damaged_copy_is_fetched_again(remote: tuple[str, FaultProxy], tmp_path: Path) -> None:
    uri, proxy = remote
    digest = Checkpoint.load(uri).digest
    (path,) = (tmp_path / "tmp").rglob("landmark_to_image/*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    proxy.clear()
    assert Checkpoint.load(uri).digest == digest
    assert [request.target.rpartition("/")[2] for request in proxy.requests] == ["digests.json", path.name]


def test_a_remote_checkpoint_is_refused_as_a_local_one(remote: tuple[str, FaultProxy]) -> None:
    uri, _ = remote
    with pytest.raises(CheckpointError, match=r"/nowhere: not a checkpoint directory, it has no digests\.json"):
        Checkpoint.load(f"{uri}/nowhere")
    storage.delete(f"{uri}/config.json")
    with pytest.raises(CheckpointError, match=r"/config\.json: missing, though digests\.json lists it"):
        Checkpoint.load(uri)
    storage.write_bytes(f"{uri}/config.json", b"{}")
    with pytest.raises(CheckpointError, match=r"config\.json: SHA-256 is .* changed or damaged"):
        Checkpoint.load(uri)


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped"])
def test_digests_that_lead_outside_are_refused(copy: Path, name: str) -> None:
    (copy / "digests.json").write_text(json.dumps({name: "0"}))
    with pytest.raises(CheckpointError, match=rf"digests\.json: {name} lies outside the checkpoint"):
        Checkpoint.load(str(copy))


def test_the_bundled_checkpoint_loads_and_is_small() -> None:
    loaded = Checkpoint.load()
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) <= 40e6
    assert loaded.config.crop_size == 256
    assert loaded.landmark_denoiser(CPU).basis.abs().sum() > 0
    latents = loaded.autoencoder(CPU).encode(torch.zeros(1, 3, 64, 64))
    assert loaded.latent_denoiser(CPU).config["latent_channels"] == latents.shape[1]


def test_a_mixer_is_kept_beside_the_others_and_only_its_renderer_depends_on_it(written: Path, tmp_path: Path) -> None:
    networks = tiny.landmark_denoiser(), tiny.latent_denoiser(), tiny.autoencoder()
    config = CheckpointConfig(speech_encoder="log_mel", crop_size=64)
    checkpoint.save(tmp_path, config, *networks, "Random weights, for tests.", tiny.reference_mixer())
    plain, mixed = Checkpoint.load(str(written)), Checkpoint.load(str(tmp_path))
    assert not plain.has_mixer
    assert mixed.has_mixer
    assert mixed.render_digest("diffusion") == plain.render_digest("diffusion")
    assert mixed.render_digest("mixer") != mixed.render_digest("diffusion")
    found = mixed.reference_mixer(CPU).state_dict()
    assert all(
        torch.equal(part.half().float(), found[name]) for name, part in tiny.reference_mixer().state_dict().items()
    )
    for call in (lambda: plain.render_digest("mixer"), lambda: plain.reference_mixer(CPU)):
        with pytest.raises(CheckpointError, match="has no reference_mixer"):
            call()
