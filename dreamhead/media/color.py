"""Convert pictures between FFmpeg's pixel formats and RGB arrays, without a shift of colour."""

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from dreamhead.errors import MediaError
from dreamhead.records import VideoInfo

Color = tuple[int, int, int, int]
"""FFmpeg's numbers of primaries, transfer, matrix and range."""

BT709: Color = (1, 1, 1, 1)
"""Colour of high-definition video, with limited range."""

UNSPECIFIED = 2
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""By FFmpeg's number of the transfer."""

RGB_MATRIX = 0

# swscale's numbers, by FFmpeg's numbers of the same matrices; neither BT.2020's constant luminance nor YCgCo is there.
# PyAV knows BT.2020 (9) from its version 18 on; an older one would convert it wrongly, so it is refused there.
SWS_MATRICES = {number: {6: 5}.get(number, number) for number in sorted({6, *(known.value for known in Colorspace)})}
BT601_SWS = 5
BT709_SWS = 1

HD_HEIGHT = 720

# swscale's fast paths darken by a level a generation; with all of these, luma survives a round trip to the bit.
# SWS_BILINEAR, ACCURATE_RND, FULL_CHR_H_INT and FULL_CHR_H_INP; PyAV below 18 has no names for the last three.
EXACT = 0x2 | 0x40000 | 0x2000 | 0x4000


class ColorConverter:
    """Converts the frames of one video; not for use by several threads at once."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: VideoFrame, color: Color) -> NDArray[np.uint8]:
        """Convert a decoded frame to (H, W, 3) RGB, full range; `color` stands in for tags that the frame lacks.

        Raises MediaError for a matrix that can't be converted.
        """
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=None if frame.format.is_rgb else _sws_matrix(_matrix(frame, color), frame.height),
            src_color_range=ColorRange.JPEG if frame.format.is_rgb else _range(frame, color),
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
            threads=1,
        )
        array: NDArray[np.uint8] = rgb.to_ndarray().astype(np.uint8, copy=False)
        return array

    def from_rgb(self, array: NDArray[np.uint8], pixel_format: str, color: Color) -> VideoFrame:
        """Convert (H, W, 3) RGB to a frame of `pixel_format`, tagged with `color` as `encodable` gives it."""
        primaries, transfer, matrix, color_range = color
        frame = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24"),
            format=pixel_format,
            dst_colorspace=_sws_matrix(matrix, array.shape[0]),
            src_color_range=ColorRange.JPEG,
            dst_color_range=color_range or ColorRange.MPEG,
            interpolation=EXACT,
            threads=1,
        )
        frame.color_primaries, frame.color_trc = primaries, transfer
        frame.colorspace, frame.color_range = matrix, color_range
        return frame


def encodable(info: VideoInfo) -> Color:
    """The colour that an encoded video carries: the source's, or BT.709 where the source is a picture or RGB."""
    return BT709 if info.is_still or info.color[2] == RGB_MATRIX else info.color


def _matrix(frame: VideoFrame, color: Color) -> int:
    return color[2] if frame.colorspace == UNSPECIFIED else frame.colorspace


def _range(frame: VideoFrame, color: Color) -> int:
    return frame.color_range or color[3] or ColorRange.MPEG


def _sws_matrix(matrix: int, height: int) -> int:
    if matrix in (UNSPECIFIED, RGB_MATRIX):
        # What players assume of video that doesn't say.
        return BT709_SWS if height >= HD_HEIGHT else BT601_SWS
    if matrix not in SWS_MATRICES:
        raise MediaError(f"colour matrix {matrix} can't be converted; allowed (FFmpeg's numbers): {[*SWS_MATRICES]}")
    return SWS_MATRICES[matrix]
