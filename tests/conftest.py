"""Makers of small media files, a clip with a face, the one Ray of the session, the development clips where at hand."""

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any

import av
import cv2
import numpy as np
import pytest
import ray
import torch
from numpy.typing import NDArray

from dreamhead.stages import attempts

ROOT = Path(__file__).parents[1]
CLIPS = Path(__file__).parents[2] / "shared" / "data"
BITS = 10

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_randomness_for_all() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(autouse=True)
def _storage_is_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "RETRY_PAUSES_S", (0.0,))


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder with `clips` and `speech`; skips the test without it."""
    if not CLIPS.is_dir():
        pytest.skip(f"the development clips aren't at {CLIPS}")
    return CLIPS


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray in this process, with more logical CPUs than there are, so that every pool fits."""
    with pytest.MonkeyPatch.context() as patch:
        # An address left by a run that died would make Ray connect instead of start.
        patch.setenv("RAY_ADDRESS", "local")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        # Serve kills a proxy that isn't up within seconds, which a machine with much else to do doesn't give it.
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        # Actors import what the tests import, also from a checkout that isn't installed.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            object_store_memory=256 * 1024 * 1024,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield
        ray.shutdown()


class VideoMaker:
    """Makes videos whose frames carry their number as a row of black and white squares."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        name: str = "clip.mp4",
        frames: int | Sequence[NDArray[np.uint8]] = 25,
        *,
        rate: Fraction | int = 25,
        size: tuple[int, int] = (96, 64),
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        time_base: Fraction | None = None,
        pts: Sequence[int] | None = None,
        rotation: int = 0,
        mirrored: bool = False,
        aspect: Fraction = Fraction(1),
        color: tuple[int, int, int, int] | None = None,
        options: dict[str, str] | None = None,
        sound_s: float = 0.0,
    ) -> str:
        """Write `frames` (arrays of RGB, or how many to draw) of `size` (width, height) and return the path."""
        pictures = [self.draw(index, size) for index in range(frames)] if isinstance(frames, int) else frames
        base = time_base or 1 / Fraction(rate)
        path = self.folder / name
        ticks = str(base.denominator)
        is_mp4 = path.suffix in (".mp4", ".mov")
        muxing = {"video_track_timescale": ticks, "movie_timescale": ticks} if is_mp4 else {}
        with av.open(str(path), "w", container_options=muxing) as output:
            stream = output.add_stream(codec, rate=rate, options={"crf": "10", **(options or {})})
            context = stream.codec_context
            context.height, context.width = pictures[0].shape[:2]
            context.pix_fmt, context.time_base, context.sample_aspect_ratio = pixel_format, base, aspect
            context.thread_count = 1
            context.flags |= av.codec.context.Flags.frame_duration
            if color is not None:
                context.color_primaries, context.color_trc, context.colorspace, context.color_range = color
            if rotation or mirrored:
                stream.set_display_rotation(rotation, hflip=mirrored)
            sound = output.add_stream("aac", rate=16_000, layout="mono") if sound_s else None
            for index, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format=pixel_format, dst_colorspace=_sws_matrix(color))
                frame.time_base, frame.pts = base, pts[index] if pts is not None else index
                if pts is None:
                    frame.pts = round(index / Fraction(rate) / base)
                frame.duration = round(1 / Fraction(rate) / base)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            if sound is not None:
                output.mux(sound.encode(_audio_frame(sine(sound_s, 16_000), 16_000)))
                output.mux(sound.encode(None))
        return str(path)

    @staticmethod
    def draw(index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W, 3) a slope of colours that moves, with the frame's number in bits along the top."""
        width, height = size
        y, x = np.mgrid[0:height, 0:width].astype(np.float64)
        planes = [x / width, y / height, 0.5 + 0.5 * np.sin((x + 3 * index) / 15)]
        picture = (np.stack(planes, axis=-1) * 200 + 25).astype(np.uint8)
        side = width // BITS
        for bit in range(BITS):
            picture[:side, bit * side : (bit + 1) * side] = 235 if index >> bit & 1 else 16
        return picture

    @staticmethod
    def number(picture: NDArray[np.uint8]) -> int:
        """The number that `draw` put into an upright picture."""
        side = picture.shape[1] // BITS
        levels = [picture[side // 4 : side // 2 + 1, bit * side + side // 4 :][:, : side // 2] for bit in range(BITS)]
        return sum(1 << bit for bit, level in enumerate(levels) if level.mean() > 128)


class ToneMaker:
    """Makes sound files: a tone that rises from 200 Hz, so that every moment is unlike the others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        name: str = "tone.wav",
        seconds: float = 1.0,
        *,
        rate: int = 16_000,
        layout: str = "mono",
        codec: str = "pcm_s16le",
        container: str | None = None,
    ) -> str:
        """Write `seconds` of `sine` in every channel and return the path."""
        path = self.folder / name
        with av.open(str(path), "w", format=container) as output:
            stream = output.add_stream(codec, rate=rate, layout=layout)
            stream.codec_context.time_base = Fraction(1, rate)
            samples = sine(seconds, rate)
            channels = len(av.AudioLayout(layout).channels)
            output.mux(stream.encode(_audio_frame(np.tile(samples, (channels, 1)), rate, layout)))
            output.mux(stream.encode(None))
        return str(path)

    @staticmethod
    def sine(seconds: float, rate: int) -> NDArray[np.float32]:
        """(N,) what a file holds."""
        return sine(seconds, rate)


@pytest.fixture(scope="session")
def face_frames() -> list[NDArray[np.uint8]]:
    """A portrait seen by a camera that moves: 24 frames (256, 256, 3); skips the test without scikit-image."""
    package = pytest.importorskip("skimage")
    picture = cv2.imread(str(Path(package.__file__).parent / "data" / "astronaut.png"))
    portrait = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    frames = []
    for index in range(24):
        left, top = 100 + index, 10 + index // 2
        view = portrait[top : top + 224, left : left + 224]
        frames.append(cv2.resize(view, (256, 256), interpolation=cv2.INTER_AREA))
    return frames


@pytest.fixture(scope="module")
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """Uri of an empty bucket on a real S3 endpoint."""
    # Slow to import, and most tests need none.
    from moto.s3.responses import S3Response

    from tests.s3 import s3_bucket

    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with pytest.MonkeyPatch.context() as patch, s3_bucket(name) as uri:
        patch.setattr(S3Response, "put_object", one_at_a_time(S3Response.put_object))
        yield uri


@pytest.fixture(params=["path", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A directory uri of each kind."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return str(tmp_path)


@pytest.fixture
def make_video(tmp_path: Path) -> VideoMaker:
    """Makes videos in the test's own folder."""
    return VideoMaker(tmp_path)


@pytest.fixture
def make_tone(tmp_path: Path) -> ToneMaker:
    """Makes sound files in the test's own folder."""
    return ToneMaker(tmp_path)


def one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    """S3 checks a write's condition and writes in one step; moto does so only where one request is served at a time."""
    lock = Lock()

    def locked(*arguments: Any) -> Any:
        with lock:
            return method(*arguments)

    return locked


def sine(seconds: float, rate: int) -> NDArray[np.float32]:
    """(N,) a tone that rises from 200 Hz by 100 Hz a second."""
    times = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * times + 50 * times**2))).astype(np.float32)


def _audio_frame(samples: NDArray[np.float32], rate: int, layout: str = "mono") -> Any:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(np.atleast_2d(samples)), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


def _sws_matrix(color: tuple[int, int, int, int] | None) -> int:
    return 1 if color is not None and color[2] == 1 else 5
