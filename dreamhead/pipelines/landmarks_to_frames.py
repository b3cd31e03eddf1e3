"""Second stage at work: target landmarks in, frames with the lower face painted anew out.

A frame's own skin is moved along the landmarks to the wanted mouth; what the frame can't show, the inside of the
mouth, comes from the frames of the same shot whose mouths were nearest, moved likewise and merged. The diffusion model
paints what no warp can, and says where its painting is better than the warped pixels, which stay everywhere else.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Self

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import RenderSettings
from dreamhead.diffusion.objective import make_scheduler
from dreamhead.diffusion.sampling import keyed_noise, sample
from dreamhead.faces import geometry, topology
from dreamhead.faces.crop import Moved, apply_transform, crop_transforms, extract, paste, pose_mask
from dreamhead.faces.geometry import Pose
from dreamhead.faces.overlay import overlay_mask, with_overlay, without_overlay
from dreamhead.faces.pixel_aspect import from_stored
from dreamhead.faces.reference import choose_references, mouth_shape
from dreamhead.faces.warp import STRETCH_LIMIT, displacement, warp
from dreamhead.models.latent_denoiser import FACTOR, LatentDenoiser
from dreamhead.models.reference_mixer import ReferenceMixer
from dreamhead.pipelines.example import DETAIL_SIGMA, Example, Reference, make_example, painted_rows, tell, with_skin
from dreamhead.pipelines.memory import Fitting
from dreamhead.pipelines.mixing import Face, Mouth, MouthMixer
from dreamhead.records import ShotAnalysis

START = 0.6
"""Share of the noise schedule that sampling starts from: the warped reference is already near."""
CAUTION = 2.0
"""Logits are lowered by this: a network that hasn't learnt anything is trusted little."""
TORN = 0.5, 1.5
"""log2 of the stretch up to which a warp's details are kept, and from which the painting's are taken."""
STRETCH_CHANNEL = 6
"""Of the guides."""
MIXED = 5
"""References that the mixer is given, as when it was trained."""
WINDOW_EDGE = 0.05
"""Over this share of the crop's side the mixer's window passes into what surrounds it."""
ADVICE = "let fewer processes share the GPU (pools.render.num_gpus), free its memory, or set device: cpu"

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


class LandmarksToFrames:
    """Paints frames of one shot.

    Args:
        model: in evaluation mode, on its device.
        autoencoder: with `encode` and `decode`, on the same device.
        apart: fewest frames between a frame and its reference; for judging only, see `choose_references`.
        mixer: for `renderer: mixer`, on the same device.
    """

    def __init__(
        self,
        model: LatentDenoiser,
        autoencoder: Any,
        settings: RenderSettings,
        size: int,
        apart: int = 0,
        mixer: ReferenceMixer | None = None,
    ) -> None:
        self._model = model
        self._autoencoder = autoencoder
        self._settings = settings
        self._size = size
        self._apart = apart
        self._scheduler = make_scheduler()
        self._half = use_bfloat16(settings.precision, model.device)
        self._mixer = MouthMixer(mixer, self._half) if mixer is not None else None
        self._fitting = Fitting(settings.batch_size, f"rendering crops of {size}x{size} pixels", model.device, ADVICE)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, settings: RenderSettings, device: torch.device, apart: int = 0
    ) -> Self:
        """The pipeline with a checkpoint's networks."""
        networks = checkpoint.latent_denoiser(device), checkpoint.autoencoder(device)
        mixer = checkpoint.reference_mixer(device) if settings.renderer == "mixer" else None
        return cls(*networks, settings, checkpoint.config.crop_size, apart, mixer)

    def __call__(
        self,
        frames: Iterable[Picture],
        source_indices: Sequence[int],
        strength: NDArray[np.float32],
        shot: ShotAnalysis,
        targets: NDArray[np.float32],
        seed: int,
    ) -> Iterator[Picture]:
        """One frame out for each frame in, in order; at most `batch_size` are held.

        A batch that doesn't fit the GPU's memory is halved, and all that follow are as small.

        Args:
            frames: T frames (H, W, 3) RGB.
            source_indices: T numbers of the frames in the source, inside the shot.
            strength: (T,) 0 passes the frame through untouched, 1 dubs it, between the mouth is on its way.
            shot: of all these frames.
            targets: (T, K, 3) canonical lower faces.
            seed: of the noise, the same map for all frames of a job against flicker.

        Raises:
            DeviceMemoryError: not even one frame fits.
        """
        shot = _with_bare_references(shot, self._size)
        references = self._references(shot, targets, strength, np.asarray(source_indices))
        bared = (_Bared.of(*pair, shot) for pair in zip(frames, source_indices, strict=True))
        rows = zip(bared, source_indices, strength, targets, references, strict=True)
        waiting: list[Any] = []
        while waiting := [*waiting, *islice(rows, max(0, self._fitting.at_once - len(waiting)))]:
            batch = waiting[: self._fitting.at_once]
            made = self._made(batch, shot)
            painted = self._fitting.tried(partial(self._painted, made, shot, seed), max(1, len(made)))
            if painted is not None:
                waiting = waiting[len(batch) :]
                yield from self._pasted(batch, made, painted)

    def mask(self, shot: ShotAnalysis, frame: int) -> NDArray[np.float32]:
        """(S, S) opacity of the dubbed region of one frame of the source."""
        number = frame - shot.start
        pose = geometry.fit_pose(shot.landmarks[number][None])
        return pose_mask(shot.neutral, pose, shot.crops[number], self._size, self._settings.feather)

    def _references(
        self,
        shot: ShotAnalysis,
        targets: NDArray[np.float32],
        strength: NDArray[np.float32],
        frames: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        if not len(shot.reference_frames) or not strength.any():
            return np.zeros((len(targets), 1), np.int64)
        count = MIXED if self._mixer is not None else self._settings.references
        return choose_references(shot, targets, count, frames, self._apart)

    def _made(self, rows: list[Any], shot: ShotAnalysis) -> "list[_Made]":
        """What is known of each row that is dubbed."""
        chosen = [row for row in rows if row[2] > 0]
        places = [_Place.of(shot, int(row[1]), float(row[2]), row[3], self._size) for row in chosen]
        crops = [extract(row[0].clean, place.stored, self._size) for row, place in zip(chosen, places, strict=True)]
        if self._mixer is not None:
            return [
                self._face(crop, place, shot, row[4]) for crop, place, row in zip(crops, places, chosen, strict=True)
            ]
        return [
            _Made(place, *self._example(crop, place, shot, row[4]))
            for crop, place, row in zip(crops, places, chosen, strict=True)
        ]

    def _painted(self, made: "list[_Made]", shot: ShotAnalysis, seed: int) -> "list[_Painted]":
        if not made:
            return []
        if self._mixer is not None:
            return self._mixed(self._mixer, made, shot)
        painted = self.paint([its.example for its in made], seed)
        return [_Painted(crop, its.example.mask, its.moved) for crop, its in zip(painted, made, strict=True)]

    def _pasted(self, rows: list[Any], made: "list[_Made]", painted: "list[_Painted]") -> Iterator[Picture]:
        dubbed = iter(zip(made, painted, strict=True))
        for frame, _, strength, _, _ in rows:
            if strength <= 0:
                yield frame.whole
                continue
            its, new = next(dubbed)
            opacity = new.mask * np.float32(min(1.0, 2 * strength))
            yield frame.covered(paste(frame.clean, new.crop, opacity, its.place.stored, new.moved))

    def _face(self, crop: Picture, place: "_Place", shot: ShotAnalysis, numbers: NDArray[np.int64]) -> "_Made":
        mask = pose_mask(shot.neutral, place.pose, place.transform, self._size, self._settings.feather)
        resting = apply_transform(place.transform, place.pose.to_pixels(shot.neutral[None])[0])
        face = Face(crop, place.landmarks, place.target, resting, mask, place.canonical, place.own_canonical, numbers)
        return _Made(place, face, *self._around(face, shot))

    def _around(self, face: Face, shot: ShotAnalysis) -> "tuple[Moved | None, Picture]":
        """What surrounds the mouth's window: the frame's own skin, moved, or that of references."""
        if self._settings.skin == "frame":
            field = displacement(face.landmarks, face.target, self._size)
            own = warp(face.crop, field)
            return Moved(field.source, own, np.ones(face.mask.shape, np.float32)), own
        references = [Reference(shot.reference_crops[n], shot.reference_landmarks[n]) for n in face.references]
        return None, make_example(face.crop, references[: self._settings.references], face.target, face.mask).warped

    def _mixed(self, mixer: MouthMixer, made: "list[_Made]", shot: ShotAnalysis) -> "list[_Painted]":
        """What surrounds the mouths, and in their windows what is mixed."""
        references = [Reference(*pair) for pair in zip(shot.reference_crops, shot.reference_landmarks, strict=True)]
        canonical = geometry.fit_pose(shot.reference_landmarks).to_canonical(shot.reference_landmarks)
        faces, own = [its.example for its in made], self._settings.skin == "frame"
        mouths = mixer(references, mouth_shape(canonical), faces, own)
        return [self._with_mouth(its, mouth) for its, mouth in zip(made, mouths, strict=True)]

    def _with_mouth(self, made: "_Made", mouth: Mouth) -> "_Painted":
        crop, moved = made.around.astype(np.float32), made.moved
        fade = _fade_to_edge(len(mouth.own), self._size)
        crop[mouth.window] += fade[..., None] * (mouth.picture - crop[mouth.window])
        if moved is not None:
            moved.share[mouth.window] += fade * (mouth.own - moved.share[mouth.window])
        return _Painted(crop, made.example.mask, moved)

    def _example(
        self, crop: Picture, place: "_Place", shot: ShotAnalysis, numbers: NDArray[np.int64]
    ) -> tuple[Example, Moved | None]:
        references = [Reference(shot.reference_crops[number], shot.reference_landmarks[number]) for number in numbers]
        mask = pose_mask(shot.neutral, place.pose, place.transform, self._size, self._settings.feather)
        example = make_example(crop, references, place.target, mask)
        if self._settings.skin == "reference":
            return example, None
        field = displacement(place.landmarks, place.target, self._size)
        own = warp(crop, field)
        return with_skin(example, own), Moved(field.source, own, 1 - example.mouth)

    def paint(self, examples: list[Example], seed: int) -> NDArray[np.float32]:
        """(B, S, S, 3) painted crops of B examples, 0 to 255."""
        warped = np.stack([example.warped for example in examples]).astype(np.float32)
        if self._settings.renderer == "warp":
            return warped
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._half):
            steps = self._settings.num_inference_steps
            painted = paint(self._model, self._autoencoder, self._scheduler, examples, seed, steps)
        warped[:, painted_rows(self._size)] = painted
        return warped


def _with_bare_references(shot: ShotAnalysis, size: int) -> ShotAnalysis:
    """The shot with what is burnt in taken off its references: letters over a mouth would move with it."""
    if not len(shot.overlay_pixels):
        return shot
    crops = shot.reference_crops.copy()
    width, height = (int(value) + 1 for value in shot.overlay_pixels.max(axis=0))
    for place, number in enumerate(shot.reference_frames.tolist()):
        overlay = overlay_mask(shot.overlay_spans, shot.overlay_pixels, number, (height, width))
        if overlay is None:
            continue
        transform = crop_transforms(geometry.fit_pose(shot.landmarks[number - shot.start][None]), size)[0]
        transform = from_stored(transform, shot.pixel_aspect)
        hidden = np.asarray(cv2.warpAffine(overlay, transform, (size, size), flags=cv2.INTER_LINEAR), np.uint8)
        if hidden.any():
            crops[place] = without_overlay(crops[place], np.where(hidden > 0, np.uint8(255), np.uint8(0)))
    return replace(shot, reference_crops=crops)


class _Bared(NamedTuple):
    """A frame, and what it shows without what is burnt in over the lower face."""

    whole: Picture
    clean: Picture
    overlay: Picture | None

    @classmethod
    def of(cls, frame: Picture, number: int, shot: ShotAnalysis) -> "_Bared":
        overlay = overlay_mask(shot.overlay_spans, shot.overlay_pixels, int(number), frame.shape[:2])
        # The skin around it is moved: letters would be moved along, and seen beside those that are kept.
        return cls(frame, frame if overlay is None else without_overlay(frame, overlay), overlay)

    def covered(self, painted: Picture) -> Picture:
        """The painted frame with what was burnt in where it was."""
        return painted if self.overlay is None else with_overlay(painted, self.whole, self.overlay)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where one frame's face is, and where its landmarks shall go, in pixels of the crop."""

    pose: Pose
    transform: NDArray[np.float32]
    """(2, 3) from square pixels to the crop."""
    stored: Floats
    """(2, 3) from the frame's own pixels to the crop."""
    landmarks: NDArray[np.float32]
    target: NDArray[np.float32]
    canonical: NDArray[np.float32]
    """(478, 3) the wanted face."""
    own_canonical: NDArray[np.float32]
    """(478, 3) the frame's own."""

    @classmethod
    def of(cls, shot: ShotAnalysis, frame: int, strength: float, lower: Floats, size: int) -> "_Place":
        landmarks, transform = shot.landmarks[frame - shot.start], shot.crops[frame - shot.start]
        pose = geometry.fit_pose(landmarks[None])
        canonical = pose.to_canonical(landmarks[None])
        own, points = canonical[0].copy(), topology.lower_face()
        # A mouth on its way in or out has gone only part of the way from the source's.
        share = strength * topology.lower_face_weight()[:, None]
        canonical[0, points] += share * (lower - canonical[0, points])
        target = pose.to_pixels(canonical)[0]
        now, then = (apply_transform(transform, points) for points in (landmarks, target))
        stored = from_stored(transform, shot.pixel_aspect)
        return cls(pose, transform, stored, now, then, canonical[0], own)


class _Made(NamedTuple):
    """What is known of one frame before it is painted."""

    place: _Place
    example: Any
    """An Example, or the mixer's Face."""
    moved: Moved | None
    around: Picture = np.empty((0, 0, 3), np.uint8)
    """(S, S, 3) for the mixer: the crop but for the mouth's window."""


class _Painted(NamedTuple):
    """One frame's crop, painted."""

    crop: NDArray[np.float32]
    mask: NDArray[np.float32]
    moved: Moved | None


def _fade_to_edge(window: int, size: int) -> NDArray[np.float32]:
    """(W, W) 1 inside, falling to 0 at the window's edge."""
    width = max(1, round(WINDOW_EDGE * size))
    place = np.arange(window) + 0.5
    rising = np.clip(np.minimum(place, window - place) / width, 0, 1)
    return np.asarray(np.minimum(rising[:, None], rising), np.float32)


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether the networks run in bfloat16: `auto` says yes where the processor computes in it, not only stores it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@torch.no_grad()
def paint(
    model: LatentDenoiser, autoencoder: Any, scheduler: Any, examples: list[Example], seed: int, steps: int
) -> NDArray[np.float32]:
    """The painted rows of B crops (B, R, S, 3), 0 to 255."""
    told = tell(examples)
    warped, mask, guides = (part.to(model.device) for part in told)
    pictures = torch.cat([warped, hide(warped, mask)]).to(memory_format=torch.channels_last)
    reference, masked = autoencoder.encode(pictures).chunk(2)
    logits: list[Tensor] = []

    def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
        clean: Tensor
        clean, logit = model(noisy, timestep, reference, masked, guides)
        logits.append(logit)
        return clean

    noise = keyed_noise(seed, [0], reference.shape[1:]).to(model.device).expand_as(reference)
    latents = sample(denoiser, scheduler, noise, steps, begin=reference, start=START)
    mixed = mix(warped, autoencoder.decode(latents).float().clamp(-1, 1), trust(logits[-1].float()), guides)
    return np.ascontiguousarray(((mixed + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy(), np.float32)


def mix(warped: Tensor, painted: Tensor, share: Tensor, guides: Tensor) -> Tensor:
    """(B, 3, R, S) the painting where it is trusted, with the details of the warped pixels.

    A network that minimises errors blurs what it isn't sure of, and of details nobody is. So only what is coarse comes
    from it, but for where the warp was torn: there the warped details are no better.

    Args:
        warped: (B, 3, R, S) in -1..1.
        painted: (B, 3, R, S) in -1..1.
        share: (B, 1, R, S), see `trust`.
        guides: (B, 8, R, S), see `Told`.
    """
    change = share * (painted - warped)
    coarse = _blurred(change, change.shape[-1] * DETAIL_SIGMA)
    stretch = guides[:, STRETCH_CHANNEL, None].abs() * STRETCH_LIMIT
    torn = ((stretch - TORN[0]) / (TORN[1] - TORN[0])).clamp(0, 1)
    mixed: Tensor = warped + coarse + torn * (change - coarse)
    return mixed


def _blurred(pictures: Tensor, sigma: float) -> Tensor:
    """(B, C, R, S) after a Gaussian of `sigma` pixels."""
    reach = max(1, math.ceil(3 * sigma))
    place = torch.arange(-reach, reach + 1, device=pictures.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (place / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(pictures.dtype)
    channels = pictures.shape[1]
    padded = nn.functional.pad(pictures, (reach, reach, reach, reach), mode="replicate")
    across = nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return nn.functional.conv2d(across, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def hide(pixels: Tensor, mask: Tensor) -> Tensor:
    """(B, 3, S, S) pictures with grey where (B, 1, S, S) `mask` is; a soft edge would let the mouth shine through."""
    shown: Tensor = pixels * (mask <= 0)
    return shown


def trust(logit: Tensor) -> Tensor:
    """(B, 1, r, s) logits -> (B, 1, 8 r, 8 s) share of the painting in the result."""
    share = torch.sigmoid(logit - CAUTION)
    return nn.functional.interpolate(share, scale_factor=float(FACTOR), mode="bilinear", align_corners=False)
