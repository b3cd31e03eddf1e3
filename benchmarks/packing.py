"""What packing data costs in pictures, and what it takes: bytes a frame, PSNR, and what the second stage scores on it.

    python -m benchmarks.packing DATA [--crf 16 18 20 23 26] [--picture-step 1 2] [--clips 4]

On validation clips of a prepared data set, with the bundled weights. `judged` is the mouth's PSNR that
`ImageTask.validate` gives on the packed clips; `as before` has packed references and landmarks, but the mouths they
are judged against are those of the shards. The cost is against the shards, thinned alike.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.report import Report
from dreamhead.checkpoint import Checkpoint
from dreamhead.evaluation.metrics import weighted_psnr
from dreamhead.pipelines.example import Reference, make_example
from dreamhead.training.dataset import Clip, list_clips, read_clip
from dreamhead.training.image_stage import (
    JUDGED_FRAMES,
    JUDGED_REFERENCES,
    ImageTask,
    face_of,
    far_references,
    nearest,
    painted_crop,
)
from dreamhead.training.packed import from_points, pack_array, to_points
from dreamhead.training.packing import thinned
from dreamhead.training.picture_cache import decoded
from dreamhead.training.picture_video import encode_pictures
from dreamhead.training.settings import ImageStage


class Scores(NamedTuple):
    """Means over clips, in dB."""

    warp: float
    painted: float


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--crf", type=int, nargs="+", default=[16, 18, 20, 23, 26])
    parser.add_argument("--picture-step", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clips", type=int, default=4, help="most clips, spread over the validation clips")
    arguments = parser.parse_args()
    infos = list_clips(arguments.data, "validation")
    chosen = np.linspace(0, len(infos) - 1, min(arguments.clips, len(infos))).round().astype(int)
    clips = [read_clip(infos[number]) for number in chosen.tolist()]
    report = Report(f"Packing: {len(clips)} clips of {len({clip.speaker for clip in clips})} speakers")
    rows = [row for step in arguments.picture_step for row in _rows(clips, step, arguments.crf)]
    headings = ("step", "crf", "bytes a frame", "all, a frame", "crop PSNR", "mouth PSNR", "colour shift")
    report.table((*headings, "warp", "painted", "cost", "as before: warp", "painted", "cost"), rows)
    return report.exit_status


def _rows(originals: Sequence[Clip], step: int, crfs: Sequence[int]) -> list[list[object]]:
    checkpoint, cpu = Checkpoint.load(""), torch.device("cpu")
    task = ImageTask(checkpoint.latent_denoiser(cpu), checkpoint.autoencoder(cpu), ImageStage())
    clips = [thinned(clip, step) for clip in originals]
    usual = _scores(task, clips, clips)
    rows: list[list[object]] = [[step, "shards", *_shard_sizes(clips), "", "", "", *usual, "", *usual, ""]]
    for crf in crfs:
        videos = [encode_pictures([clip.crop(t) for t in range(len(clip.crops))], crf, clip.clip_id) for clip in clips]
        packed = [_packed(clip, video) for clip, video in zip(clips, videos, strict=True)]
        frames = sum(len(clip.crops) for clip in clips)
        pictures = sum(map(len, videos)) / frames
        numbers = sum(_number_bytes(clip) for clip in clips) / frames
        figures = task.validate(packed).figures
        judged = Scores(figures["warp_psnr"], figures["mouth_psnr"])
        before = _scores(task, packed, clips)
        rows.append(
            [
                *(step, crf, round(pictures), round(pictures + numbers), *_closeness(packed, clips)),
                *(*judged, usual.painted - judged.painted, *before, usual.painted - before.painted),
            ]
        )
        print(f"(step {step}, crf {crf} done)", flush=True)
    return rows


def _packed(clip: Clip, video: bytes) -> Clip:
    points = to_points(clip.landmarks, clip.transforms, clip.crop_size)
    landmarks = from_points(points, clip.transforms, clip.crop_size)
    return replace(clip, crops=decoded(video, len(clip.crops), clip.crop_size), landmarks=landmarks)


def _number_bytes(clip: Clip) -> int:
    points = pack_array(to_points(clip.landmarks, clip.transforms, clip.crop_size))
    return len(points) + len(pack_array(clip.transforms)) + clip.neutral.nbytes


def _shard_sizes(clips: Sequence[Clip]) -> tuple[int, int]:
    frames = sum(len(clip.crops) for clip in clips)
    pictures = sum(len(clip.crops[t]) for clip in clips for t in range(len(clip.crops))) / frames
    return round(pictures), round(
        pictures + sum(clip.landmarks.nbytes + clip.transforms.nbytes for clip in clips) / frames
    )


def _scores(task: ImageTask, clips: Sequence[Clip], truths: Sequence[Clip]) -> Scores:
    """As `ImageTask.validate` has it, but judged against the pictures of other clips."""
    found = []
    for clip, truth in zip(clips, truths, strict=True):
        face = face_of(clip)
        for frame in np.linspace(0, len(clip.crops) - 1, JUDGED_FRAMES).astype(int).tolist():
            chosen = nearest(face, frame, far_references(face, frame))[:JUDGED_REFERENCES]
            references = [Reference(clip.crop(number), face.landmarks[number]) for number in chosen]
            true = truth.crop(frame)
            made = make_example(true, references, face.landmarks[frame], face.mask(frame))
            painted = painted_crop(task.model, task._autoencoder, made)
            found.append([weighted_psnr(picture, true, made.mouth) for picture in (made.warped, painted)])
    return Scores(*np.mean(found, axis=0).tolist())


def _closeness(packed: Sequence[Clip], clips: Sequence[Clip]) -> tuple[float, float, float]:
    """PSNR of whole crops and of their mouths, and the largest shift of a channel's mean, in levels."""
    whole, mouths, shifts = [], [], []
    for clip, again in zip(clips, packed, strict=True):
        face = face_of(clip)
        for frame in range(0, len(clip.crops), 5):
            true, found = clip.crop(frame), again.crop(frame)
            whole.append(weighted_psnr(found, true, np.ones(true.shape[:2])))
            made = make_example(true, [Reference(true, face.landmarks[frame])], face.landmarks[frame], face.mask(frame))
            mouths.append(weighted_psnr(found, true, made.mouth))
            shifts.append(found.mean(axis=(0, 1)) - true.mean(axis=(0, 1)))
    return float(np.mean(whole)), float(np.mean(mouths)), float(np.abs(np.mean(shifts, axis=0)).max())


if __name__ == "__main__":
    raise SystemExit(main())
