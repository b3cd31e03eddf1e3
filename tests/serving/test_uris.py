"""Which files a request may name: nothing outside, whatever way it is written."""

from pathlib import Path

import pytest

from dreamhead.errors import ConfigError, InputError
from dreamhead.serving.uris import AllowedUris


def test_files_below_an_allowed_directory_are_taken(tmp_path: Path) -> None:
    clip = tmp_path / "in" / "a b.mp4"
    allowed = AllowedUris([str(tmp_path / "in"), "s3://studio/in"])
    for uri in (str(clip), f"file://{tmp_path}/in/a%20b.mp4", f"{tmp_path}/in/../in/a b.mp4"):
        assert allowed.check("video_uri", uri) == str(clip)
    assert allowed.check("video_uri", "s3://studio/in/x/clip.mp4") == "s3://studio/in/x/clip.mp4"


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "{folder}/in/../secret.mp4",
        "file://{folder}/in/%2e%2e/secret.mp4",
        "{folder}/inside/clip.mp4",
        "{folder}/in/link.mp4",
        "{folder}/in/door/secret.mp4",
        "in/clip.mp4",
        "s3://studio/insider/clip.mp4",
        "s3://studio/in/../secret.mp4",
        "s3://other/in/clip.mp4",
        "http://localhost/clip.mp4",
        "concat:{folder}/in/a|/etc/passwd",
        "{folder}/in/\0.mp4",
    ],
)
def test_nothing_else_is(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"")
    (tmp_path / "in" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "in" / "door").symlink_to(tmp_path)
    allowed = AllowedUris([str(tmp_path / "in"), "s3://studio/in/"])
    with pytest.raises(InputError, match=r"^video_uri: "):
        allowed.check("video_uri", uri.format(folder=tmp_path))


def test_a_directory_must_be_one_that_can_be_checked() -> None:
    with pytest.raises(ConfigError, match="allowed_prefixes: videos must be absolute"):
        AllowedUris(["videos"])
    with pytest.raises(ConfigError, match="allowed_prefixes: http://host: unknown scheme"):
        AllowedUris(["http://host"])


def test_an_allowed_directory_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "in").symlink_to(tmp_path / "disk")
    allowed = AllowedUris([str(tmp_path / "in")])
    assert allowed.check("video_uri", f"{tmp_path}/in/clip.mp4") == f"{tmp_path}/disk/clip.mp4"
