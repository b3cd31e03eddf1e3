"""The real detector on outputs of which it is known what is wrong with them."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from dreamhead.config import ReviewSettings
from dreamhead.faces import geometry, topology
from dreamhead.faces.crop import apply_transform
from dreamhead.records import Chunk
from dreamhead.stages.review.figures import figures
from dreamhead.stages.review.look import Look, look_at
from dreamhead.stages.review.sample import Stretch

Clip = Any  # The fixtures' own classes; conftest modules can't be imported.


@pytest.fixture
def see(clip: Clip, detector: Any, publish: Any) -> Any:
    """Looks at frames 5 to 25 of an output that was to show the speaker's own mouth."""
    chunk = Chunk(job=clip.job, start=0, stop=30, shot_start=0, shot_stop=30, analysis_uri="", dubbed_frames=30)
    pose = geometry.fit_pose(clip.shot.landmarks)
    targets = pose.to_canonical(clip.shot.landmarks)[:, topology.lower_face()]

    def look(frames: list[Any]) -> Look:
        stretch = Stretch(chunk=chunk, start=5, stop=25)
        output = publish(frames)
        return look_at(stretch, clip.source, output, clip.shot, targets, detector, every=5, feather=0.06)

    return look


def test_the_source_itself_is_perfect(clip: Clip, see: Any) -> None:
    look = see(clip.frames)
    found = figures([look], ReviewSettings())
    assert look.times_s == pytest.approx(np.arange(5, 25) / 25)
    assert [one.shown.frame for one in look.pixels] == [5, 10, 15, 20]
    assert look.pixels[0].shown.ours.shape == (64, 64, 3)
    np.testing.assert_allclose(look.wanted, look.source, atol=1e-5)
    assert found["faces_found"] == 1
    assert found["lip_error"] < 0.02
    assert 0.85 < found["sharpness"] < 1.1
    assert found["colour_step"] < 2
    assert 0.95 < found["seam"] < 1.05
    assert found["untouched_db"] > 35


def test_a_hidden_face_is_missed(clip: Clip, see: Any) -> None:
    frames = [frame.copy() for frame in clip.frames]
    for frame in frames[10:15]:
        frame[:] = 90
    look = see(frames)
    lost = [bool(np.isnan(face).all()) for face in look.ours]
    assert lost == [5 <= index < 10 for index in range(20)]
    assert figures([look], ReviewSettings())["faces_found"] == pytest.approx(0.75)


def test_a_blurred_mouth_is_softer_and_a_tinted_face_has_a_seam(clip: Clip, see: Any) -> None:
    plain = figures([see(clip.frames)], ReviewSettings())
    blurred = figures([see([_on_mouth(clip, index, _blur) for index in range(30)])], ReviewSettings())
    assert blurred["sharpness"] < 0.5 * plain["sharpness"]
    tinted = figures([see([_on_mouth(clip, index, _tint) for index in range(30)])], ReviewSettings())
    assert tinted["colour_step"] > plain["colour_step"] + 5
    assert tinted["untouched_db"] > 30


def test_another_frames_picture_isnt_the_untouched_source(clip: Clip, see: Any) -> None:
    shifted = [*clip.frames[15:], *clip.frames[:15]]
    assert figures([see(shifted)], ReviewSettings())["untouched_db"] < 28


def test_a_still_shows_one_frame_of_the_source_all_along(clip: Clip, detector: Any, publish: Any) -> None:
    held = replace(clip.source.timeline, source=np.zeros(30, np.int64))
    source = replace(clip.source, timeline=held)
    chunk = Chunk(job=clip.job, start=0, stop=30, shot_start=0, shot_stop=30, analysis_uri="", dubbed_frames=30)
    own = geometry.fit_pose(clip.shot.landmarks[:1]).to_canonical(clip.shot.landmarks[:1])
    targets = np.repeat(own[:, topology.lower_face()], 30, axis=0)
    output = publish([clip.frames[0]] * 30)
    stretch = Stretch(chunk=chunk, start=0, stop=12)
    look = look_at(stretch, source, output, clip.shot, targets, detector, every=5, feather=0.06)
    found = figures([look], ReviewSettings())
    assert found["untouched_db"] > 35
    assert found["faces_found"] == 1
    assert "lip_correlation" not in found
    assert np.ptp(look.source, axis=0).max() == 0


def _on_mouth(clip: Clip, index: int, change: Any) -> Any:
    """The frame with its lower face changed."""
    frame = clip.frames[index].copy()
    points = apply_transform(np.eye(2, 3), clip.shot.landmarks[index])[topology.lower_face(), :2]
    left, top = points.min(axis=0).astype(int)
    right, bottom = points.max(axis=0).astype(int)
    frame[top:bottom, left:right] = change(frame[top:bottom, left:right])
    return frame


def _blur(part: Any) -> Any:
    return cv2.GaussianBlur(part, (0, 0), 2)


def _tint(part: Any) -> Any:
    return np.clip(part.astype(int) + np.array([25, 0, 0]), 0, 255).astype(np.uint8)
