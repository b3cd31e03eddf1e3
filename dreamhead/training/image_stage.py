"""What training the second stage adds to the loop: a target, its warped references, and what the network is told."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamhead.diffusion.objective import add_noise, make_scheduler
from dreamhead.evaluation.metrics import weighted_psnr
from dreamhead.faces import geometry
from dreamhead.faces.crop import apply_transform, pose_mask
from dreamhead.faces.geometry import Pose
from dreamhead.faces.reference import mouth_shape
from dreamhead.models.latent_denoiser import LatentDenoiser
from dreamhead.pipelines import example as told_examples
from dreamhead.pipelines.example import Reference, make_example, painted_rows, tell
from dreamhead.pipelines.landmarks_to_frames import START, hide, mix, paint, trust
from dreamhead.training.augmentation import Change, blur, colour_change, flip_landmarks, zoom, zoomed
from dreamhead.training.autoencoder_stage import to_pixels
from dreamhead.training.dataset import Clip, ClipInfo
from dreamhead.training.settings import ImageStage
from dreamhead.training.task import Example, Figures, Judgement

MASK_WEIGHT = 4.0
MOUTH_WEIGHT = 6.0
TRUST_WEIGHT = 20.0
DECODED_SHARE = 0.4
"""Share of a batch that is decoded for the losses on pixels, which cost as much as the network."""
FEATHER = 0.06
CANDIDATES = 40
"""References are the nearest mouths of so many frames, as when dubbing, not of all."""
APART_S = 2.0
"""When judging, a reference is at least so far from its frame, if the clip is long enough."""
TRAINING_APART_S = 0.4
"""When training: a neighbour's mouth would be too good a reference to learn from."""
JUDGED_FRAMES = 4
JUDGED_REFERENCES = 3
PICTURES_SHOWN = 6


class Geometry(NamedTuple):
    """Of all T frames of a clip."""

    landmarks: NDArray[np.float32]
    """(T, 478, 3) pixels of the crop."""
    lips: NDArray[np.float32]
    """(T, N) canonical lip points, flat: how mouths are compared."""
    pose: Pose
    """Of T frames."""


class Face:
    """One clip's geometry in its crops."""

    def __init__(self, clip: Clip, found: Geometry) -> None:
        self.clip = clip
        self.landmarks, self.lips, self.pose = found

    def mask(self, frame: int) -> NDArray[np.float32]:
        """(S, S) opacity of the dubbed region."""
        pose = Pose(*(part[frame : frame + 1] for part in self.pose))
        return pose_mask(self.clip.neutral, pose, self.clip.transforms[frame], self.clip.crop_size, FEATHER)


def geometry_of(clip: Clip) -> Geometry:
    """Where a clip's face is in its crops."""
    pose = geometry.fit_pose(clip.landmarks)
    pairs = zip(clip.transforms, clip.landmarks, strict=True)
    landmarks = np.stack([apply_transform(transform, points) for transform, points in pairs])
    return Geometry(landmarks, mouth_shape(pose.to_canonical(clip.landmarks)), pose)


def face_of(clip: Clip) -> Face:
    """Geometry of all frames of a clip."""
    return Face(clip, geometry_of(clip))


class ImageTask:
    """Examples and loss of the second stage; see `Task`.

    Args:
        autoencoder: frozen, with `encode` and `decode`, on the model's device.
    """

    progress = 0.0
    score = "mouth_psnr"

    def __init__(self, model: LatentDenoiser, autoencoder: nn.Module, settings: ImageStage) -> None:
        self.model = model
        self._autoencoder: Any = autoencoder.eval().requires_grad_(False)
        self._augmentation = settings.augmentation
        self._scheduler = make_scheduler()
        # Without the clip itself, which would keep its own key alive.
        self._geometry: WeakKeyDictionary[Clip, Geometry] = WeakKeyDictionary()

    def usable(self, clip: ClipInfo) -> bool:
        """Whether a clip has pictures, and another frame to be the reference."""
        return clip.has_pictures and clip.frames > 1

    def prepare(self, clips: Sequence[ClipInfo]) -> None:
        """Clips are read as they are drawn."""

    def state(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """There is nothing to take."""

    def begin(self, clips: Iterable[Clip]) -> dict[str, float]:
        """Nothing is fitted beforehand."""
        return {}

    def finish(self, clips: Iterable[Clip]) -> None:
        """Nothing is fitted afterwards."""

    def example(self, clip: Clip, generator: np.random.Generator) -> Example:
        """The R painted rows of one frame, see `tell`: `target` (R, S, 3) uint8, `mouth` (R, S), `warped` (3, R, S),
        `mask` (1, R, S), `guides` (8, R, S)."""
        face = self._face(clip)
        frame = int(generator.integers(len(face.landmarks)))
        chosen = self._references(face, frame, generator)
        target, references, landmarks, mask = self._changed(face, frame, chosen, generator)
        noise = generator.normal(0, self._augmentation.landmark_noise * clip.crop_size / 2.8, landmarks.shape)
        moved = landmarks + (noise * generator.random()).astype(np.float32)
        made = make_example(target, references, moved, mask)
        told = tell([made])
        rows = painted_rows(clip.crop_size)
        return {
            "target": target[rows],
            "mouth": made.mouth[None, rows],
            "warped": told.warped[0].numpy(),
            "mask": told.mask[0].numpy(),
            "guides": told.guides[0].numpy(),
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Figures]:
        """Errors of the latents, of some decoded pictures, and of what the trusted mixture costs; and their sum."""
        target, warped = to_pixels(batch["target"]), batch["warped"]
        with torch.no_grad():
            pictures = torch.cat([target, warped, hide(target, batch["mask"])])
            latents = self._autoencoder.encode(pictures.to(memory_format=torch.channels_last))
        clean, reference, masked = latents.float().chunk(3)
        noisy, timesteps = add_noise(self._scheduler, clean, START, generator)
        painted, logit = self.model(noisy, timesteps, reference, masked, batch["guides"])
        return self._compare(painted.float(), logit.float(), clean, {**batch, "target": target})

    @torch.no_grad()
    def validate(self, clips: Sequence[Clip]) -> Judgement:
        """Mouth PSNR in dB, true landmarks: of one step's painting, of the first guess, of its nearest reference."""
        scores, rows = [], []
        for clip in clips:
            face = self._face(clip)
            for frame in np.linspace(0, len(clip.crops) - 1, JUDGED_FRAMES).astype(int).tolist():
                row, shown = self._judge(face, frame)
                scores.append(row)
            rows.append(shown)
        single, warp, painted = np.mean(scores, axis=0)
        figures = {"mouth_psnr": painted, "warp_psnr": warp, "single_warp_psnr": single, "gain": painted - single}
        pictures = {"target, warp, painted": np.concatenate(rows[:PICTURES_SHOWN])}
        return Judgement(figures={name: float(value) for name, value in figures.items()}, pictures=pictures)

    def _face(self, clip: Clip) -> Face:
        if clip not in self._geometry:
            self._geometry[clip] = geometry_of(clip)
        return Face(clip, self._geometry[clip])

    def _references(self, face: Face, frame: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Frames, nearest mouth first: among the nearest as when dubbing, or any."""
        apart = np.abs(np.arange(len(face.lips)) - frame)
        others = np.flatnonzero(apart >= min(TRAINING_APART_S * face.clip.frame_rate, apart.max()))
        few = generator.choice(others, min(len(others), CANDIDATES), replace=False)
        if generator.random() >= self._augmentation.nearest_share:
            few = few[: self._augmentation.references]
        count = int(generator.integers(1, self._augmentation.references + 1))
        return nearest(face, frame, few)[:count]

    def _changed(
        self, face: Face, frame: int, chosen: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], list[Reference], NDArray[np.float32], NDArray[np.float32]]:
        """Target, references, landmarks and mask of an example, all changed alike."""
        size, change = face.clip.crop_size, self._augmentation
        changes: list[Change] = [colour_change(generator, change.colour)] if change.colour else []
        if generator.random() < change.blur:
            changes.append(blur(generator, size))
        way = zoom(1 + change.scale * generator.uniform(-1, 1), size)
        mirrored = generator.random() < change.flip
        frames = [frame, *chosen.tolist()]
        pictures = [_picture(zoomed(face.clip.crop(number), way), changes, mirrored) for number in frames]
        landmarks = [_points(apply_transform(way, face.landmarks[number]), mirrored, size) for number in frames]
        mask = zoomed(np.round(face.mask(frame) * 255).astype(np.uint8), way).astype(np.float32) / np.float32(255)
        if mirrored:
            mask = np.ascontiguousarray(mask[:, ::-1])
        references = [Reference(*pair) for pair in zip(pictures[1:], landmarks[1:], strict=True)]
        return pictures[0], references, landmarks[0], mask

    def _compare(
        self, painted: Tensor, logit: Tensor, clean: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, Figures]:
        weight = nn.functional.avg_pool2d(0.1 + MASK_WEIGHT * batch["mask"] + MOUTH_WEIGHT * batch["mouth"], 8)
        latent = ((painted - clean).square() * weight).mean()
        some = slice(0, max(1, round(len(painted) * DECODED_SHARE)))
        target, warped = batch["target"][some], batch["warped"][some]
        pixels = batch["mask"][some] + MOUTH_WEIGHT * batch["mouth"][some]
        decoded = self._autoencoder.decode(painted[some]).float()
        # Where to trust the painting is learnt from pixels, with the painting itself held fixed.
        mixed = mix(warped, decoded.detach(), trust(logit[some]), batch["guides"][some])
        mixing = ((mixed - target).square() * pixels).mean()
        pixel = ((decoded - target).abs() * pixels).mean()
        parts = {"latent": latent, "pixel": pixel, "trust": TRUST_WEIGHT * mixing}
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    def _judge(self, face: Face, frame: int) -> tuple[list[float], NDArray[np.uint8]]:
        """PSNR of one warped reference, of several merged, of the painting; and the pictures side by side."""
        truth = face.clip.crop(frame)
        chosen = nearest(face, frame, far_references(face, frame))[:JUDGED_REFERENCES]
        references = [Reference(face.clip.crop(number), face.landmarks[number]) for number in chosen]
        single, made = (
            make_example(truth, some, face.landmarks[frame], face.mask(frame)) for some in (references[:1], references)
        )
        painted = painted_crop(self.model, self._autoencoder, made)
        shown = [np.clip(np.rint(picture), 0, 255).astype(np.uint8) for picture in (truth, made.warped, painted)]
        scores = [weighted_psnr(picture, truth, made.mouth) for picture in (single.warped, made.warped, painted)]
        return scores, np.concatenate(shown, axis=1)


def painted_crop(
    model: LatentDenoiser, autoencoder: Any, made: told_examples.Example, steps: int = 1
) -> NDArray[np.float32]:
    """(S, S, 3) an example's crop painted, 0 to 255."""
    picture = made.warped.astype(np.float32)
    rows = painted_rows(len(picture))
    picture[rows] = paint(model, autoencoder, make_scheduler(), [made], 0, steps)[0]
    return picture


def far_references(face: Face, frame: int) -> NDArray[np.int64]:
    """Up to CANDIDATES frames of the clip, APART_S or more from this one; the furthest where none is so far."""
    apart = np.abs(np.arange(len(face.lips)) - frame)
    allowed = np.flatnonzero(apart >= min(APART_S * face.clip.frame_rate, apart.max()))
    spread: NDArray[np.int64] = allowed[np.linspace(0, len(allowed) - 1, min(CANDIDATES, len(allowed))).astype(int)]
    return spread


def nearest(face: Face, frame: int, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The other frames, the one with the most similar mouth first."""
    distance = np.linalg.norm(face.lips[others] - face.lips[frame], axis=1)
    ordered: NDArray[np.int64] = others[np.argsort(distance, kind="stable")]
    return ordered


def _picture(picture: NDArray[np.uint8], changes: Sequence[Change], mirrored: bool) -> NDArray[np.uint8]:
    for change in changes:
        picture = change(picture)
    return np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture


def _points(landmarks: NDArray[np.float32], mirrored: bool, size: int) -> NDArray[np.float32]:
    return flip_landmarks(landmarks, size) if mirrored else landmarks
