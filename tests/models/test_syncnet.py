"""SyncNet at random weights: its shapes, the names of the public file, and what it is loaded from."""

from pathlib import Path

import pytest
import torch

from dreamhead.errors import CheckpointError
from dreamhead.models.syncnet import SyncNet, load


@pytest.fixture(scope="module")
def network() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet().eval()


def test_windows_become_embeddings_one_by_one(network: SyncNet) -> None:
    sound, lips = torch.randn(2, 1, 13, 20), torch.rand(2, 3, 5, 224, 224) * 255
    with torch.inference_mode():
        heard, seen = network.forward_aud(sound), network.forward_lip(lips)
        assert heard.shape == seen.shape == (2, 1024)
        torch.testing.assert_close(network.forward_aud(sound[1:]), heard[1:], rtol=1e-4, atol=1e-5)
        assert (heard[0] - heard[1]).abs().max() > 1e-4


def test_names_and_sizes_are_the_public_files(network: SyncNet) -> None:
    state = network.state_dict()
    sizes = {
        "netcnnaud.0.weight": (64, 1, 3, 3),
        "netcnnaud.4.weight": (192, 64, 3, 3),
        "netcnnaud.8.weight": (384, 192, 3, 3),
        "netcnnaud.11.weight": (256, 384, 3, 3),
        "netcnnaud.14.weight": (256, 256, 3, 3),
        "netcnnaud.18.weight": (512, 256, 5, 4),
        "netfcaud.0.weight": (512, 512),
        "netfclip.3.weight": (1024, 512),
        "netcnnlip.0.weight": (96, 3, 5, 7, 7),
        "netcnnlip.4.weight": (256, 96, 1, 5, 5),
        "netcnnlip.8.weight": (256, 256, 1, 3, 3),
        "netcnnlip.11.weight": (256, 256, 1, 3, 3),
        "netcnnlip.14.weight": (256, 256, 1, 3, 3),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netcnnlip.19.running_mean": (512,),
    }
    assert {name: tuple(state[name].shape) for name in sizes} == sizes


def test_a_state_without_counts_is_loaded_as_it_is(network: SyncNet, tmp_path: Path) -> None:
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "syncnet_v2.model", _use_new_zipfile_serialization=False)
    loaded = load(str(tmp_path / "syncnet_v2.model"))
    sound = torch.randn(1, 1, 13, 20)
    torch.testing.assert_close(loaded.forward_aud(sound), network.forward_aud(sound))
    assert not loaded.training


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_loaded_too(network: SyncNet, tmp_path: Path) -> None:
    torch.jit.script(network).save(tmp_path / "sync.pt")
    sound = torch.randn(1, 1, 13, 20)
    torch.testing.assert_close(load(str(tmp_path / "sync.pt")).forward_aud(sound), network.forward_aud(sound))
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: the TorchScript module has no forward_aud, forward_lip"):
        load(str(tmp_path / "other.pt"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text: not SyncNet's weights .*not a file of tensors"):
        load(str(tmp_path / "text"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "state")
    with pytest.raises(CheckpointError, match=r"state: not SyncNet's weights"):
        load(str(tmp_path / "state"))
    torch.save([torch.zeros(1)], tmp_path / "list")
    with pytest.raises(CheckpointError, match=r"list: .*holds a list, not a table of tensors"):
        load(str(tmp_path / "list"))
