"""Each rule has a figure, a limit and a reason."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from dreamhead.config import PreparationSettings
from dreamhead.stages.preparation import judge
from dreamhead.stages.preparation.offset import ClipFit
from dreamhead.stages.preparation.pictures import Pictures
from dreamhead.stages.preparation.sound import Sound
from tests.stages.preparation.conftest import babble, candidate

SETTINGS = PreparationSettings()
GOOD = Pictures(crops=[], sharpness=0.05, brightness=120.0, second_face=0.0, sheet=b"")
LOUD = Sound(babble(2.0))


def test_a_good_clip_passes() -> None:
    clip = candidate(np.zeros(30))
    assert judge.refused(clip, SETTINGS) == []
    assert judge.unfit(GOOD, SETTINGS) == []
    assert judge.unheard(clip, GOOD, LOUD, ClipFit(0.6, True), SETTINGS) == []


def test_what_is_refused_unseen() -> None:
    clip = candidate(np.zeros(30))
    rare = dataclasses.replace(clip.track, detected_share=0.4)
    jump = np.arange(30) / 25
    jump[15:] += 0.5
    cases: dict[str, dict[str, Any]] = {
        "turned away": {"reason": "turned away"},
        "face seldom found": {"track": rare},
        "uneven frame times": {"times_s": jump},
    }
    for reason, values in cases.items():
        assert judge.refused(candidate(np.zeros(30), **values), SETTINGS) == [reason]
    assert judge.refused(candidate(np.zeros(24)), SETTINGS) == ["too short"]


@pytest.mark.parametrize(
    ("figure", "value", "reason"),
    [("sharpness", 0.003, "blurred"), ("brightness", 30.0, "too dark"), ("brightness", 230.0, "too bright")],
)
def test_what_is_refused_by_its_pictures(figure: str, value: float, reason: str) -> None:
    assert judge.unfit(dataclasses.replace(GOOD, **{figure: value}), SETTINGS) == [reason]  # type: ignore[arg-type]


def test_whose_sound_isnt_used() -> None:
    clip = candidate(np.zeros(30))
    crowd = dataclasses.replace(GOOD, second_face=0.7)
    assert judge.unheard(clip, crowd, LOUD, ClipFit(0.6, True), SETTINGS) == ["several faces"]
    assert judge.unheard(clip, GOOD, Sound(np.zeros(9, np.float32)), None, SETTINGS) == ["silent"]
    assert judge.unheard(clip, GOOD, LOUD, ClipFit(0.1, False), SETTINGS) == ["lips don't follow the sound"]
