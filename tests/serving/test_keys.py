"""API keys: made, hashed, read, and refused where one could be fooled."""

from pathlib import Path

import pytest

from dreamhead.errors import ConfigError
from dreamhead.serving.keys import ApiKeys, UnknownKeyError, new_key


def test_a_new_key_opens_and_its_line_doesnt_hold_it(tmp_path: Path) -> None:
    anna, bert = new_key("anna"), new_key("bert-2")
    assert anna.key not in anna.line
    path = tmp_path / "keys"
    path.write_text(f"# who may\n{anna.line}  # until May\n\n{bert.line}\n")
    keys = ApiKeys.load(str(path), {"DREAMHEAD_API_KEYS": "not read"})
    assert keys is not None
    assert keys.owner(f"Bearer {anna.key}") == "anna"
    assert keys.owner(f"bearer  {bert.key} ") == "bert-2"
    for header in ("", anna.key, "Bearer", "Bearer ", f"Bearer {anna.key}x", f"Bearer {anna.line.split()[1]}"):
        with pytest.raises(UnknownKeyError):
            keys.owner(header)


def test_without_keys_everybody_is_let_in_but_never_by_mistake(tmp_path: Path) -> None:
    assert ApiKeys.load("", {}) is None
    for text in ("", "  \n# none\n"):
        with pytest.raises(ConfigError, match="DREAMHEAD_API_KEYS: holds no API key"):
            ApiKeys.load("", {"DREAMHEAD_API_KEYS": text})
    with pytest.raises(ConfigError, match=r"api_keys_file: .*gone: can't read"):
        ApiKeys.load(str(tmp_path / "gone"), {})


def test_a_bad_line_is_named_but_not_shown() -> None:
    with pytest.raises(ConfigError, match="entry 2 isn't `NAME SHA256`") as raised:
        ApiKeys.load("", {"DREAMHEAD_API_KEYS": f"{new_key('anna').line},bert dh_secret"})
    assert "dh_secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "Anna", "../anna", "-a", "a" * 64, "a b"])
def test_a_name_is_a_plain_one(name: str) -> None:
    with pytest.raises(ConfigError, match="a name is 1 to 63 of a-z 0-9 and dashes"):
        new_key(name)
