"""Soft clips are found by their mouths, counted less or left out, and that is said."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import load_yaml, parse
from dreamhead.errors import ConfigError, InputError
from dreamhead.training import sharpness
from dreamhead.training.clips import ClipPool
from dreamhead.training.dataset import list_clips, read_clip, write_clips
from dreamhead.training.plan import Request, plan
from dreamhead.training.runs import RunFolder
from dreamhead.training.settings import MIXER, Sharpness, TrainingSettings
from tests.perceptual_weights import write_weights
from tests.toy_faces import canonical_face, posed
from tests.training.lines import LineTask, bare_row, clips_of, log_lines, train_on, write_bare_data

CONFIG = Path(__file__).parents[2] / "configs" / "tiny_gpu.yaml"
SIZE, FRAMES = 256, 40
LANDMARKS = posed(canonical_face(0.1), 90, (128, 100))
Picture = NDArray[np.uint8]


def lined(seed: int = 0) -> Picture:
    """(S, S, 3) a soft ground with thin dark lines on it, as of hair and teeth."""
    generator = np.random.default_rng(seed)
    ground = generator.normal(size=(SIZE, SIZE, 3)).astype(np.float32)
    picture = np.clip(150 + 900 * cv2.GaussianBlur(ground, (0, 0), 20), 0, 255).astype(np.uint8)
    for ends in generator.integers(60, 200, (60, 2, 2)):
        cv2.line(picture, *ends.tolist(), (90, 60, 60), 1, cv2.LINE_AA)
    return picture


def blurred(picture: Picture, sigma: float) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def row(clip_id: str, picture: Picture, **values: Any) -> dict[str, object]:
    """A clip of one picture, whose face stands still."""
    jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 96])[1].tobytes()
    arrays = {
        "landmarks": np.repeat(LANDMARKS[None], FRAMES, 0),
        "transforms": np.repeat(np.eye(2, 3, dtype=np.float32)[None], FRAMES, 0),
    }
    stored = {name: its.astype(np.float32).tobytes() for name, its in arrays.items()}
    fixed = {"crop_size": SIZE, "frame_rate": 25.0, "crops": [jpeg] * FRAMES, "speaker": clip_id, **stored}
    return bare_row(clip_id, FRAMES, **{**fixed, **values})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A sharp clip, the same blurred a little, and blurred much."""
    rows = [row(f"blurred {sigma:g}", blurred(lined(), sigma)) for sigma in (0.01, 2.0, 6.0)]
    write_clips(str(tmp_path / "data/train/a.parquet"), rows)
    write_clips(str(tmp_path / "data/validation/a.parquet"), rows[-1:])
    return tmp_path / "data"


def request(data: Path, **its: float) -> Request:
    """The mixer's training on the data."""
    values = load_yaml(CONFIG, TrainingSettings).model_dump(exclude_unset=True)
    values[MIXER] |= {"sharpness": its, "perceptual": str(write_weights(data))}
    settings = parse(values, TrainingSettings, "here")
    return Request(settings=settings, data_uri=str(data), run_uri=str(data.parent / "run"))


def test_blur_takes_detail_away_and_light_and_noise_do_not_count() -> None:
    sharp = sharpness.mouth_detail(lined(), LANDMARKS)
    soft = sharpness.mouth_detail(blurred(lined(), 2.0), LANDMARKS)
    assert sharp > 0.1
    assert soft < 0.25 * sharp
    for sigma in (4.0, 8.0, 16.0):
        assert sharpness.mouth_detail(blurred(lined(), sigma), LANDMARKS) < soft
    dark = (lined() * 0.4).astype(np.uint8)
    assert sharpness.mouth_detail(dark, LANDMARKS) == pytest.approx(sharp, rel=0.05)
    noise = np.random.default_rng(1).normal(0, 3, lined().shape)
    noisy = [np.clip(its + noise, 0, 255).astype(np.uint8) for its in (lined(), blurred(lined(), 2.0))]
    assert sharpness.mouth_detail(noisy[0], LANDMARKS) == pytest.approx(sharp, rel=0.1)
    assert sharpness.mouth_detail(noisy[1], LANDMARKS) < 0.3 * sharp


def test_only_the_mouth_is_looked_at() -> None:
    elsewhere = blurred(lined(), 2.0)
    elsewhere[:90] = lined()[:90]
    soft = sharpness.mouth_detail(blurred(lined(), 2.0), LANDMARKS)
    assert sharpness.mouth_detail(elsewhere, LANDMARKS) == pytest.approx(soft, rel=0.01)
    assert sharpness.mouth_detail(lined(), LANDMARKS + 400) == 0.0


def test_a_clip_has_the_detail_of_its_middle_frame(tmp_path: Path) -> None:
    sharp, soft = row("sharp", lined()), row("soft", blurred(lined(), 2.0))
    mixed = {**sharp, "clip_id": "mixed", "crops": [*soft["crops"][:30], *sharp["crops"][30:]]}  # type: ignore[index]
    write_clips(str(tmp_path / "train/a.parquet"), [sharp, soft, mixed])
    infos = list_clips(str(tmp_path), "train")
    found = sharpness.measure(infos)
    assert found == [sharpness.clip_detail(read_clip(info)) for info in infos]
    assert found[2] == pytest.approx(found[1])
    assert found[0] > 4 * found[1]


def test_a_blurred_copy_counts_little_or_nothing(data: Path) -> None:
    details = dict(zip(("sharp", "soft", "softest"), sharpness.measure(list_clips(str(data), "train")), strict=True))
    clips = plan(request(data, least=details["softest"] * 2, full=details["sharp"]), MIXER).clips
    assert [clip.clip_id for clip in clips.train] == ["blurred 0.01", "blurred 2"]
    assert clips.train[0].weight == pytest.approx(1.0, abs=0.01)
    assert 0 < clips.train[1].weight < 0.25
    assert clips.soft == 1
    assert len(clips.validation) == 1


def test_by_default_a_blurred_copy_counts_little_and_a_very_soft_one_not_at_all(data: Path) -> None:
    sharp, blurred_copy = plan(request(data), MIXER).clips.train
    assert (sharp.clip_id, sharp.weight) == ("blurred 0.01", 1.0)
    assert blurred_copy.clip_id == "blurred 2"
    assert 0 < blurred_copy.weight < 0.4


def test_detail_is_noted_and_measured_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(request(data), MIXER)
    noted = RunFolder(first.folder_uri).detail()
    assert list(noted) == ["blurred 0.01", "blurred 2", "blurred 6"]
    assert noted["blurred 0.01"] > 0.1 > noted["blurred 2"] > noted["blurred 6"]
    monkeypatch.setattr(sharpness, "measure", None)
    assert plan(request(data), MIXER) == first


def test_nothing_is_measured_where_it_does_not_count(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpness, "measure", None)
    clips = plan(request(data, least=0, full=0), MIXER).clips
    assert [clip.weight for clip in clips.train] == [1.0, 1.0, 1.0]
    assert clips.soft == 0


def test_data_of_soft_clips_only_are_refused(data: Path) -> None:
    with pytest.raises(InputError, match=r"none of its 3 clips is sharp enough; lower reference_mixer.sharpness.least"):
        plan(request(data, least=0.9, full=1.0), MIXER)


def test_weights_rise_from_least_to_full() -> None:
    its = Sharpness(least=0.02, full=0.04)
    assert [its.weight(detail) for detail in (0.0, 0.019, 0.02, 0.03, 0.04, 0.1)] == pytest.approx([0, 0, 0, 0.5, 1, 1])
    assert Sharpness(least=0.02, full=0.02).weight(0.02) == 1.0
    with pytest.raises(ConfigError, match=r"full 0.01 is below least 0.02"):
        parse({"landmark_to_image": {"sharpness": {"least": 0.02, "full": 0.01}}}, TrainingSettings, "here")


def test_clips_are_drawn_by_their_weights(tmp_path: Path) -> None:
    infos = list_clips(write_bare_data(tmp_path), "train")[3:]
    pool = ClipPool([infos[0], replace(infos[1], weight=0.2)], 9, 1, seed=1)
    generator = np.random.default_rng(0)
    counts = Counter(pool.draw(0, generator).clip_id for _ in range(3000))
    # 4 frames in full against 5 that count a fifth.
    assert counts["c4"] / 3000 == pytest.approx(1 / 5, abs=0.03)


def test_the_log_says_how_many_clips_are_left_out(tmp_path: Path) -> None:
    clips = replace(clips_of(write_bare_data(tmp_path / "data")), soft=7)
    train_on(LineTask(), clips, tmp_path / "run")
    assert log_lines(tmp_path / "run")[0]["clips_left_out"] == 7.0
