"""Changes are one for all pictures of an example; mirrored faces stay faces."""

import cv2
import numpy as np
import pytest

from dreamhead.faces import topology
from dreamhead.faces.landmark_image import draw
from dreamhead.training.augmentation import blur, colour_change, flip_landmarks, zoom, zoomed
from tests.toy_faces import canonical_face, posed, texture, turn


def test_a_change_is_the_same_for_every_picture() -> None:
    change = colour_change(np.random.default_rng(0))
    picture = texture(32, 32)
    changed = change(picture)
    assert changed.dtype == np.uint8
    assert changed.shape == picture.shape
    assert np.abs(changed.astype(int) - picture).mean() > 2
    np.testing.assert_array_equal(change(picture), changed)
    np.testing.assert_array_equal(change(picture[:, ::-1]), changed[:, ::-1])
    np.testing.assert_array_equal(
        colour_change(np.random.default_rng(0))(picture), changed, err_msg="the generator decides"
    )


def test_changes_are_gentle() -> None:
    skin = np.full((4, 4, 3), (200, 150, 120), np.uint8)
    for seed in range(50):
        hsv = cv2.cvtColor(colour_change(np.random.default_rng(seed))(skin), cv2.COLOR_RGB2HSV)[0, 0].astype(int)
        before = cv2.cvtColor(skin, cv2.COLOR_RGB2HSV)[0, 0].astype(int)
        assert abs((hsv[0] - before[0] + 90) % 180 - 90) <= 10
        assert 0.65 * before[2] < hsv[2] <= 255


def test_grey_and_black_stay_grey_and_black() -> None:
    change = colour_change(np.random.default_rng(3))
    grey = change(np.full((2, 2, 3), 100, np.uint8))
    assert len(np.unique(grey)) == 1
    assert (change(np.zeros((2, 2, 3), np.uint8)) == 0).all()


def test_landmarks_flip_with_the_picture() -> None:
    landmarks = posed(canonical_face(0.2), 40, (70, 40), turn(15, 5, 10))
    flipped = flip_landmarks(landmarks, 128)
    np.testing.assert_allclose(flip_landmarks(flipped, 128), landmarks, atol=1e-5)
    # The left eye of the mirrored face is the right eye of the face.
    right = np.sort(127 - landmarks[list(topology.RIGHT_EYE), 0])
    np.testing.assert_allclose(np.sort(flipped[list(topology.LEFT_EYE), 0]), right, atol=1e-4)
    mirrored = draw(landmarks, 128)[:, ::-1].astype(int)
    assert np.abs(mirrored - draw(flipped, 128)).mean() < 1.5


def test_a_crop_is_drawn_larger_about_its_middle() -> None:
    way = zoom(1.5, 65)
    np.testing.assert_allclose(way @ [32, 32, 1], [32, 32])
    np.testing.assert_allclose(way @ [42, 22, 1], [47, 17])
    picture = np.zeros((65, 65, 3), np.uint8)
    picture[22, 42] = 255
    where = np.unravel_index(zoomed(picture, way)[..., 0].argmax(), (65, 65))
    assert tuple(where) == (17, 47)
    np.testing.assert_array_equal(zoomed(picture, zoom(1.0, 65)), picture)


def test_a_blur_is_the_same_for_every_picture_and_keeps_the_mean() -> None:
    change = blur(np.random.default_rng(0), 256)
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    softer = change(noise)
    assert softer.std() < 0.95 * noise.std()
    assert softer.mean() == pytest.approx(noise.mean(), abs=1)
    np.testing.assert_array_equal(change(noise), softer)
