"""Settings of training refuse what can't work, and say what would."""

import pytest

from dreamhead.config import parse
from dreamhead.errors import ConfigError
from dreamhead.training.settings import STAGES, LoopSettings, TrainingSettings, WorkersSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": {"num_workers": [3, 2]}}, r"1 <= least <= most, got \[3, 2\]"),
        ({"workers": {"num_workers": [0, 2]}}, r"1 <= least <= most, got \[0, 2\]"),
        ({"workers": {"num_workers": -1}}, "num_workers must be 0 or more, got -1"),
        ({"workers": {"use_gpu": "often"}}, "workers.use_gpu"),
        ({"workers": {"parallel": "ddq"}}, "'ddp' or 'fsdp2', got 'ddq'"),
        ({"autoencoder": {"model": {"channels": [12, 16]}}}, r"channels must be multiples of 8, got \[12, 16\]"),
        ({"landmark_to_image": {"model": {"block_out_channels": [32, 48]}}}, r"multiples of 32, got \[32, 48\]"),
        ({"crop_size": 96}, "autoencoder.augmentation.window 128 is above crop_size 96"),
        ({"autoencoder": {"loop": {"batch_size": 4}}}, "autoencoder.loop.steps: Field required"),
        ({"autoencoder": {"loop": {"steps": 5, "speed": 2}}}, "autoencoder.loop.speed: Extra inputs"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(values, TrainingSettings, "here")


def test_every_worker_needs_an_example_for_each_part() -> None:
    loop = {"steps": 5, "batch_size": 16, "accumulate": 4}
    fits = parse({"autoencoder": {"loop": loop}, "workers": {"num_workers": [1, 4]}}, TrainingSettings, "here")
    assert fits.workers.most * fits.autoencoder.loop.accumulate == fits.autoencoder.loop.batch_size
    with pytest.raises(ConfigError, match=r"autoencoder\.loop\.batch_size 16 is below workers x accumulate, 20"):
        parse({"autoencoder": {"loop": loop}, "workers": {"num_workers": [1, 5]}}, TrainingSettings, "here")


def test_workers_have_bounds() -> None:
    assert (WorkersSettings(num_workers=3).least, WorkersSettings(num_workers=3).most) == (3, 3)
    assert (WorkersSettings(num_workers=(2, 8)).least, WorkersSettings(num_workers=(2, 8)).most) == (2, 8)


def test_stages_are_found_by_name() -> None:
    settings = TrainingSettings()
    assert [settings.stage(name) for name in STAGES] == [
        settings.autoencoder,
        settings.audio_to_landmark,
        settings.landmark_to_image,
    ]
    assert all(isinstance(settings.stage(name).loop, LoopSettings) for name in STAGES)
