"""What training the second stage adds to the loop: a target, its warped reference, and what the network is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamhead.diffusion.objective import add_noise, make_scheduler
from dreamhead.errors import InputError
from dreamhead.faces import geometry
from dreamhead.faces.crop import apply_transform, pose_mask
from dreamhead.faces.geometry import Pose, resting_face
from dreamhead.faces.reference import mouth_shape
from dreamhead.models.latent_denoiser import LatentDenoiser
from dreamhead.pipelines.landmarks_to_frames import START, Example, hide, make_example, painted_rows, tell, trust
from dreamhead.training.augmentation import colour_change, flip_landmarks
from dreamhead.training.autoencoder_stage import to_tensor
from dreamhead.training.dataset import Clip

MASK_WEIGHT = 4.0
MOUTH_WEIGHT = 6.0
TRUST_WEIGHT = 20.0
DECODED_SHARE = 0.4
"""Share of a batch that is decoded for the losses on pixels, which cost as much as the network."""
NEAREST_SHARE = 0.4
"""Share of examples whose reference is among the nearest mouths; the others take any frame of the clip."""
LANDMARK_NOISE = 0.006
"""Standard deviation, in units of eye distance, of errors like those of predicted landmarks."""
FEATHER = 0.06


@dataclass(frozen=True, eq=False)
class Face:
    """One clip's geometry in its crops."""

    clip: Clip
    landmarks: NDArray[np.float32]
    """(T, 478, 3) pixels of the crop."""
    lips: NDArray[np.float32]
    """(T, N) canonical lip points, flat: how mouths are compared."""
    masks: list[NDArray[np.uint8]]
    """T (S, S) opacities, 0 to 255."""


def face_of(clip: Clip, size: int) -> Face:
    """Geometry of all frames of a clip."""
    pose = geometry.fit_pose(clip.landmarks)
    canonical = pose.to_canonical(clip.landmarks)
    neutral = resting_face(canonical)
    frames = range(len(clip.landmarks))
    poses = [Pose(*(part[t : t + 1] for part in pose)) for t in frames]
    masks = [pose_mask(neutral, poses[t], clip.transforms[t], size, FEATHER) for t in frames]
    return Face(
        clip=clip,
        landmarks=np.stack([apply_transform(clip.transforms[t], clip.landmarks[t]) for t in frames]),
        lips=mouth_shape(canonical),
        masks=[np.round(mask * 255).astype(np.uint8) for mask in masks],
    )


class ImageTask:
    """Batches and loss of the second stage.

    Args:
        autoencoder: frozen, with `encode` and `decode`.
        clips: training clips.
        batch_size: examples in a batch.
        size: side of the crops.
    """

    def __init__(
        self, model: LatentDenoiser, autoencoder: nn.Module, clips: Sequence[Clip], batch_size: int, size: int
    ) -> None:
        self.model = model
        self._autoencoder: Any = autoencoder.eval().requires_grad_(False)
        self._faces = [face_of(clip, size) for clip in clips if len(clip.crops) > 1]
        if not self._faces:
            raise InputError("no training clip has two frames")
        self._batch_size = batch_size
        self._size = size
        self._scheduler = make_scheduler()

    def draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """The painted rows of B examples: `target` and `warped` (B, 3, R, S), `mask` and `mouth` (B, 1, R, S),
        `guides` (B, 8, R, S)."""
        examples, targets = zip(*[self._example(generator) for _ in range(self._batch_size)], strict=True)
        told = tell(examples)
        rows = painted_rows(self._size)
        target = to_tensor(np.stack(targets))[..., rows, :]
        mouth = torch.from_numpy(np.stack([example.mouth for example in examples]))[:, None, rows]
        return {"target": target, "mouth": mouth, "warped": told.warped, "mask": told.mask, "guides": told.guides}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Errors of the latents, of some decoded pictures, and of what the trusted mixture costs; and their sum."""
        target, warped = batch["target"], batch["warped"]
        with torch.no_grad():
            pictures = torch.cat([target, warped, hide(target, batch["mask"])])
            latents = self._autoencoder.encode(pictures.to(memory_format=torch.channels_last))
        clean, reference, masked = latents.float().chunk(3)
        noisy, timesteps = add_noise(self._scheduler, clean, START, generator)
        painted, logit = self.model(noisy, timesteps, reference, masked, batch["guides"])
        return self._compare(painted.float(), logit.float(), clean, batch)

    def _compare(
        self, painted: Tensor, logit: Tensor, clean: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        weight = nn.functional.avg_pool2d(0.1 + MASK_WEIGHT * batch["mask"] + MOUTH_WEIGHT * batch["mouth"], 8)
        latent = ((painted - clean).square() * weight).mean()
        some = slice(0, max(1, round(len(painted) * DECODED_SHARE)))
        target, warped = batch["target"][some], batch["warped"][some]
        pixels = batch["mask"][some] + MOUTH_WEIGHT * batch["mouth"][some]
        decoded = self._autoencoder.decode(painted[some]).float()
        # Where to trust the painting is learnt from pixels, with the painting itself held fixed.
        mixed = warped + trust(logit[some]) * (decoded.detach() - warped)
        mixing = ((mixed - target).square() * pixels).mean()
        pixel = ((decoded - target).abs() * pixels).mean()
        parts = {"latent": latent, "pixel": pixel, "trust": TRUST_WEIGHT * mixing}
        return torch.stack(list(parts.values())).sum(), {name: float(part.detach()) for name, part in parts.items()}

    def _example(self, generator: np.random.Generator) -> tuple[Example, NDArray[np.uint8]]:
        """One example: the warped reference and its guides, and the picture that should come out."""
        face = self._faces[int(generator.integers(len(self._faces)))]
        frame = int(generator.integers(len(face.landmarks)))
        reference = self._reference(face, frame, generator)
        change, mirror = colour_change(generator), generator.random() < 0.5
        pictures = [change(face.clip.crop(t)) for t in (frame, reference)]
        landmarks = [face.landmarks[t] for t in (frame, reference)]
        mask = face.masks[frame]
        if mirror:
            pictures = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
            landmarks = [flip_landmarks(points, self._size) for points in landmarks]
            mask = np.ascontiguousarray(mask[:, ::-1])
        noise = generator.normal(0, LANDMARK_NOISE * self._size / 2.8, landmarks[0].shape) * generator.random()
        moved = landmarks[0] + noise.astype(np.float32)
        opacity = mask.astype(np.float32) / np.float32(255)
        return make_example(pictures[0], pictures[1], landmarks[1], moved, opacity), pictures[0]

    def _reference(self, face: Face, frame: int, generator: np.random.Generator) -> int:
        others = np.flatnonzero(np.arange(len(face.lips)) != frame)
        if generator.random() < NEAREST_SHARE:
            # As when dubbing: the nearest mouth of a few dozen frames, not of all.
            few = generator.choice(others, min(len(others), 40), replace=False)
            distance = np.linalg.norm(face.lips[few] - face.lips[frame], axis=1)
            return int(few[np.argsort(distance)[min(int(generator.integers(3)), len(few) - 1)]])
        return int(generator.choice(others))
