"""Pictures: every orientation, kind and compression, told by content and not by name."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreamhead.errors import MediaError
from dreamhead.media.still import read_still
from dreamhead.media.video import probe, read_frames

TURNED = {
    1: lambda one: one,
    2: lambda one: one[:, ::-1],
    3: lambda one: one[::-1, ::-1],
    4: lambda one: one[::-1],
    5: lambda one: one.transpose(1, 0, 2),
    6: lambda one: np.rot90(one),
    7: lambda one: one[::-1, ::-1].transpose(1, 0, 2),
    8: lambda one: np.rot90(one, -1),
}
"""How the stored picture lies for each of EXIF's orientations."""


@pytest.fixture
def upright(make_video: Any) -> NDArray[np.uint8]:
    blurred = cv2.GaussianBlur(make_video.draw(9, (96, 64)), (5, 5), 0)
    return np.asarray(blurred, np.uint8)


def assert_shows(uri: str, expected: NDArray[np.uint8], tolerance: float = 3.0) -> None:
    info = probe(uri)
    assert info.is_still
    assert (info.height, info.width, info.rotation) == (*expected.shape[:2], 0)
    frame, again = read_frames(info, [0, 0])
    assert np.array_equal(frame, again)
    assert frame is not again
    assert np.abs(frame.astype(int) - expected).mean() < tolerance


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_every_orientation_is_shown_upright(
    upright: NDArray[np.uint8], tmp_path: Path, kind: str, orientation: int
) -> None:
    path = tmp_path / f"face.{kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(TURNED[orientation](upright))).save(path, exif=exif, quality=95)
    assert_shows(str(path), upright)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_every_compression_of_tiff(upright: NDArray[np.uint8], tmp_path: Path, compression: str) -> None:
    path = tmp_path / "face.tif"
    Image.fromarray(upright).save(path, compression=compression)
    assert_shows(str(path), upright)


@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_pictures_in_the_containers_of_videos_are_pictures(
    upright: NDArray[np.uint8], tmp_path: Path, kind: str
) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    path = tmp_path / f"face.{kind}"
    Image.fromarray(upright).save(path, quality=90)
    assert_shows(str(path), upright, 4.0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(upright: NDArray[np.uint8], tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("face.jpg" if mode == "CMYK" else "face.png")
    grey = cv2.cvtColor(upright, cv2.COLOR_RGB2GRAY)
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(upright).convert(mode).save(path)
    expected = upright if mode in ("P", "RGBA", "CMYK") else np.stack([grey] * 3, axis=-1)
    assert_shows(str(path), expected, 25.0 if mode == "P" else 12.0)


@pytest.mark.parametrize("name", ["face.png", "face.mp4", "face", "face%03d.png", "face.jpg"])
def test_a_picture_is_told_by_its_content(upright: NDArray[np.uint8], tmp_path: Path, name: str) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        path = tmp_path / name
        Image.fromarray(upright).save(path, format=kind)
        assert_shows(str(path), upright, 15.0 if kind == "GIF" else 3.0)


def test_a_video_under_the_name_of_a_picture_is_a_video(make_video: Any) -> None:
    for name in ("clip.jpg", "clip.png"):
        Path(make_video(frames=5)).rename(path := Path(make_video.folder) / name)
        info = probe(str(path))
        assert (info.is_still, info.frame_count) == (False, 5)
        assert [make_video.number(frame) for frame in read_frames(info, [4, 0])] == [4, 0]


def test_what_a_delivery_cannot_keep_is_said(upright: NDArray[np.uint8], tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    Image.fromarray(upright).convert("RGBA").save(path)
    assert "its transparency is lost" in probe(str(path)).warnings[0]
    Image.fromarray(upright[..., 0].astype(np.uint16) * 257).save(path)
    assert "has 16 bits a sample" in probe(str(path)).warnings[0]
    for kind in ("png", "tiff"):
        deep = tmp_path / f"deep.{kind}"
        cv2.imwrite(str(deep), upright[..., ::-1].astype(np.uint16) * 257)
        assert "has 16 bits a sample; it is delivered with 8" in probe(str(deep)).warnings[0]
    Image.fromarray(upright).save(path)
    assert probe(str(path)).warnings == ()


def test_moving_pictures_are_videos_or_named(make_video: Any, tmp_path: Path) -> None:
    frames = [Image.fromarray(make_video.draw(index, (96, 64))) for index in range(6)]
    for kind in ("gif", "png"):
        path = tmp_path / f"moving.{kind}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0)
        info = probe(str(path))
        assert (info.is_still, info.frame_count) == (False, 6)
        assert [make_video.number(frame) for frame in read_frames(info, [5, 2])] == [5, 2]
    path = tmp_path / "moving.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    with pytest.raises(
        MediaError, match=r"moving\.webp: is an animated WebP; allowed: pictures, GIF, APNG, or a video"
    ):
        probe(str(path))


def test_damaged_pictures_are_named(upright: NDArray[np.uint8], tmp_path: Path) -> None:
    for kind in ("jpg", "png", "webp", "tiff"):
        path = tmp_path / f"half.{kind}"
        Image.fromarray(upright).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(MediaError, match=rf"half\.{kind}: (the picture is damaged|can't be opened|frame 0)"):
            probe(str(path))


def test_other_files_are_left_to_ffmpeg(make_video: Any, make_tone: Any) -> None:
    assert read_still(make_video(frames=2)) is None
    assert read_still(make_tone()) is None
