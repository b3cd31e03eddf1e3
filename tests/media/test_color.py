"""Colours against the standards' own formulas."""

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.errors import MediaError
from dreamhead.media.color import SWS_MATRICES, ColorConverter

# Kr and Kb of ITU-R BT.709, BT.601 and BT.2020, by FFmpeg's numbers of the matrices.
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def slope() -> NDArray[np.uint8]:
    y, x = np.mgrid[0:96, 0:128]
    return np.stack([x * 2, y * 2.6, 128 + 100 * np.sin(x / 20) * np.cos(y / 17)], axis=-1).astype(np.uint8)


def expected_yuv(rgb: NDArray[np.uint8], matrix: int, is_full: bool) -> NDArray[np.float64]:
    kr, kb = WEIGHTS[matrix]
    red, green, blue = np.moveaxis(rgb / 255.0, -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = np.stack([(blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
    if is_full:
        return np.concatenate([luma[None] * 255, chroma * 255 + 128])
    return np.concatenate([16 + luma[None] * 219, 128 + chroma * 224])


@pytest.mark.parametrize("matrix", WEIGHTS.keys() & SWS_MATRICES.keys())
@pytest.mark.parametrize("color_range", [1, 2])
def test_matrix_and_range(matrix: int, color_range: int) -> None:
    color = (2, 2, matrix, color_range)
    converter = ColorConverter()
    frame = converter.from_rgb(slope(), "yuv444p", color)
    assert (frame.colorspace, frame.color_range) == (matrix, color_range)
    planes = np.stack([np.frombuffer(plane, np.uint8).reshape(96, -1)[:, :128] for plane in frame.planes])
    assert np.abs(planes - expected_yuv(slope(), matrix, color_range == 2)).mean() < 0.5
    assert np.abs(converter.to_rgb(frame, color).astype(int) - slope()).mean() < 1.0


def test_luma_survives_generations() -> None:
    converter, color = ColorConverter(), (1, 1, 1, 1)
    first = converter.from_rgb(slope(), "yuv420p", color)
    frame = first
    for _ in range(5):
        frame = converter.from_rgb(converter.to_rgb(frame, color), "yuv420p", color)
    assert bytes(frame.planes[0]) == bytes(first.planes[0])


def test_untagged_picture_uses_what_the_container_says() -> None:
    tagged = ColorConverter().from_rgb(slope(), "yuv444p", (1, 1, 1, 1))
    tagged.colorspace, tagged.color_range = 2, 0
    as_709 = ColorConverter().to_rgb(tagged, (1, 1, 1, 1))
    assert np.abs(as_709.astype(int) - slope()).mean() < 1.0
    assert np.abs(ColorConverter().to_rgb(tagged, (2, 2, 2, 0)).astype(int) - slope()).mean() > 4.0


def test_unknown_matrix_is_refused() -> None:
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.colorspace = 8
    with pytest.raises(MediaError, match=r"colour matrix 8 can't be converted; allowed .*\[1, 4, 5, 6, 7"):
        ColorConverter().to_rgb(frame, (2, 2, 2, 0))
