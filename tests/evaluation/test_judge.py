"""The whole way of a clip's conditions, at toy size: made, encoded, measured by the real detector."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreamhead import storage
from dreamhead.evaluation.judge import ConditionJudge
from dreamhead.evaluation.records import JudgedClip, Task, Verdict
from dreamhead.evaluation.settings import ConditionName, JudgeSettings
from dreamhead.media.audio import read_speech
from dreamhead.media.video import probe
from dreamhead.stages.artefacts import load_arrays
from tests.evaluation.conftest import FRAMES, GAPS, SETTINGS
from tests.evaluation.test_judges import lpips_files, onnx_model
from tests.perceptual_weights import write_weights

Judged = Callable[..., Verdict]


@pytest.fixture
def judge(tmp_path: Path, weights: str) -> Iterator[ConditionJudge]:
    found = ConditionJudge(SETTINGS, weights, str(tmp_path / "out"))
    yield found
    found.close()


@pytest.fixture
def judged(judge: ConditionJudge, speaking_clip: JudgedClip) -> Judged:
    def run(condition: ConditionName, clip: JudgedClip = speaking_clip, other: JudgedClip | None = None) -> Verdict:
        verdict = judge(Task(clip=clip, condition=condition, other=other))
        assert verdict.error == ""
        return verdict

    return run


def test_the_source_is_its_own_equal(judged: Judged) -> None:
    real = judged("real")
    assert real.figures["correlation"] == pytest.approx(1, abs=1e-6)
    assert real.figures["mouth_lmd"] == pytest.approx(0, abs=1e-4)
    assert real.figures["mouth_psnr_db"] > 100
    assert (real.figures["seam"], real.figures["sharpness"], real.figures["flicker"]) == (1, 1, 1)
    assert (real.figures["concordance"], real.figures["closure"]) == (pytest.approx(1, abs=1e-4), 1)
    assert real.figures["closure_false"] == 0
    assert (real.frames, real.frames_judged) == (FRAMES, FRAMES)
    assert np.corrcoef(np.array(real.curves["truth"], float), GAPS)[0, 1] > 0.95
    encoded = judged("reencoded")
    assert encoded.figures["correlation"] > 0.98
    assert 25 < encoded.figures["mouth_psnr_db"] < 60
    assert probe(encoded.video_uri).frame_count == FRAMES


def test_true_landmarks_beat_a_pasted_mouth(judged: Judged) -> None:
    painted, merged, warp, copy = (judged(name).figures for name in ("painted", "merged", "warp", "copy"))
    # The toy paints noise over the warp by a tenth; both follow the true mouth, which a pasted one doesn't.
    assert warp["mouth_psnr_db"] > painted["mouth_psnr_db"] > 15
    assert warp["mouth_psnr_db"] > copy["mouth_psnr_db"]
    # Merging averages what the references don't share: less detail, and another picture than any one gives.
    assert merged["mouth_psnr_db"] > copy["mouth_psnr_db"]
    assert merged["mouth_psnr_db"] != warp["mouth_psnr_db"]
    assert merged["sharpness"] < warp["sharpness"] < 1.1
    assert warp["correlation"] > copy["correlation"]
    assert warp["mouth_lmd"] < copy["mouth_lmd"]
    assert painted["face_psnr_db"] < judged("reencoded").figures["face_psnr_db"]


def test_a_dub_is_judged_from_its_file(judged: Judged, speaking_clip: JudgedClip) -> None:
    verdict = judged("self")
    assert {"speech_correlation", "speech_lag_ms", "mouth_psnr_db", "articulation"} <= verdict.figures.keys()
    assert abs(verdict.figures["speech_lag_ms"] - verdict.figures["lag_ms"]) < 2
    landmarks, kept = load_arrays(verdict.arrays_uri, "landmarks", "judged")
    assert landmarks.shape == (FRAMES, 478, 3)
    assert kept.all()
    heard, given = (read_speech(uri, 0, 1.2) for uri in (verdict.video_uri, speaking_clip.audio_uri))
    assert np.corrcoef(heard, given)[0, 1] > 0.98
    assert verdict.missing["lpips"].startswith("weights not given: judges.alexnet")
    assert set(verdict.worst) <= set(verdict.moments)
    assert storage.exists(verdict.picture_uri)


def test_speech_is_shifted_silenced_and_borrowed(judged: Judged, speaking_clip: JudgedClip, tmp_path: Path) -> None:
    own = read_speech(speaking_clip.audio_uri, 0, 1.2)
    shuffled, silent = judged("shuffled"), judged("silent")
    moved = read_speech(shuffled.video_uri, 0, 1.2)
    assert np.corrcoef(moved, np.roll(own, len(own) // 2))[0, 1] > 0.98
    assert "mouth_psnr_db" not in shuffled.figures
    assert shuffled.missing["mouth_psnr_db"].startswith("no true frames")
    assert np.abs(read_speech(silent.video_uri, 0, 1.2)).max() == 0
    assert silent.figures["shut"] == 1
    assert "speech_correlation" not in silent.figures
    other = replace(speaking_clip, clip_id="other", speech_lag_s=-0.2)
    cross = judged("cross", other=other)
    late = read_speech(cross.video_uri, 0.2, 1.2)
    assert np.corrcoef(late, own[: len(late)])[0, 1] > 0.98


def test_a_recordings_lag_is_taken_out(judged: Judged, speaking_clip: JudgedClip) -> None:
    verdict = judged("self", clip=replace(speaking_clip, clip_id="lag", speech_lag_s=0.2))
    own, heard = read_speech(speaking_clip.audio_uri, 0.2, 1.1), read_speech(verdict.video_uri, 0, 0.9)
    assert np.corrcoef(heard, own)[0, 1] > 0.97


def test_a_long_clip_is_cut(judge: ConditionJudge, speaking_clip: JudgedClip, tmp_path: Path, weights: str) -> None:
    settings = SETTINGS.model_copy(update={"seconds": 1.0, "start_s": 0.12})
    cut = ConditionJudge(settings, weights, str(tmp_path / "cut"))
    real, encoded = (cut(Task(clip=speaking_clip, condition=name)) for name in ("real", "reencoded"))
    cut.close()
    assert real.frames == 25
    assert np.corrcoef(np.array(real.curves["truth"], float), GAPS[3:28])[0, 1] > 0.95
    # Measured on the clip's own frames, against the analysis of what was cut out of it.
    assert 0.98 < real.figures["correlation"] <= 1
    assert encoded.figures["mouth_psnr_db"] > 25


def test_what_is_there_isnt_made_again(judge: ConditionJudge, speaking_clip: JudgedClip) -> None:
    for condition in ("self", "warp"):
        task = Task(clip=speaking_clip, condition=condition)
        first = judge(task)
        path = storage.local_path(first.video_uri)
        written = path.stat().st_mtime_ns
        again = judge(task)
        assert path.stat().st_mtime_ns == written
        assert again.figures == first.figures


def test_a_bad_clip_is_a_verdict_with_its_error(
    judge: ConditionJudge, speaking_clip: JudgedClip, make_video: Callable[..., str], make_tone: Callable[..., str]
) -> None:
    def error(condition: ConditionName = "real", **changes: str) -> str:
        return judge(Task(clip=replace(speaking_clip, **changes), condition=condition)).error

    assert "gone.mp4: no such file" in error(clip_id="gone", video_uri="/gone.mp4")
    assert "no usable face in frames 0 to 30: NO_FACE" in error(clip_id="faceless", video_uri=make_video("x.mp4", 30))
    assert "1 s are needed" in error(clip_id="short", video_uri=make_video("y.mp4", 10))
    mute = {"clip_id": "mute", "audio_uri": speaking_clip.video_uri}
    assert "give the speech in the list's column audio_uri" in error("self", **mute)
    assert error("warp", **mute) == ""
    assert "cross needs the speech of another clip" in error("cross")


def test_weights_that_are_given_judge(speaking_clip: JudgedClip, tmp_path: Path, weights: str) -> None:
    (tmp_path / "net.onnx").write_bytes(onnx_model())
    alexnet, heads = lpips_files(tmp_path)
    perceptual = str(write_weights(tmp_path))
    judges = JudgeSettings(recognition=str(tmp_path / "net.onnx"), alexnet=alexnet, lpips=heads, perceptual=perceptual)
    judge = ConditionJudge(SETTINGS.model_copy(update={"judges": judges}), weights, str(tmp_path / "out"))
    real, warp, copy = (judge(Task(clip=speaking_clip, condition=name)) for name in ("real", "warp", "copy"))
    judge.close()
    assert real.figures["perceptual"] == 0
    # The detector doesn't find the very same place twice.
    assert real.figures["identity_distance"] < 0.1 * copy.figures["identity_distance"]
    assert real.figures["lpips"] == pytest.approx(0, abs=1e-5)
    assert copy.figures["identity_distance"] > 1e-4
    # Both are told relative to the same two moments of the clip, which show one face with another mouth.
    apart, again = (its.figures["identity_distance"] / its.figures["identity"] for its in (warp, copy))
    assert 1e-4 < apart == pytest.approx(again, rel=0.02)
    assert copy.figures["perceptual"] > warp.figures["perceptual"] > 1e-3
    assert copy.figures["lpips"] > 1e-4
    assert "identity" not in copy.missing
