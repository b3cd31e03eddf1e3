"""Finding cuts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamhead.media.shots import ShotDetector
from dreamhead.media.video import probe, read_frames


def cuts(frames: Any, rate: float = 25.0) -> list[int]:
    detector = ShotDetector(27.0, rate)
    return [index for index, frame in enumerate(frames) if detector.is_cut(frame)]


def scene(make_video: Any, hue: int, frames: int, first: int = 0) -> list[Any]:
    tint = np.roll(np.array([1.0, 0.3, 0.1]), hue)
    return [(make_video.draw(first + index, (320, 180)) * tint).astype(np.uint8) for index in range(frames)]


def test_cuts_are_seen_at_once_and_motion_is_none(make_video: Any) -> None:
    frames = scene(make_video, 0, 20) + scene(make_video, 1, 30) + scene(make_video, 2, 10)
    assert cuts(frames) == [20, 50]


def test_flash_is_one_cut_at_most(make_video: Any) -> None:
    frames = scene(make_video, 0, 20)
    frames[12] = np.full_like(frames[12], 255)
    assert cuts(frames) == [12]
    frames = scene(make_video, 0, 20)
    frames[3] = np.full_like(frames[3], 255)
    assert cuts(frames) == []


def test_shortest_shot_follows_the_frame_rate(make_video: Any) -> None:
    frames = scene(make_video, 0, 10) + scene(make_video, 1, 10)
    assert cuts(frames, 30.0) == [10]
    assert cuts(frames, 60.0) == []


@pytest.mark.clips
def test_one_shot_of_a_real_clip(clips: Path) -> None:
    info = probe(str(clips / "clips" / "interview_25fps.mp4"))
    assert cuts(read_frames(info, range(info.frame_count))) == []
