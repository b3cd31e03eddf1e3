"""Make and judge the bundled base weights.

    python scripts/base_weights.py prepare CLIPS SHARDS
    python scripts/base_weights.py train autoencoder|audio_to_landmark|landmark_to_image SHARDS RUNS [--steps N]
    python scripts/base_weights.py bundle RUNS CHECKPOINT --card README.md
    python scripts/base_weights.py evaluate SHARDS [--checkpoint CHECKPOINT]

CLIPS is a folder of the development clips. A training run that was interrupted goes on with the same command.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dreamhead import checkpoint
from dreamhead.checkpoint import Checkpoint, CheckpointConfig
from dreamhead.config import AnalysisSettings, LandmarkSettings, WeightsSettings
from dreamhead.diffusion.objective import make_scheduler
from dreamhead.evaluation.metrics import jitter, lag_correlation, weighted_psnr
from dreamhead.faces.geometry import lip_opening
from dreamhead.models.audio_encoder import build
from dreamhead.models.autoencoder import FaceAutoencoder
from dreamhead.models.landmark_denoiser import LandmarkDenoiser
from dreamhead.models.latent_denoiser import LatentDenoiser
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.pipelines.audio_to_landmarks import TICK_RATE, AudioToLandmarks
from dreamhead.pipelines.landmarks_to_frames import Example, make_example, paint, painted_rows
from dreamhead.records import SpeechTrack
from dreamhead.stages.clips import clip_row
from dreamhead.training.autoencoder_stage import AutoencoderTask
from dreamhead.training.dataset import Clip, read_clips, write_clips
from dreamhead.training.image_stage import Face, ImageTask, face_of
from dreamhead.training.landmark_stage import LandmarkTask, full_face, motion_of, opening_of, topology
from dreamhead.training.loop import LoopSettings, train

VALIDATION_SPEAKERS = ("virtual_9", "virtual_l7", "hdtf_wda_0")
UNSEEN_CLIPS = ("interview_25fps", "suit_22fps", "wide_portrait_hevc")
"""Never trained on either: real people, for judging."""
SAME_SPEAKER = {"virtual_10b": "virtual_10", "virtual_13b": "virtual_13", "flag_25fps": "hdtf_wda_0"}
SPEECH_LAG_S = {"hdtf_wda_0": 0.12, "flag_25fps": 0.04}
PICTURES_ONLY = "faces_"
"""Clips of this name have sound that isn't always speech."""
STAGES: dict[str, LoopSettings] = {
    "autoencoder": LoopSettings(
        steps=1050, learning_rate=1e-3, bfloat16=True, ema_decay=0.995, save_every=250, data_workers=1
    ),
    "audio_to_landmark": LoopSettings(steps=1200, save_every=300, data_workers=1),
    "landmark_to_image": LoopSettings(
        steps=1500, learning_rate=4e-4, bfloat16=True, ema_decay=0.995, save_every=150, log_every=25, data_workers=1
    ),
}
BATCH_SIZE = 16
FRAMES_JUDGED = 24
REFERENCES = 40
APART_S = 2.0


def prepare(clips: Path, shards: Path) -> None:
    """One shard a clip."""
    shards.mkdir(parents=True, exist_ok=True)
    settings, weights = AnalysisSettings(), WeightsSettings()
    analyser, encoder = VideoAnalyser(settings, weights), build("whisper", weights, threads=2)
    for path in sorted(clips.glob("*.mp4")):
        name = path.stem
        speaker, lag_s = SAME_SPEAKER.get(name, name), SPEECH_LAG_S.get(name, 0.0)
        row = clip_row(str(path), name, speaker, analyser, encoder, settings, lag_s)
        write_clips(shards / f"{name}.parquet", [row])
        print(name)
    analyser.close()


def training_clips(shards: Path, with_speech: bool) -> list[Clip]:
    """Clips to train on: no validation speaker, no clip kept for judging."""
    return [
        clip
        for clip in read_clips(shards)
        if clip.speaker not in VALIDATION_SPEAKERS
        and clip.clip_id not in UNSEEN_CLIPS
        and clip.clip_id != "portrait_silent"
        and not (with_speech and clip.clip_id.startswith(PICTURES_ONLY))
    ]


def train_stage(stage: str, shards: Path, runs: Path, steps: int | None) -> None:
    """Train one stage; the second needs the autoencoder's run."""
    settings = STAGES[stage] if steps is None else LoopSettings(**{**vars(STAGES[stage]), "steps": steps})
    clips = training_clips(shards, with_speech=stage == "audio_to_landmark")
    if stage == "autoencoder":
        task = AutoencoderTask(FaceAutoencoder().to(memory_format=torch.channels_last), clips, BATCH_SIZE, window=128)
        train(task, settings, runs / stage).copy_to(task.model.parameters())
        task.fit_statistics(np.random.default_rng(0))
        task.model.save_pretrained(runs / stage)
    elif stage == "audio_to_landmark":
        landmark_task = LandmarkTask(LandmarkDenoiser(), clips, BATCH_SIZE)
        landmark_task.prepare()
        train(landmark_task, settings, runs / stage).copy_to(landmark_task.model.parameters())
        landmark_task.model.save_pretrained(runs / stage)
    else:
        autoencoder = FaceAutoencoder.from_pretrained(runs / "autoencoder", low_cpu_mem_usage=False)
        model = LatentDenoiser().to(memory_format=torch.channels_last)
        image_task = ImageTask(model, autoencoder, clips, BATCH_SIZE, AnalysisSettings().crop_size)
        train(image_task, settings, runs / stage).copy_to(model.parameters())
        model.save_pretrained(runs / stage)


def bundle(runs: Path, target: Path, card: Path) -> None:
    """Put the three networks' averaged weights into a checkpoint directory."""
    networks = (LandmarkDenoiser, LatentDenoiser, FaceAutoencoder)
    folders = ("audio_to_landmark", "landmark_to_image", "autoencoder")
    loaded = [
        kind.from_pretrained(runs / name, low_cpu_mem_usage=False) for kind, name in zip(networks, folders, strict=True)
    ]
    checkpoint.save(target, CheckpointConfig(), *loaded, card.read_text(encoding="utf-8"))


def evaluate(shards: Path, uri: str) -> None:
    """Print the tables of the model card."""
    opened = Checkpoint.load(uri)
    clips = {clip.clip_id: clip for clip in read_clips(shards)}
    judged = [clips[name] for name in (*VALIDATION_SPEAKERS, "flag_25fps", *UNSEEN_CLIPS)]
    judge_landmarks(opened, judged)
    judge_pictures(opened, judged)


def judge_landmarks(opened: Checkpoint, clips: Sequence[Clip]) -> None:
    """Lip opening of predicted landmarks against the clip's own; shuffled is its speech shifted by half its length."""
    settings = LandmarkSettings(close_in_silence=False)
    pipeline = AudioToLandmarks.from_checkpoint(opened, settings, torch.device("cpu"))
    print(
        "\n| clip | correlation | at best lag | lag, frames | shuffled speech | spread | jitter |"
        "\n|---|---|---|---|---|---|---|"
    )
    for clip in clips:
        motion = motion_of(clip)
        truth = opening_of(motion)
        times_s = np.arange(len(truth)) / TICK_RATE
        curves, shapes = [], []
        for features in (clip.features[0], np.roll(clip.features[0], len(clip.features[0]) // 2, axis=0)):
            level = np.zeros(len(features), np.float32)
            track = SpeechTrack(features=features, level_db=level, start_s=-clip.speech_lag_s, rate=clip.feature_rate)
            lower = pipeline(track, times_s, motion.neutral, seed=0)
            residual = lower - motion.neutral[topology.lower_face()]
            curves.append(np.asarray(lip_opening(full_face(motion.neutral, residual))))
            shapes.append(residual)
        found, shuffled = lag_correlation(curves[0], truth), lag_correlation(curves[1], truth, most=0)
        ratio = jitter(shapes[0]) / jitter(motion.residual)
        print(
            f"| {clip.clip_id} | {found.at_zero:.2f} | {found.best:.2f} | {found.lag} | {shuffled.at_zero:.2f} "
            f"| {curves[0].std() / truth.std():.2f} | {ratio:.2f} |"
        )


def judge_pictures(opened: Checkpoint, clips: Sequence[Clip]) -> None:
    """Mouth PSNR with true landmarks: nearest mouth copied, the same warped, and painted in 1, 2 and 4 steps."""
    device, steps = torch.device("cpu"), (1, 2, 4)
    model, autoencoder = opened.latent_denoiser(device), opened.autoencoder(device)
    print("\n| clip | copy | warp |", " | ".join(f"{count} steps" for count in steps), "|\n|---|---|---|---|---|---|")
    for clip in clips:
        face = face_of(clip, opened.config.crop_size)
        rows = [_judge(face, frame, model, autoencoder, steps) for frame in _frames(face)]
        print(f"| {clip.clip_id} |", " | ".join(f"{value:.1f}" for value in np.mean(rows, axis=0)), "|")


def _frames(face: Face) -> list[int]:
    return np.linspace(0, len(face.landmarks) - 1, FRAMES_JUDGED).astype(int).tolist()


def _judge(face: Face, frame: int, model: LatentDenoiser, autoencoder: nn.Module, steps: Sequence[int]) -> list[float]:
    reference = _nearest(face, frame)
    truth, mask = face.clip.crop(frame), face.masks[frame].astype(np.float32) / 255

    def example(target: int) -> Example:
        return make_example(truth, face.clip.crop(reference), face.landmarks[reference], face.landmarks[target], mask)

    warped = example(frame)
    score: Callable[[np.ndarray], float] = lambda picture: weighted_psnr(picture, truth, warped.mouth)  # noqa: E731
    found = [score(example(reference).warped), score(warped.warped)]
    for count in steps:
        picture = warped.warped.astype(np.float32)
        rows = painted_rows(len(picture))
        painted, share = paint(model, autoencoder, make_scheduler(), [warped], 0, count)
        picture[rows] += share[0] * (painted[0] - picture[rows])
        found.append(score(picture))
    return found


def _nearest(face: Face, frame: int) -> int:
    """The nearest mouth among frames spread over the clip that are at least APART_S away, or else the furthest."""
    spread = np.unique(np.linspace(0, len(face.landmarks) - 1, REFERENCES).astype(int))
    away = np.abs(spread - frame)
    allowed = spread[away >= min(APART_S * face.clip.frame_rate, away.max())]
    distance = np.linalg.norm(face.lips[allowed] - face.lips[frame], axis=1)
    return int(allowed[distance.argmin()])


def main() -> None:
    """Read the command line and do what it says."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare")
    command.add_argument("clips", type=Path)
    command.add_argument("shards", type=Path)
    command = commands.add_parser("train")
    command.add_argument("stage", choices=STAGES)
    command.add_argument("shards", type=Path)
    command.add_argument("runs", type=Path)
    command.add_argument("--steps", type=int)
    command = commands.add_parser("bundle")
    command.add_argument("runs", type=Path)
    command.add_argument("target", type=Path)
    command.add_argument("--card", type=Path, required=True)
    command = commands.add_parser("evaluate")
    command.add_argument("shards", type=Path)
    command.add_argument("--checkpoint", default="")
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare(arguments.clips, arguments.shards)
    elif arguments.command == "train":
        train_stage(arguments.stage, arguments.shards, arguments.runs, arguments.steps)
    elif arguments.command == "bundle":
        bundle(arguments.runs, arguments.target, arguments.card)
    else:
        evaluate(arguments.shards, arguments.checkpoint)


if __name__ == "__main__":
    main()
