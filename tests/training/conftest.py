"""A shard of generated clips: a drawn face that talks, and speech that says how wide the mouth is open."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dreamhead.faces import geometry
from dreamhead.faces.crop import crop_transforms, extract
from dreamhead.training.dataset import Clip, list_clips, read_clip, write_clips
from tests import tiny
from tests.toy_faces import Floats, canonical_face, posed, texture, turn

SIZE = tiny.CROP_SIZE
FRAMES = 50
FEATURES = tiny.SPEECH_SIZE // 2


def clip_row(
    clip_id: str, seed: int, *, speeds: tuple[float, ...] = (1.0, 1.25), frames: int = FRAMES
) -> dict[str, object]:
    """A row of a shard at 25 frames a second: two seconds unless told otherwise."""
    opening = 0.15 * (1 + np.sin(np.arange(frames) / 3 + seed))
    landmarks = np.stack(
        [posed(canonical_face(gap), 40, (100 + 0.2 * t, 70), turn(0.3 * t)) for t, gap in enumerate(opening)]
    )
    transforms = crop_transforms(geometry.fit_pose(landmarks), SIZE)
    picture = texture(160, 200, seed)
    pictures = [np.roll(picture, round(20 * gap), axis=0) for gap in opening]
    crops = [extract(frame, way, SIZE) for frame, way in zip(pictures, transforms, strict=True)]
    canonical = geometry.fit_pose(landmarks).to_canonical(landmarks)
    gaps = geometry.lip_opening(canonical)
    return {
        "clip_id": clip_id,
        "speaker": f"speaker {seed}",
        "source_uri": f"/videos/{clip_id}.mp4",
        "start_s": 0.0,
        "frames": frames,
        "frame_rate": 25.0,
        "crop_size": SIZE,
        "landmarks": landmarks.astype(np.float32).tobytes(),
        "transforms": transforms.astype(np.float32).tobytes(),
        "neutral": geometry.resting_face(canonical[geometry.most_shut(gaps)]).tobytes(),
        "articulation": geometry.articulation(gaps),
        "spoken": len(speeds) > 0,
        "crops": [cv2.imencode(".jpg", crop[..., ::-1])[1].tobytes() for crop in crops],
        "speech": np.zeros(len(speeds) and frames * 640, np.int16).tobytes(),
        "speech_lag_s": 0.0,
        "speech_encoder": "log_mel",
        "features": [
            {"speed": speed, "change": "", "data": heard(opening, speed).astype(np.float16).tobytes()}
            for speed in speeds
        ],
        "feature_size": FEATURES,
        "feature_rate": 50.0,
    }


def heard(opening: Floats, speed: float) -> Floats:
    """(F, C) features at 50 a second that say how wide the mouth is open, played at another speed."""
    times = np.arange(round(2 * len(opening) / speed)) / 2 * speed
    return np.asarray(np.interp(times, np.arange(len(opening)), opening)[:, None] * np.linspace(-5, 5, FEATURES))


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three clips to train on, in two shards, and one to validate."""
    folder = tmp_path_factory.mktemp("shards")
    write_clips(str(folder / "train/b.parquet"), [clip_row("third", 2)])
    write_clips(str(folder / "train/a.parquet"), [clip_row("first", 0), clip_row("second", 1, speeds=(), frames=12)])
    write_clips(str(folder / "validation/c.parquet"), [clip_row("fourth", 3)])
    return folder


@pytest.fixture(scope="session")
def toy_clips(shards: Path) -> list[Clip]:
    """The clips to train on."""
    return [read_clip(info) for info in list_clips(str(shards), "train")]
