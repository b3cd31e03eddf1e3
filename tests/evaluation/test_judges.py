"""Others' networks: toys of the real kinds, and what is said of weights that aren't given or aren't right."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dreamhead.errors import WeightsUnavailableError
from dreamhead.evaluation import recognition
from dreamhead.evaluation.judges import ALEXNET, LearnedDistance, PictureJudges, missing
from dreamhead.evaluation.settings import JudgeSettings
from tests.perceptual_weights import write_weights
from tests.toy_faces import canonical_face, posed, texture

# PyTorch wants another format for new networks; these files are what their authors publish.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Pooled(nn.Module):
    """Mean colours of a coarse grid."""

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(pictures, (4, 4)).flatten(1)


def scripted(path: Path) -> str:
    torch.jit.save(torch.jit.trace(Pooled(), torch.zeros(1, 3, 112, 112)), str(path))  # type: ignore[no-untyped-call]
    return str(path)


def field(number: int, value: int | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)


def onnx_model(side: int = 112) -> bytes:
    """A network that averages each colour over the picture."""

    def described(name: bytes, shape: tuple[int, ...]) -> bytes:
        sizes = b"".join(field(1, field(1, size)) for size in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))

    node = field(1, b"picture") + field(2, b"mean") + field(4, b"GlobalAveragePool")
    graph = field(1, node) + field(2, b"toy")
    graph += field(11, described(b"picture", (1, 3, side, side))) + field(12, described(b"mean", (1, 3, 1, 1)))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))


def test_nothing_given_is_nothing_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMHEAD_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    judges = PictureJudges(JudgeSettings())
    told = "package dlib isn't installed: pip install 'dreamhead[identity]', or give judges.recognition"
    assert judges.missing["identity"] == judges.missing["identity_distance"] == told
    assert judges.missing["perceptual"] == "weights not found: run scripts/make_perceptual, or give judges.perceptual"
    assert judges.missing["fid"] == "weights not given: judges.inception"
    assert judges.missing["lse_c"] == "weights not given: judges.syncnet"
    assert judges.missing["lpips"].startswith("weights not given: judges.alexnet")
    frame, face = texture(160, 200), posed(canonical_face())
    assert judges.embedding(frame, face) is None
    assert judges.perceptual(frame[:64, :64], frame[:64, :64], np.ones((64, 64))) is None
    assert judges.distance(frame[:64, :64], frame[:64, :64]) is None
    assert judges.features(frame[:64, :64]) is None
    assert "identity" not in missing(JudgeSettings(recognition="there.onnx"))


def lpips_files(folder: Path) -> tuple[str, str]:
    torch.manual_seed(0)
    trunk = {}
    for number, channels, out, kernel, *_ in ALEXNET:
        trunk[f"features.{number}.weight"] = torch.randn(out, channels, kernel, kernel) / (channels * kernel**2) ** 0.5
        trunk[f"features.{number}.bias"] = torch.zeros(out)
    heads = {f"lin{number}.model.1.weight": torch.rand(1, layer[2], 1, 1) for number, layer in enumerate(ALEXNET)}
    torch.save(trunk, folder / "alexnet.pth")
    torch.save(heads, folder / "heads.pth")
    return str(folder / "alexnet.pth"), str(folder / "heads.pth")


def test_learned_distance_grows_with_the_difference(tmp_path: Path) -> None:
    alexnet, heads = lpips_files(tmp_path)
    judges = PictureJudges(JudgeSettings(alexnet=alexnet, lpips=heads))
    first, second = texture(64, 64, 1), texture(64, 64, 2)
    half = ((first.astype(int) + second) // 2).astype(np.uint8)
    same, near, far = (judges.distance(first, other) for other in (first, half, second))
    assert same == pytest.approx(0, abs=1e-6)
    assert near is not None
    assert far is not None
    assert 0.01 < near < far
    assert "lpips" not in judges.missing


def test_inception_looks_at_299_pixels(tmp_path: Path) -> None:
    judges = PictureJudges(JudgeSettings(inception=scripted(tmp_path / "inception.pt")))
    features = judges.features(np.full((64, 64, 3), 255, np.uint8))
    assert features is not None
    np.testing.assert_allclose(features, np.ones(48))


def test_the_perceptual_distance_is_of_where_the_weight_is(tmp_path: Path) -> None:
    judges = PictureJudges(JudgeSettings(perceptual=str(write_weights(tmp_path))))
    truth, ours = texture(64, 64, 1), texture(64, 64, 1)
    ours[:, :16] = 0
    right, left = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
    right[:, 44:], left[:, :16] = 1, 1
    assert judges.perceptual(truth, truth, left) == 0
    assert judges.perceptual(ours, truth, right) == pytest.approx(0, abs=1e-6)
    found = judges.perceptual(ours, truth, left)
    assert found is not None
    assert found > 0.05
    assert "perceptual" not in judges.missing


def test_a_recogniser_that_cant_be_had_is_missing_and_one_that_is_given_wrong_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(path: str = "") -> Path:
        raise WeightsUnavailableError(f"not {path or 'installed'}")

    monkeypatch.setattr(recognition, "face_recogniser", unavailable)
    monkeypatch.setitem(sys.modules, "dlib", ModuleType("dlib"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: sys.modules.get(name))
    judges = PictureJudges(JudgeSettings())
    assert judges.missing["identity"] == judges.missing["identity_distance"] == "not installed"
    with pytest.raises(WeightsUnavailableError, match=r"not mine\.dat"):
        PictureJudges(JudgeSettings(dlib="mine.dat"))


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing")
    with pytest.raises(WeightsUnavailableError, match=r"judges.recognition .*bad.onnx: not a readable ONNX"):
        PictureJudges(JudgeSettings(recognition=str(bad)))
    with pytest.raises(WeightsUnavailableError, match=r"setting judges.recognition: gone.pt is not a file"):
        PictureJudges(JudgeSettings(recognition="gone.pt"))
    with pytest.raises(
        WeightsUnavailableError, match=r"judges.perceptual .*bad.onnx: not what scripts/make_perceptual"
    ):
        PictureJudges(JudgeSettings(perceptual=str(bad)))
    with pytest.raises(WeightsUnavailableError, match=r"setting judges.perceptual: gone.pt is not a file"):
        PictureJudges(JudgeSettings(perceptual="gone.pt"))
    with pytest.raises(WeightsUnavailableError, match=r"setting judges.inception: gone.pt is not a file"):
        PictureJudges(JudgeSettings(inception="gone.pt"))
    with pytest.raises(WeightsUnavailableError, match=r"judges.inception .*bad.onnx: not a TorchScript file"):
        PictureJudges(JudgeSettings(inception=str(bad)))
    alexnet, heads = lpips_files(tmp_path)
    with pytest.raises(WeightsUnavailableError, match=r"not torchvision's AlexNet and LPIPS 0.1"):
        LearnedDistance(Path(heads), Path(alexnet))
    with pytest.raises(WeightsUnavailableError, match=r"judges.alexnet .*bad.onnx: not a file of PyTorch weights"):
        LearnedDistance(bad, Path(heads))
