"""A clip in pixels that aren't square gets the verdict of the same clip in square ones."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.evaluation import look
from dreamhead.evaluation.conditions import Take
from dreamhead.evaluation.judge import ConditionJudge
from dreamhead.evaluation.lipsync import face_pictures
from dreamhead.evaluation.measure import Pair, measure_landmarks
from dreamhead.evaluation.records import JudgedClip, Task
from dreamhead.evaluation.settings import ConditionName
from dreamhead.media.video import probe
from tests.anamorphic import stored
from tests.evaluation.conftest import SETTINGS


@pytest.fixture
def judge(tmp_path: Path, weights: str) -> Iterator[ConditionJudge]:
    found = ConditionJudge(SETTINGS, weights, str(tmp_path / "out"))
    yield found
    found.close()


@pytest.mark.parametrize(
    ("aspect", "rotation", "conditions"),
    [
        ("4/3", 0, ("real", "reencoded", "warp", "copy")),
        ("1/2", 0, ("copy",)),
        ("2", 90, ("reencoded", "copy")),
    ],
)
def test_the_verdict_is_that_of_square_pixels(
    judge: ConditionJudge,
    speaking_clip: JudgedClip,
    speaking_frames: list[NDArray[np.uint8]],
    make_video: Any,
    monkeypatch: pytest.MonkeyPatch,
    aspect: str,
    rotation: int,
    conditions: tuple[ConditionName, ...],
) -> None:
    seen: set[tuple[int, ...]] = set()
    add = look.PixelMeter.add

    def noting(meter: look.PixelMeter, pair: Pair) -> None:
        seen.update({pair.our_frame.shape, pair.true_frame.shape})
        add(meter, pair)

    monkeypatch.setattr(look.PixelMeter, "add", noting)
    upright = Fraction(aspect)
    coded = [np.rot90(stored(frame, upright), -(rotation // 90)) for frame in speaking_frames]
    coded_aspect = 1 / upright if rotation else upright
    uri = make_video("squeezed.mp4", coded, aspect=coded_aspect, rotation=rotation)
    clip = replace(speaking_clip, clip_id="squeezed", video_uri=uri)
    for condition in conditions:
        ours, square = (judge(Task(clip=each, condition=condition)) for each in (clip, speaking_clip))
        assert ours.error == square.error == ""
        # Openings are 0.18 to 0.4 eye distances; in stored pixels they would be a quarter larger at 4:3.
        # Which of two mouths that are as near is copied turns on less than that.
        for curve in ("truth",) if condition == "copy" else ("ours", "truth"):
            found, true = (np.array(each.curves[curve], float) for each in (ours, square))
            assert np.median(np.abs(found - true)) < 0.02
        if condition != "copy":
            assert ours.figures["mouth_lmd"] == pytest.approx(square.figures["mouth_lmd"], abs=0.01)
            assert ours.figures["correlation"] == pytest.approx(square.figures["correlation"], abs=0.03)
        assert ours.figures["seam"] == pytest.approx(square.figures["seam"], abs=0.15)
        assert ours.figures["colour_step"] == pytest.approx(square.figures["colour_step"], abs=2)
        if condition in ("warp", "copy"):
            assert ours.figures["mouth_psnr_db"] == pytest.approx(square.figures["mouth_psnr_db"], abs=2)
    # Others' networks that look for themselves are shown square pixels.
    assert seen == {(256, 256, 3)}


def test_lips_that_are_shown_to_syncnet_are_square(
    judge: ConditionJudge, speaking_clip: JudgedClip, speaking_frames: list[NDArray[np.uint8]], make_video: Any
) -> None:
    uri = make_video("squeezed.mp4", [stored(frame, Fraction(2)) for frame in speaking_frames], aspect=Fraction(2))
    shown = []
    for info in (probe(uri), probe(speaking_clip.video_uri)):
        take = Take(info=info, first=0, frame_count=10)
        shown.append(face_pictures(take, measure_landmarks(judge._analyser, take), 10).astype(int))
    assert np.abs(shown[0] - shown[1]).mean() < 5
