"""Faces of known shape, place and turn, and shots of them: what the rooms around the networks are tested with."""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamhead.faces import geometry, topology
from dreamhead.faces.crop import apply_transform, crop_transforms, extract, smooth_transforms
from dreamhead.faces.reference import KeptFrame, reference_arrays
from dreamhead.records import Route, ShotAnalysis

Floats = NDArray[np.floating[Any]]


def canonical_face(opening: float = 0.0) -> NDArray[np.float64]:
    """(478, 3) the mean face with its lips that far apart, the jaw having gone down with the lower lip."""
    shape = geometry.close_lips(topology.face_model().canonical.astype(np.float64))
    middle = shape[topology.LOWER_LIP_MIDDLE, 1]
    lower = topology.lower_face()
    below = lower[shape[lower, 1] > middle - 1e-6]
    corners = [*topology.INNER_LOWER_LIP[:1], *topology.INNER_LOWER_LIP[-1:]]
    moving = np.setdiff1d(np.union1d(below, topology.INNER_LOWER_LIP), [*corners, *topology.INNER_UPPER_LIP])
    shape[moving, 1] += opening * np.exp(-((shape[moving, 0] / 0.6) ** 2))
    return shape


def turn(yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> NDArray[np.float64]:
    """(3, 3) rotation about x, then about y, then in the picture's plane."""
    x, y, z = np.radians([pitch_deg, yaw_deg, roll_deg])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    rotation: NDArray[np.float64] = about_z @ about_y @ about_x
    return rotation


def posed(
    shape: Floats, eye_distance_px: float = 40.0, middle: tuple[float, float] = (100.0, 80.0), rotation: Any = None
) -> NDArray[np.float32]:
    """(478, 3) landmarks in pixels of a canonical shape whose eyes' middle is at `middle`."""
    turned = shape @ (np.eye(3) if rotation is None else rotation).T
    return (turned * eye_distance_px + [*middle, 0]).astype(np.float32)


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) smooth random colours."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def toy_shot(
    openings: Sequence[float] = (0.0, 0.1, 0.2, 0.3), size: int = 64, start: int = 0
) -> tuple[list[NDArray[np.uint8]], ShotAnalysis]:
    """Frames (160, 200, 3) of noise under a slowly moving face, and their analysis; every frame is a reference."""
    frames = [texture(160, 200, seed) for seed in range(len(openings))]
    landmarks = np.stack(
        [posed(canonical_face(gap), 40, (100 + t, 70), turn(2.0 * t)) for t, gap in enumerate(openings)]
    )
    pose = geometry.fit_pose(landmarks)
    raw, canonical = crop_transforms(pose, size), pose.to_canonical(landmarks)
    kept = [
        KeptFrame(
            number=start + number,
            crop=extract(frame, way, size),
            landmarks=apply_transform(way, points),
            transform=way,
            box=(0, 0, frame.shape[1], frame.shape[0]),
            pixels=frame,
        )
        for number, (frame, way, points) in enumerate(zip(frames, raw, landmarks, strict=True))
    ]
    shot = ShotAnalysis(
        start=start,
        stop=start + len(openings),
        landmarks=landmarks,
        routes=np.full(len(openings), Route.DUB, np.uint8),
        neutral=geometry.resting_face(canonical[geometry.most_shut(geometry.lip_opening(canonical))]),
        articulation=math.nan,
        crops=smooth_transforms(raw, 1.0, size),
        **reference_arrays(kept, size),
    )
    return frames, shot


def astronaut() -> NDArray[np.uint8]:
    """(512, 512, 3) RGB portrait in the public domain; skips the test without scikit-image."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-image, which brings the portrait, isn't installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / "astronaut.png"
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)
