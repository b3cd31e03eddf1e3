"""Captions are told from faces: they hold still while the head moves, and stay to the bit where they are kept."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.faces.overlay import OverlayFinder, overlay_mask, with_overlay, without_overlay
from tests.toy_faces import canonical_face, posed

Picture = NDArray[np.uint8]
HEIGHT, WIDTH = 240, 320
FRAMES = 40
Draw = Callable[[Picture, int], None]
"""Draws on a frame of a number, in place."""


def nothing(picture: Picture, number: int) -> None:
    """Leave it."""


def write(picture: Picture, text: str, x: int = 90, y: int = 178) -> None:
    for colour, width in (((0, 0, 0), 5), ((250, 240, 60), 2)):
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.9, colour, width, cv2.LINE_AA)


def caption(picture: Picture, number: int) -> None:
    write(picture, "wow so good")


def two_captions(picture: Picture, number: int) -> None:
    write(picture, "wow so good" if number < 20 else "never again")


def letters_of(draw: Draw, number: int) -> NDArray[np.bool_]:
    """(H, W) the pixels that are drawn on."""
    empty = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    draw(empty, number)
    return np.asarray((abs(empty.astype(int) - 7) > 60).any(axis=2))


def film(
    on_face: Draw = nothing, on_top: Draw = nothing, reach: float = 8.0
) -> tuple[list[Picture], list[NDArray[np.float32]]]:
    """A head of skin and stubble that sways by `reach` pixels in front of a wall, noise over all; its landmarks."""
    noise = np.random.default_rng(0)
    wall = cv2.resize(noise.integers(0, 255, (30, 40, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    head = np.full((HEIGHT, WIDTH, 3), (205, 160, 130), np.uint8)
    stubble = noise.integers(0, 120, (HEIGHT, WIDTH, 1), np.uint8) * (np.arange(HEIGHT) > 150)[:, None, None]
    head = head - stubble.astype(np.uint8)
    on_face(head, 0)
    face = posed(canonical_face(0.1), 50, (160, 90))
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(shape, [cv2.convexHull(face[:, :2].astype(np.int32))], 1)
    frames, landmarks = [], []
    for number in range(FRAMES):
        x, y = reach * np.sin(number / 6), reach / 2 * np.cos(number / 5)
        way = np.array([[1, 0, x], [0, 1, y]])
        moved, there = (cv2.warpAffine(each, way, (WIDTH, HEIGHT)) for each in (head, shape))
        frame = np.where(there[..., None] > 0, moved, wall).astype(np.uint8)
        on_top(frame, number)
        shaken = frame + noise.normal(0, 1, frame.shape)
        frames.append(np.clip(np.rint(shaken), 0, 255).astype(np.uint8))
        landmarks.append(face + np.array([x, y, 0], np.float32))
    return frames, landmarks


def found(frames: list[Picture], landmarks: list[NDArray[np.float32]]) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    finder = OverlayFinder(25)
    for number, (frame, face) in enumerate(zip(frames, landmarks, strict=True), start=100):
        finder.add(number, frame, face)
    return finder.finish()


def over_face(face: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W) where the middle of the jaw is, well within the painted part."""
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(shape, [cv2.convexHull(face[:, :2].astype(np.int32))], 1)
    return shape.astype(bool)


def test_a_caption_is_found_in_all_its_frames() -> None:
    frames, landmarks = film(on_top=caption)
    spans, pixels = found(frames, landmarks)
    assert spans.dtype == np.int64
    assert pixels.dtype == np.uint16
    assert spans[:, 2].sum() == len(pixels)
    for number in range(FRAMES):
        mask = overlay_mask(spans, pixels, 100 + number, (HEIGHT, WIDTH))
        assert mask is not None
        letters = letters_of(caption, number) & over_face(landmarks[number])
        assert (mask[letters] == 255).mean() > 0.97
        # What is kept is the text and little around it.
        assert (mask > 0).sum() < 3.2 * letters_of(caption, number).sum()


def test_each_of_two_captions_is_kept_in_its_own_frames() -> None:
    frames, landmarks = film(on_top=two_captions)
    spans, pixels = found(frames, landmarks)
    for number in [*range(18), *range(22, FRAMES)]:
        mask = overlay_mask(spans, pixels, 100 + number, (HEIGHT, WIDTH))
        assert mask is not None
        own = letters_of(two_captions, number) & over_face(landmarks[number])
        assert (mask[own] == 255).mean() > 0.95
    assert {19, 20} & {int(stop) - 100 for stop in spans[:, 1]}
    assert {19, 20, 21} & {int(start) - 100 for start in spans[:, 0]}


@pytest.mark.parametrize("reach", [8.0, 3.0, 0.3, 0.0])
def test_a_face_without_a_caption_has_none(reach: float) -> None:
    spans, pixels = found(*film(reach=reach))
    assert spans.shape == (0, 3)
    assert pixels.shape == (0, 2)


@pytest.mark.parametrize("reach", [8.0, 2.0, 0.3])
def test_what_moves_with_the_head_is_no_overlay(reach: float) -> None:
    # A moustache, a microphone, a tattoo: as sharp as letters, but the head's own.
    assert len(found(*film(on_face=caption, reach=reach))[0]) == 0


def test_of_a_head_that_holds_still_nothing_is_told() -> None:
    assert len(found(*film(on_top=caption, reach=0.0))[0]) == 0


def test_a_caption_beside_the_face_is_none_of_ours() -> None:
    assert len(found(*film(on_top=lambda picture, number: write(picture, "news", 5, 30)))[0]) == 0


def test_a_face_that_is_lost_ends_it_and_it_begins_again() -> None:
    frames, landmarks = film(on_top=caption)
    landmarks[18:20] = [np.full((478, 3), np.nan, np.float32)] * 2
    spans, pixels = found(frames, landmarks)
    for number, is_there in ((17, True), (18, False), (19, False), (20, True)):
        assert (overlay_mask(spans, pixels, 100 + number, (HEIGHT, WIDTH)) is not None) == is_there


def test_a_face_at_the_edge_of_the_picture_is_no_trouble() -> None:
    frames, landmarks = film(on_top=caption)
    shifted = [face + np.array([300, 100, 0], np.float32) for face in landmarks]
    assert len(found(frames, shifted)[0]) == 0
    assert len(found(frames, [face + np.array([9000, 0, 0], np.float32) for face in landmarks])[0]) == 0


def test_an_overlay_is_taken_off_and_put_back() -> None:
    frames, landmarks = film(on_top=caption)
    spans, pixels = found(frames, landmarks)
    mask = overlay_mask(spans, pixels, 110, (HEIGHT, WIDTH))
    assert mask is not None
    frame, whole = frames[10], frames[10].copy()
    clean = without_overlay(frame, mask)
    np.testing.assert_array_equal(frame, whole)
    np.testing.assert_array_equal(clean[mask == 0], frame[mask == 0])
    inside = letters_of(caption, 10) & over_face(landmarks[10])
    bare = film()[0][10][inside].astype(int)
    # Skin where black and yellow letters were.
    assert abs(clean[inside] - bare).mean() < 0.4 * abs(frame[inside] - bare).mean()
    painted = np.full_like(frame, 90)
    kept = with_overlay(painted, frame, mask)
    np.testing.assert_array_equal(kept[mask > 0], frame[mask > 0])
    far = cv2.dilate(mask, np.ones((15, 15), np.uint8)) == 0
    np.testing.assert_array_equal(kept[far], painted[far])
