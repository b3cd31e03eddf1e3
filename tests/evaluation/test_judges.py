"""Others' networks: toys of the real kinds, and what is said of weights that aren't given or aren't right."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dreamhead.errors import WeightsUnavailableError
from dreamhead.evaluation.judges import ALEXNET, LearnedDistance, PictureJudges, Recognition, arcface_crop, missing
from dreamhead.evaluation.settings import JudgeSettings
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


def test_nothing_given_is_nothing_judged() -> None:
    judges = PictureJudges(JudgeSettings())
    assert judges.missing["identity"] == "weights not given: judges.recognition"
    assert judges.missing["fid"] == "weights not given: judges.inception"
    assert judges.missing["lse_c"] == "weights not given: judges.syncnet"
    assert judges.missing["lpips"].startswith("weights not given: judges.alexnet")
    frame, face = texture(160, 200), posed(canonical_face())
    assert judges.identity(frame, face, frame, face) is None
    assert judges.distance(frame[:64, :64], frame[:64, :64]) is None
    assert judges.features(frame[:64, :64]) is None
    assert "identity" not in missing(JudgeSettings(recognition="there.onnx"))


def test_the_face_is_put_where_recognition_wants_it() -> None:
    frame = np.zeros((160, 200, 3), np.uint8)
    face = posed(canonical_face())
    for index in (1, 61, 291):
        x, y = face[index, :2].round().astype(int)
        frame[y - 1 : y + 2, x - 1 : x + 2] = 255
    crop = arcface_crop(frame, face)
    assert crop.shape == (112, 112, 3)
    rows, columns = np.nonzero(crop[..., 0] > 120)
    # The mouth's corners lie in the lower part to the left and right, the nose above them in the middle.
    assert (columns[rows > 85] < 50).any()
    assert (columns[rows > 85] > 62).any()
    assert 45 < columns[rows < 82].mean() < 67


@pytest.mark.parametrize("kind", ["onnx", "scripted"])
def test_a_face_is_itself_and_another_colour_is_another(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"net.{'onnx' if kind == 'onnx' else 'pt'}"
    if kind == "onnx":
        path.write_bytes(onnx_model())
    else:
        scripted(path)
    judges = PictureJudges(JudgeSettings(recognition=str(path)))
    face, red, blue = posed(canonical_face()), *(np.zeros((160, 200, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = 255, 255
    assert judges.identity(red, face, red, face) == pytest.approx(1)
    assert judges.identity(red, face, blue, face) == pytest.approx(-1 / 3, abs=1e-3)
    np.testing.assert_allclose(np.linalg.norm(Recognition(path)(red, face)), 1)


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


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing")
    with pytest.raises(WeightsUnavailableError, match=r"judges.recognition .*bad.onnx: not a readable ONNX"):
        PictureJudges(JudgeSettings(recognition=str(bad)))
    with pytest.raises(WeightsUnavailableError, match=r"setting judges.inception: gone.pt is not a file"):
        PictureJudges(JudgeSettings(inception="gone.pt"))
    with pytest.raises(WeightsUnavailableError, match=r"judges.inception .*bad.onnx: not a TorchScript file"):
        PictureJudges(JudgeSettings(inception=str(bad)))
    alexnet, heads = lpips_files(tmp_path)
    with pytest.raises(WeightsUnavailableError, match=r"not torchvision's AlexNet and LPIPS 0.1"):
        LearnedDistance(Path(heads), Path(alexnet))
    with pytest.raises(WeightsUnavailableError, match=r"judges.alexnet .*bad.onnx: not a file of PyTorch weights"):
        LearnedDistance(bad, Path(heads))
