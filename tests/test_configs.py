"""Every settings file that ships loads as the settings that its name begins with."""

from pathlib import Path

import pytest

from dreamhead.config import DubSettings, Section, load_yaml
from dreamhead.training.settings import TrainingSettings

CONFIGS = Path(__file__).parents[1] / "configs"
KINDS: dict[str, type[Section]] = {
    "dub": DubSettings,
    "tiny": TrainingSettings,
    "base": TrainingSettings,
    "paper": TrainingSettings,
    "gpu": TrainingSettings,
}
"""Settings by the first word of the file's name."""


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_settings_file_loads(path: Path) -> None:
    word = path.stem.partition("_")[0]
    assert word in KINDS, f"{path}: say in KINDS which settings a file named {word}_* holds"
    settings = load_yaml(path, KINDS[word])
    assert settings.model_fields_set, f"{path} sets nothing"
