"""Second stage at work: target landmarks in, frames with the lower face painted anew out.

A frame's own skin is moved along the landmarks to the wanted mouth; what the frame can't show, the inside of the
mouth, comes from the frames of the same shot whose mouths were nearest, moved likewise and merged. The diffusion model
paints what no warp can, and says where its painting is better than the warped pixels, which stay everywhere else.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Self

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import RenderSettings
from dreamhead.diffusion.objective import make_scheduler
from dreamhead.diffusion.sampling import keyed_noise, sample
from dreamhead.faces import geometry
from dreamhead.faces.compositing import Layer, composite
from dreamhead.faces.crop import apply_transform, extract, pose_mask
from dreamhead.faces.mesh_index import triangle_index, vertices
from dreamhead.faces.reference import choose_references, patch
from dreamhead.faces.warp import STRETCH_LIMIT, displacement, warp
from dreamhead.models.latent_denoiser import FACTOR, LatentDenoiser
from dreamhead.models.reference_mixer import ReferenceMixer
from dreamhead.pipelines.example import DETAIL_SIGMA, Example, Reference, make_example, painted_rows, tell, with_skin
from dreamhead.pipelines.memory import Fitting
from dreamhead.pipelines.mixing import Face, Mouth, ShotMixer
from dreamhead.pipelines.placing import Bared, Place, with_bare_references
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
        self._mixer = mixer
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
        shot = with_bare_references(shot)
        references = self._references(shot, targets, strength, np.asarray(source_indices))
        mixer = self._mixer_of(shot)
        bared = (Bared.of(*pair, shot) for pair in zip(frames, source_indices, strict=True))
        rows = zip(bared, source_indices, strength, targets, references, strict=True)
        waiting: list[Any] = []
        while waiting := [*waiting, *islice(rows, max(0, self._fitting.at_once - len(waiting)))]:
            batch = waiting[: self._fitting.at_once]
            made = self._made(batch, shot)
            painted = self._fitting.tried(partial(self._painted, made, mixer, seed), max(1, len(made)))
            if painted is not None:
                waiting = waiting[len(batch) :]
                yield from self._composited(batch, made, painted)

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
        return [
            self._one(frame.clean, Place.of(shot, int(number), float(strength), lower, self._size), shot, numbers)
            for frame, number, strength, lower, numbers in rows
            if strength > 0
        ]

    def _one(self, frame: Picture, place: Place, shot: ShotAnalysis, numbers: NDArray[np.int64]) -> "_Made":
        crop = extract(frame, place.stored, self._size)
        mask = pose_mask(shot.neutral, place.pose, place.transform, self._size, self._settings.feather)
        index = triangle_index(vertices(place.target), self._size)
        face = self._face(crop, place, shot, mask, numbers, index) if self._mixer is not None else None
        own = displacement(place.landmarks, place.target, self._size, index) if self._settings.skin == "frame" else None
        if face is not None and own is not None:
            return _Made(place, mask, [_layer(frame, place.stored, own.source, np.ones_like(mask))], shot, face)
        chosen = numbers[: self._settings.references]
        references = [Reference(shot.reference_crops[number], shot.reference_landmarks[number]) for number in chosen]
        example = make_example(crop, references, place.target, mask, index)
        layers, moved = [], example.nearest.picture.astype(np.float32)
        seen = 1 - example.unseen
        if own is not None:
            skin = warp(crop, own)
            example, seen = with_skin(example, skin), seen * example.mouth
            around = 1 - example.mouth
            layers.append(_layer(frame, place.stored, own.source, around))
            moved = seen[..., None] * moved + around[..., None] * skin
        else:
            moved = seen[..., None] * moved
        layers.append(_layer(*patch(shot, int(chosen[0])), example.nearest.source, seen))
        return _Made(place, mask, layers, shot, face, example, example.warped - moved)

    def _face(
        self,
        crop: Picture,
        place: Place,
        shot: ShotAnalysis,
        mask: NDArray[np.float32],
        numbers: NDArray[np.int64],
        index: NDArray[np.int16],
    ) -> Face:
        return Face(
            crop=crop,
            landmarks=place.landmarks,
            target=place.target,
            resting=apply_transform(place.transform, place.pose.to_pixels(shot.neutral[None])[0]),
            mask=mask,
            canonical=place.canonical,
            own_canonical=place.own_canonical,
            references=numbers,
            index=index,
        )

    def _mixer_of(self, shot: ShotAnalysis) -> ShotMixer | None:
        if self._mixer is None:
            return None
        pairs = zip(shot.reference_crops, shot.reference_landmarks, strict=True)
        return ShotMixer(self._mixer, self._half, [Reference(*pair) for pair in pairs])

    def _painted(self, made: "list[_Made]", mixer: ShotMixer | None, seed: int) -> "list[_Painted]":
        if not made:
            return []
        if mixer is not None:
            faces = [its.face for its in made if its.face is not None]
            mouths = mixer(faces, self._settings.skin == "frame")
            return [self._with_mouth(its, face, mouth) for its, face, mouth in zip(made, faces, mouths, strict=True)]
        examples = [its.example for its in made if its.example is not None]
        painted = self.paint(examples, seed)
        return [
            _Painted(its.layers, its.change + (picture - example.warped))
            for its, example, picture in zip(made, examples, painted, strict=True)
        ]

    def _with_mouth(self, made: "_Made", face: Face, mouth: Mouth) -> "_Painted":
        """What surrounds the mouth's window, and in it what is mixed."""
        fade = np.zeros_like(made.mask)
        fade[mouth.window] = _fade_to_edge(len(mouth.change), self._size)
        layers = [layer._replace(share=layer.share * (1 - fade)) for layer in made.layers]
        change = np.zeros((self._size, self._size, 3), np.float32) if made.change is None else made.change
        change = change * (1 - fade)[..., None]
        inside = fade[mouth.window]
        change[mouth.window] += inside[..., None] * mouth.change
        corner = mouth.window[1].start, mouth.window[0].start
        for number, source, share in zip(face.references.tolist(), mouth.sources, mouth.shares, strict=False):
            layers.append(Layer(*patch(made.shot, number), corner, source, share * inside))
        if self._settings.skin == "frame":
            layers[0].share[mouth.window] += mouth.shares[-1] * inside
        return _Painted(layers, change)

    def _composited(self, rows: list[Any], made: "list[_Made]", painted: "list[_Painted]") -> Iterator[Picture]:
        dubbed = iter(zip(made, painted, strict=True))
        for frame, _, strength, _, _ in rows:
            if strength <= 0:
                yield frame.whole
                continue
            its, new = next(dubbed)
            opacity = its.mask * np.float32(min(1.0, 2 * strength))
            yield frame.covered(composite(frame.clean, new.layers, new.change, opacity, its.place.stored))

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


@dataclass(frozen=True, eq=False)
class _Made:
    """What is known of one frame before it is painted."""

    place: Place
    mask: NDArray[np.float32]
    """(S, S) opacity."""
    layers: list[Layer]
    """What is seen where nothing is painted; the frame's own skin first, if it is among them."""
    shot: ShotAnalysis
    face: Face | None = None
    """What the mixer is told."""
    example: Example | None = None
    """What the painting network is told."""
    change: NDArray[np.float32] | None = None
    """(S, S, 3) added to the layers."""


class _Painted(NamedTuple):
    """One frame's lower face, painted."""

    layers: list[Layer]
    change: NDArray[np.float32]


def _layer(pixels: Picture, transform: Floats, source: NDArray[np.float32], share: NDArray[np.float32]) -> Layer:
    """A layer of the whole crop."""
    return Layer(pixels, transform, (0, 0), source, share)


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
