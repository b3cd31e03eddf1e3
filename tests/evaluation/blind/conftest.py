"""A comparison of three clips' dubs behind its page, on the loopback address."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from dreamhead.evaluation.blind.app import Comparison, build_app
from dreamhead.evaluation.blind.ballot import Dubs, VoteBook
from tests.conftest import VideoMaker

CLIPS = ("plain clip", "50% off #1?", "naïve – 日本")
FRAMES = 40


class Hall:
    """Where judges come: the page's address, and the votes behind it."""

    def __init__(self, url: str, book: VoteBook, dubs: list[Dubs]) -> None:
        self.url = url
        self.book = book
        self.dubs = dubs


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    """Dub a is dark and b is bright, in every clip."""
    maker, dubs = VideoMaker(tmp_path), []
    for number, clip in enumerate(CLIPS):
        pictures = [[np.full((48, 64, 3), level + number, np.uint8)] * FRAMES for level in (40, 200)]
        a, b = (Path(maker(f"{which} {number}.mp4", frames)) for which, frames in zip("ab", pictures, strict=True))
        dubs.append(Dubs(clip, a, b))
    book = VoteBook(tmp_path / "votes", "dubs/dark", "dubs/bright", dubs)
    app = build_app(Comparison(dubs, ("dubs/dark", "dubs/bright"), book, seed=1))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        end = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < end, "the page's server didn't start within 30 s"
            time.sleep(0.02)
        yield Hall(f"http://127.0.0.1:{listening.getsockname()[1]}/", book, dubs)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
