"""Encode pictures as H.264 video whose parts join by stream copy, in colours that OpenCV gives back."""

import io
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from dreamhead.errors import InputError
from dreamhead.media.container import media_errors

RATE = 25
"""Nominal: a clip's own frame rate stands elsewhere."""
BT601, LIMITED = 6, 1
"""FFmpeg's numbers of a matrix and a range: what OpenCV takes for granted, should it not look at the tags."""
TO_YUV = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
# OpenCV lets swscale round colours down, which darkens by a level; luma is lifted by as much.
OFFSET = np.array([16.0 + 1.0, 128.0, 128.0])
DELAY = 2
"""Most pictures by which a pyramid of B-frames shows one later than it is decoded."""


def encode_pictures(pictures: Sequence[NDArray[np.uint8]], crf: int, where: str) -> bytes:
    """An MP4 file of (S, S, 3) RGB pictures, S even: one group of pictures; `where` names them in errors."""
    size = len(pictures[0])
    if size % 2:
        raise InputError(f"{where}: crops of {size} pixels; allowed: an even size")
    file = io.BytesIO()
    options = {"preset": "veryslow", "crf": str(crf), "keyint": "infinite", "threads": "1"}
    with media_errors(where, "can't be encoded"), av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=RATE, options=options)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = size, size, "yuv420p"
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = (*[BT601] * 3, LIMITED)
        for number, picture in enumerate(pictures):
            frame = _frame(picture)
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def join_videos(videos: Sequence[bytes], path: Path) -> None:
    """Write the pictures of all videos one after another, as they are encoded."""
    with media_errors(str(path), "can't be written"), av.open(str(path), "w", format="mp4") as output:
        with av.open(io.BytesIO(videos[0])) as first:
            stream = output.add_stream_from_template(first.streams.video[0], opaque=True)
        start = 0
        for video in videos:
            with av.open(io.BytesIO(video)) as source:
                packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
                begin = min(packet.pts or 0 for packet in packets)
                for number, packet in enumerate(packets):
                    tick = 1 / RATE / packet.time_base
                    packet.stream = stream
                    packet.pts = (packet.pts or 0) - begin + round(start * tick)
                    packet.dts = round((start + number - DELAY) * tick)
                    output.mux(packet)
            start += len(packets)


def _frame(picture: NDArray[np.uint8]) -> VideoFrame:
    """4:2:0, chroma from the mean of four pixels."""
    size = len(picture)
    yuv = picture.astype(np.float32) @ TO_YUV.T.astype(np.float32) + OFFSET.astype(np.float32)
    chroma = yuv[..., 1:].reshape(size // 2, 2, size // 2, 2, 2).mean(axis=(1, 3))
    planes = [part.ravel() for part in (yuv[..., 0], chroma[..., 0], chroma[..., 1])]
    rounded = np.clip(np.rint(np.concatenate(planes)), 0, 255).astype(np.uint8)
    frame = VideoFrame.from_ndarray(rounded.reshape(size * 3 // 2, size), format="yuv420p")
    frame.colorspace, frame.color_range = BT601, LIMITED
    return frame
