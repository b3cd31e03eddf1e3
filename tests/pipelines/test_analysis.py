"""A portrait that moves, then a picture of nobody: shots, routes, resting face, crops and references."""

import tracemalloc
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.config import AnalysisSettings, WeightsSettings
from dreamhead.errors import InputError
from dreamhead.faces import geometry
from dreamhead.faces.reference import ReferenceKeeper
from dreamhead.faces.tracking import FaceTracker
from dreamhead.pipelines.analysis import VideoAnalyser, _without_glimpses
from dreamhead.records import Route, ShotAnalysis
from tests.toy_faces import astronaut, canonical_face, posed

Picture = NDArray[np.uint8]
SIZE = 96
MOVING, EMPTY = 10, 9
SETTINGS = AnalysisSettings(crop_size=SIZE, reference_frames=4)


@pytest.fixture(scope="module")
def frames() -> list[Picture]:
    """(240, 320, 3): ten of the portrait on its way to the right, nine of blue sky."""
    head = cv2.resize(astronaut()[:300, 80:380], (240, 240), interpolation=cv2.INTER_AREA)
    moving = []
    for step in range(MOVING):
        frame = np.full((240, 320, 3), 90, np.uint8)
        frame[:, 3 * step : 3 * step + 240] = head
        moving.append(frame)
    sky = np.full((240, 320, 3), (20, 60, 220), np.uint8)
    return moving + [sky] * EMPTY


@pytest.fixture(scope="module")
def analyser() -> Iterator[VideoAnalyser]:
    analyser = VideoAnalyser(SETTINGS, WeightsSettings())
    yield analyser
    analyser.close()


@pytest.fixture(scope="module")
def shots(analyser: VideoAnalyser, frames: list[Picture]) -> list[ShotAnalysis]:
    return list(analyser(frames, 100, np.arange(len(frames)) / 25 + 4, "largest"))


def test_a_cut_ends_a_shot(shots: list[ShotAnalysis]) -> None:
    assert [(shot.start, shot.stop) for shot in shots] == [(100, 110), (110, 119)]


def test_frames_are_routed(shots: list[ShotAnalysis]) -> None:
    assert (shots[0].routes == Route.DUB).all()
    assert (shots[1].routes == Route.NO_FACE).all()


def test_landmarks_move_with_the_face(shots: list[ShotAnalysis]) -> None:
    x = shots[0].landmarks[:, :, 0].mean(axis=1)
    np.testing.assert_allclose(np.diff(x), 3, atol=1)
    assert np.isnan(shots[1].landmarks).all()


def test_the_resting_face_is_hers_with_lips_shut(shots: list[ShotAnalysis]) -> None:
    neutral = shots[0].neutral
    assert geometry.lip_opening(neutral) == pytest.approx(0, abs=1e-6)
    canonical = geometry.fit_pose(shots[0].landmarks).to_canonical(shots[0].landmarks)
    assert geometry.lip_opening(canonical).min() > 0.05
    assert np.abs(neutral[:60] - canonical.mean(axis=0)[:60]).mean() < 0.1
    assert np.isnan(shots[1].neutral).all()


def test_crops_follow_smoothly(shots: list[ShotAnalysis]) -> None:
    crops = shots[0].crops
    middle = np.linalg.solve(crops[:, :, :2], (SIZE / 2 - crops[:, :, 2])[..., None])[..., 0]
    assert (np.diff(middle[2:-2, 0]) > 1).all()
    assert np.abs(np.diff(middle, n=2, axis=0)).max() < 0.5
    assert np.isnan(shots[1].crops).all()


def test_references_are_few_and_upright(shots: list[ShotAnalysis]) -> None:
    shot = shots[0]
    count = len(shot.reference_frames)
    assert 1 <= count <= SETTINGS.reference_frames
    assert shot.reference_frames[0] == 100
    assert shot.reference_crops.shape == (count, SIZE, SIZE, 3)
    eyes = shot.reference_landmarks[:, [468, 473], :2]
    np.testing.assert_allclose(eyes[:, 0, 1], eyes[:, 1, 1], atol=4)
    assert (shot.reference_crops.reshape(count, -1).std(axis=1) > 20).all()
    assert shots[1].reference_crops.shape == (0, SIZE, SIZE, 3)
    assert shots[1].reference_landmarks.shape == (0, 478, 3)


@pytest.mark.parametrize(
    ("settings", "route"),
    [
        ({"min_face_px": 200}, Route.FACE_TOO_SMALL),
        ({"max_yaw_deg": 0.5}, Route.TURNED_AWAY),
        ({"max_pitch_deg": 0.01}, Route.TURNED_AWAY),
    ],
)
def test_faces_that_will_not_do_pass_through_and_say_why(
    frames: list[Picture], settings: dict[str, float], route: Route
) -> None:
    picky = VideoAnalyser(AnalysisSettings.model_validate({"crop_size": SIZE, **settings}), WeightsSettings())
    (shot,) = picky(frames[:2], 0, np.arange(2) / 25, "largest")
    picky.close()
    assert (shot.routes == route).all()
    assert np.isfinite(shot.landmarks).all()
    assert np.isnan(shot.neutral).all()
    assert len(shot.reference_frames) == 0


def test_the_named_place_decides(analyser: VideoAnalyser, frames: list[Picture]) -> None:
    (somebody,) = analyser(frames[:2], 0, np.arange(2) / 25, "point:140,120@0")
    assert (somebody.routes == Route.DUB).all()
    with pytest.raises(
        InputError, match=r"^face: there is no face at \(310, 230\) at 0 s; faces are at \(1\d\d, \d+\)$"
    ):
        list(analyser(frames[:2], 0, np.arange(2) / 25, "point:310,230@0"))


def test_a_shot_that_is_upside_down_is_as_the_upright_one(
    analyser: VideoAnalyser, frames: list[Picture], shots: list[ShotAnalysis]
) -> None:
    over = [np.ascontiguousarray(frame[::-1, ::-1]) for frame in frames[:MOVING]]
    (shot,) = analyser(over, 0, np.arange(MOVING) / 25, "largest")
    assert (shot.routes == Route.DUB).all()
    np.testing.assert_allclose(shot.landmarks[..., :2], (320, 240) - shots[0].landmarks[..., :2], atol=6)
    # The crop stands upright, whichever way the head does, and its way is as smooth.
    assert np.corrcoef(shot.reference_crops[0].ravel(), shots[0].reference_crops[0].ravel())[0, 1] > 0.9
    middle = np.linalg.solve(shot.crops[:, :, :2], (SIZE / 2 - shot.crops[:, :, 2])[..., None])[..., 0]
    assert np.abs(np.diff(middle, n=2, axis=0)).max() < 0.5
    assert (shot.crops[:, 0, 0] < 0).all()


def test_a_choice_that_cannot_be_read_is_refused(analyser: VideoAnalyser, frames: list[Picture]) -> None:
    with pytest.raises(InputError, match="'left' is not allowed"):
        list(analyser(frames[:1], 0, np.zeros(1), "left"))


def test_one_frame_is_a_shot(analyser: VideoAnalyser, frames: list[Picture]) -> None:
    (shot,) = analyser(frames[:1], 7, np.zeros(1), "largest")
    assert (shot.start, shot.stop) == (7, 8)
    assert shot.routes.tolist() == [Route.DUB]


def test_glimpses_pass_through() -> None:
    routes = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3], np.uint8)
    assert _without_glimpses(routes, 25).tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 3]
    assert _without_glimpses(routes[1:3], 25).tolist() == [0, 0]


def test_a_long_shot_is_held_once(analyser: VideoAnalyser, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1000
    faces = iter([posed(canonical_face(gap), 40, (100, 70)) for gap in np.linspace(0.1, 0.7, count)])
    monkeypatch.setattr(FaceTracker, "__call__", lambda *arguments: next(faces))
    monkeypatch.setattr(ReferenceKeeper, "wants", lambda *arguments: False)
    frame = np.zeros((SIZE, SIZE, 3), np.uint8)
    tracemalloc.start()
    (shot,) = analyser([frame] * count, 0, np.arange(count) / 25, "largest")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The faces as they came and as one array; canonical ones, of twice the size each, only of the most shut frames.
    assert peak < 3 * shot.landmarks.nbytes
    assert geometry.lip_opening(shot.neutral) == pytest.approx(0, abs=1e-6)
    assert shot.articulation == pytest.approx(0.67, abs=0.01)
