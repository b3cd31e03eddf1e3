"""A dub in pixels that aren't square is judged as the same in square ones; its pixels keep their shape."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamhead.config import AnalysisSettings, OutputSettings, ReviewSettings, WeightsSettings
from dreamhead.faces import topology
from dreamhead.faces.geometry import fit_pose, lip_opening
from dreamhead.media.encode import encode_chunk
from dreamhead.media.video import probe, read_frames
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.records import Chunk, VideoInfo
from dreamhead.stages.artefacts import load_shot, save_shot
from dreamhead.stages.review.figures import figures
from dreamhead.stages.review.look import Look, look_at
from dreamhead.stages.review.sample import Stretch
from tests.anamorphic import resized, stored

ASPECTS = [Fraction(4, 3), Fraction(1, 2), Fraction(2)]
OPENING = 0.02
"""Pictures are resized and encoded; measured in stored pixels of 4:3 the opening, 0.18, would be off by 0.05."""

Clip = Any  # The fixtures' own classes; conftest modules can't be imported.


@pytest.fixture(scope="module")
def analyser(clip: Clip) -> Any:
    analyser = VideoAnalyser(AnalysisSettings(crop_size=64, chunk_s=0.64), WeightsSettings())
    yield analyser
    analyser.close()


def write(path: Path, frames: list[Any], like: VideoInfo) -> VideoInfo:
    encode_chunk(path, iter(frames), like, like.pts, like.end_pts, OutputSettings(quality=4))
    return probe(str(path))


def look(clip: Clip, info: VideoInfo, frames: list[Any], analyser: Any, detector: Any, path: Path) -> Look:
    """What a review sees of an output that shows the speaker's own mouth."""
    (shot,) = analyser(read_frames(info, range(30)), 0, info.times_s, "largest", info.pixel_aspect)
    save_shot(str(path) + ".npz", shot)
    kept = load_shot(str(path) + ".npz")
    assert kept.pixel_aspect == shot.pixel_aspect == info.pixel_aspect
    targets = fit_pose(shot.landmarks).to_canonical(shot.landmarks)[:, topology.lower_face()]
    chunk = Chunk(job=clip.job, start=0, stop=30, shot_start=0, shot_stop=30, analysis_uri="", dubbed_frames=30)
    stretch = Stretch(chunk=chunk, start=5, stop=15)
    source = replace(clip.source, video=info)
    return look_at(stretch, source, write(path, frames, info), kept, targets, detector, every=5, feather=0.06)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_figures_are_those_of_square_pixels(
    clip: Clip, analyser: Any, detector: Any, make_video: Any, tmp_path: Path, aspect: Fraction
) -> None:
    # A dub whose mouths are the wrong ones: each frame shows another's.
    order = [*range(15, 30), *range(15)]
    square = look(clip, clip.source.video, [clip.frames[at] for at in order], analyser, detector, tmp_path / "a.mp4")
    frames = [stored(frame, aspect) for frame in clip.frames]
    info = probe(make_video("squeezed.mp4", frames, aspect=aspect))
    ours = look(clip, info, [frames[at] for at in order], analyser, detector, tmp_path / "b.mp4")
    for name in ("ours", "wanted", "source"):
        found, true = (lip_opening(getattr(each, name)) for each in (ours, square))
        np.testing.assert_allclose(found, true, atol=OPENING)
    figured, wanted = (figures([each], ReviewSettings()) for each in (ours, square))
    assert figured["faces_found"] == wanted["faces_found"] == 1
    assert figured["lip_error"] == pytest.approx(wanted["lip_error"], abs=OPENING)
    assert figured["colour_step"] == pytest.approx(wanted["colour_step"], abs=1.5)
    assert figured["seam"] == pytest.approx(wanted["seam"], abs=0.1)
    assert figured["untouched_db"] == pytest.approx(wanted["untouched_db"], abs=2)
    for each, other in zip(ours.pixels, square.pixels, strict=True):
        for picture, true in zip(each.shown[1:], other.shown[1:], strict=True):
            assert np.abs(picture.astype(int) - true).mean() < 5


@pytest.mark.parametrize("rotation", [0, 90])
def test_a_dub_keeps_its_pixels_shape_and_its_figures(
    clip: Clip, dubber: Any, settings: Any, make_video: Any, tmp_path: Path, rotation: int
) -> None:
    square = dubber(settings, replace(clip.job, job_id="square", output_uri=str(tmp_path / "square.mp4")))
    upright = Fraction(2)
    coded = 1 / upright if rotation else upright
    frames = [np.rot90(stored(frame, upright), -(rotation // 90)) for frame in clip.frames]
    video_uri = make_video("squeezed.mp4", frames, aspect=coded, rotation=rotation)
    output_uri = str(tmp_path / "out.mp4")
    job = replace(clip.job, job_id=f"squeezed{rotation}", video_uri=video_uri, output_uri=output_uri)
    row = dubber(settings, job)
    assert row["status"] == "succeeded"
    output = probe(output_uri)
    assert (output.rotation, output.sample_aspect_ratio) == (rotation, coded)
    assert output.shown_size == (256, 256)
    assert row["dubbed_frames"] == square["dubbed_frames"] == 30
    found, wanted = dict(row["quality"]), dict(square["quality"])
    assert found["faces_found"] == wanted["faces_found"]
    assert found["lip_error"] == pytest.approx(wanted["lip_error"], abs=OPENING)
    # The same mouth is painted at the same place.
    (ours,), (theirs,) = read_frames(output, [15]), read_frames(probe(str(tmp_path / "square.mp4")), [15])
    assert np.abs(resized(ours, 256, 256).astype(int) - theirs).mean() < 5


def test_a_point_names_the_face_that_a_player_shows_there(
    clip: Clip, dubber: Any, settings: Any, make_video: Any, tmp_path: Path
) -> None:
    two = [stored(np.concatenate([frame, frame[:, ::-1]], axis=1), Fraction(2)) for frame in clip.frames[:8]]
    video_uri = make_video("two.mp4", two, aspect=Fraction(2))
    output_uri = str(tmp_path / "out.mp4")
    # In stored pixels 200 would be the right one.
    job = replace(clip.job, job_id="two", video_uri=video_uri, output_uri=output_uri, face="point:200,120@0")
    row = dubber(settings, job)
    assert (row["status"], row["dubbed_frames"]) == ("succeeded", 8)
    changed = np.zeros(256)
    for before, after in zip(
        read_frames(probe(video_uri), range(8)), read_frames(probe(output_uri), range(8)), strict=True
    ):
        # More than encoding does.
        changed += (np.abs(before.astype(int) - after) > 24).sum(axis=(0, 2))
    assert changed[:128].sum() > max(500, 5 * changed[128:].sum())
