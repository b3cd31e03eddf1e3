"""What steps, references and guidance give: pictures and landmarks on the validation clips of a prepared data set.

    python benchmarks/quality.py DATA [--checkpoint C] [--image-steps 1 2 4 8] [--landmark-steps 4 8 16 50]

Quick, and on crops and landmarks: ray_jobs/evaluate.py measures encoded videos instead.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import LandmarkSettings
from dreamhead.evaluation.metrics import laplacian_energy, weighted_psnr
from dreamhead.pipelines.audio_to_landmarks import AudioToLandmarks
from dreamhead.pipelines.example import Reference, make_example
from dreamhead.training.dataset import Clip, list_clips, read_clip
from dreamhead.training.image_stage import (
    APART_S,
    CANDIDATES,
    Face,
    face_of,
    far_references,
    nearest,
    painted_crop,
)
from dreamhead.training.landmark_stage import judge_clip

FRAMES = 12
REFERENCES = (1, 3, 5)


def main() -> None:
    """Print one table for pictures and one for landmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--image-steps", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--landmark-steps", type=int, nargs="+", default=[4, 8, 16, 50])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0, 2.5, 3.0])
    arguments = parser.parse_args()
    checkpoint = Checkpoint.load(arguments.checkpoint)
    clips = [read_clip(info) for info in list_clips(arguments.data, "validation")]
    print(f"{len(clips)} clips of {len({clip.speaker for clip in clips})} speakers\n")
    pictures(checkpoint, clips, arguments.image_steps)
    landmarks(checkpoint, [clip for clip in clips if clip.variants], arguments.landmark_steps, arguments.guidance)


def pictures(checkpoint: Checkpoint, clips: Sequence[Clip], steps: Sequence[int]) -> None:
    """Mouths with true landmarks, their references at least APART_S away: PSNR and sharpness over the truth's."""
    device = torch.device("cpu")
    model, autoencoder = checkpoint.latent_denoiser(device), checkpoint.autoencoder(device)
    names = [f"warp of {count}" for count in REFERENCES] + [f"painted, {count} steps" for count in steps]
    print(f"True landmarks, references at least {APART_S:g} s away among {CANDIDATES} frames.\n")
    print("| first guess, result | mouth PSNR, dB | sharpness |\n|---|---|---|")
    rows = []
    for clip in clips:
        face = face_of(clip)
        for frame in np.linspace(0, len(clip.crops) - 1, FRAMES).astype(int).tolist():
            truth, mouth, shown = _shown(face, frame, model, autoencoder, steps)
            sharp = laplacian_energy(truth, mouth)
            rows.append([(weighted_psnr(one, truth, mouth), laplacian_energy(one, mouth) / sharp) for one in shown])
    for name, (psnr, sharpness) in zip(names, np.mean(rows, axis=0), strict=True):
        print(f"| {name} | {psnr:.2f} | {sharpness:.2f} |")


def _shown(face: Face, frame: int, model, autoencoder, steps):  # type: ignore[no-untyped-def]
    truth = face.clip.crop(frame)
    chosen = nearest(face, frame, far_references(face, frame))
    references = [Reference(face.clip.crop(number), face.landmarks[number]) for number in chosen[: max(REFERENCES)]]
    made = {
        count: make_example(truth, references[:count], face.landmarks[frame], face.mask(frame)) for count in REFERENCES
    }
    painted = [painted_crop(model, autoencoder, made[3], count) for count in steps]
    return truth, made[3].mouth, [*(one.warped for one in made.values()), *painted]


def landmarks(checkpoint: Checkpoint, clips: Sequence[Clip], steps: Sequence[int], guidance: Sequence[float]) -> None:
    """Lip opening of what is sampled against the clip's own, for some steps and some guidance."""
    usual = LandmarkSettings(close_in_silence=False)
    tried = [usual.model_copy(update={"num_inference_steps": count}) for count in steps]
    tried += [usual.model_copy(update={"guidance_scale": scale}) for scale in guidance]
    print("\n| steps | guidance | correlation | speech shuffled | articulation | jitter |\n|---|---|---|---|---|---|")
    for settings in tried:
        pipeline = AudioToLandmarks.from_checkpoint(checkpoint, settings, torch.device("cpu"))
        found = [judge_clip(pipeline, clip)[2] for clip in clips]
        names = ("correlation", "shuffled", "articulation_ratio", "jitter_ratio")
        means = [f"{np.mean([figures[name] for figures in found]):.2f}" for name in names]
        print(f"| {settings.num_inference_steps} | {settings.guidance_scale:g} |", " | ".join(means), "|")


if __name__ == "__main__":
    main()
