"""Encode frames to chunks that join by stream copy: one closed group of pictures or more, constant parameters."""

import platform
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast, get_args

import av
import cv2
import numpy as np
from av.codec.context import CodecContext, Flags
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dreamhead.config import OutputSettings
from dreamhead.errors import ConfigError, MediaError
from dreamhead.media.color import ColorConverter, encodable
from dreamhead.media.container import media_errors
from dreamhead.records import VideoInfo

X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
NVENC_PRESETS = ("p1", "p2", "p3", "p4", "p5", "p6", "p7", "slow", "medium", "fast")

MAX_TIMESCALE = 2**31 - 1

MOVIE_TICKS = 48_000
"""Fewest ticks a second of an MP4's edit lists."""

OPENCV_CPU_AVX2 = 11
"""OpenCV's number of the feature, which its Python names lack."""


def encode_chunk(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    info: VideoInfo,
    pts: NDArray[np.int64],
    end_pts: int,
    settings: OutputSettings,
) -> int:
    """Write `frames`, each (H, W, 3) RGB upright as shown, to an MP4 file; returns how many there were.

    `pts` (T,) and `end_pts` are ticks of the source's time base; the file's times start at zero. Pixels are turned
    back to the source's coded orientation: `join` writes the rotation. Raises ConfigError for an unknown preset,
    MediaError when the encoder isn't to be had, or the frames
    are of another size or more than there are times.
    """
    check_preset(settings)
    color, converter = encodable(info), ColorConverter()
    times = [int(tick) for tick in pts - pts[0]]
    durations = [int(step) for step in np.diff(np.append(pts, end_pts))]
    count = 0
    with (
        media_errors(str(path), "can't be encoded"),
        av.open(str(path), "w", format="mp4", container_options=mp4_timescales(info.time_base)) as output,
    ):
        stream = _add_stream(output, info, settings)
        for array in frames:
            if count == len(times):
                raise MediaError(f"{path}: more frames than the {len(times)} times that were given")
            frame = converter.from_rgb(_as_coded(array, info), str(stream.pix_fmt), color)
            frame.time_base, frame.pts, frame.duration = info.time_base, times[count], durations[count]
            output.mux(stream.encode(frame))
            count += 1
        if count:
            output.mux(stream.encode(None))
    return count


def check_preset(settings: OutputSettings) -> None:
    """Raise ConfigError when the encoder has no such preset."""
    allowed = NVENC_PRESETS if settings.codec.endswith("_nvenc") else X26X_PRESETS
    if settings.preset not in allowed:
        raise ConfigError(f"output.preset {settings.preset!r} is unknown to {settings.codec}; allowed: {list(allowed)}")


def available_codecs() -> list[str]:
    """The video encoders of `OutputSettings.codec` that open on this machine."""
    return [codec for codec in get_args(OutputSettings.model_fields["codec"].annotation) if _opens(codec)]


def mp4_timescales(time_base: Fraction) -> dict[str, str]:
    """Options of FFmpeg's MP4 muxer that keep times of `time_base` exactly, in the track and in its edit list."""
    if time_base.denominator > MAX_TIMESCALE:
        raise MediaError(f"time base {time_base} is too fine for MP4; allowed: 1/{MAX_TIMESCALE} s or coarser")
    ticks = time_base.denominator
    # The movie's scale also places the sound, which a coarse one would move; a multiple keeps the pictures exact.
    movie_ticks = ticks * -(-MOVIE_TICKS // ticks)
    return {"video_track_timescale": str(ticks), "movie_timescale": str(movie_ticks)}


def _add_stream(output: OutputContainer, info: VideoInfo, settings: OutputSettings) -> VideoStream:
    stream = output.add_stream(settings.codec, rate=info.average_rate, options=_options(settings))
    context = stream.codec_context
    context.width, context.height = info.width, info.height
    # 4:2:0 can't hold odd sizes, and the picture keeps its size.
    context.pix_fmt = "yuv444p" if info.width % 2 or info.height % 2 else "yuv420p"
    context.time_base = info.time_base
    context.sample_aspect_ratio = info.sample_aspect_ratio
    context.color_primaries, context.color_trc, context.colorspace, context.color_range = encodable(info)
    context.thread_count = settings.encoder_threads
    context.gop_size = max(1, round(settings.keyframe_s * float(info.average_rate)))
    context.flags |= Flags.frame_duration
    try:
        context.open()
    except FFmpegError as error:
        raise MediaError(
            f"encoder {settings.codec} can't be opened for {info.width}x{info.height}: {error.strerror}; "
            f"encoders that work on this machine: {available_codecs()}"
        ) from error
    return stream


def _options(settings: OutputSettings) -> dict[str, str]:
    options = {"preset": settings.preset}
    if settings.codec.endswith("_nvenc"):
        return {**options, "rc": "vbr", "cq": str(settings.quality)}
    options["crf"] = str(settings.quality)
    if settings.codec == "libx265":
        # Open groups of pictures, its default, lean on what came before the chunk.
        options["x265-params"] = f"open-gop=0:pools={settings.encoder_threads}:info=0:log-level=none"
    elif platform.machine() in ("x86_64", "AMD64"):
        # x264's AVX-512 code reads what nobody wrote: its output changes from run to run.
        best = "AVX2" if cv2.checkHardwareSupport(OPENCV_CPU_AVX2) else "SSE4.2"
        options["x264-params"] = f"asm={best}"
    return options


def _as_coded(array: NDArray[np.uint8], info: VideoInfo) -> NDArray[np.uint8]:
    turned = np.rot90(array, -(info.rotation // 90))
    if turned.shape != (info.height, info.width, 3):
        raise MediaError(
            f"{info.uri}: a frame to encode is {array.shape}, turned as coded {turned.shape}; "
            f"expected {(info.height, info.width, 3)} as coded"
        )
    return turned


def _opens(codec: str) -> bool:
    try:
        context = cast(VideoCodecContext, CodecContext.create(codec, "w"))
        context.options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.open()
    except FFmpegError:
        return False
    return True
