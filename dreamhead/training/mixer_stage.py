"""What training the reference mixer adds to the loop: frames, their references, losses that keep detail, a judgement.

Pictures lie on the device from the start (`face_store`), so that an example is a few numbers and the device makes the
rest: it never waits for data.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamhead.evaluation.metrics import weighted_psnr
from dreamhead.faces import topology
from dreamhead.faces.mesh_index import POINTS, VERTICES, mesh, vertices
from dreamhead.models.perceptual import PerceptualDistance
from dreamhead.models.reference_mixer import Mixture, ReferenceMixer, shown
from dreamhead.pipelines.example import Reference, make_example
from dreamhead.pipelines.moving import Drawn, Examples, FaceStore, Made, encoded, make_examples
from dreamhead.training.adversary import Adversary
from dreamhead.training.autoencoder_stage import to_pictures
from dreamhead.training.dataset import Clip, ClipInfo
from dreamhead.training.face_store import build_store, join, measure_clip
from dreamhead.training.image_stage import Face, Geometry, far_references, geometry_of, nearest
from dreamhead.training.mixer_losses import coarse_error, detail_error, motion_error, mouth_cut
from dreamhead.training.self_made import drawn_window, with_mouth_of
from dreamhead.training.settings import MixerStage
from dreamhead.training.task import Example, Figures, Judgement

OWN_S = 0.12, 0.5
"""The frame itself is stood in for by one so far away, whose head is nearly where it was and whose mouth isn't."""
APART_S = 0.4
CANDIDATES = 40
MOUTH_WEIGHT = 6.0
JUDGED_FRAMES = 4
JUDGED_BATCH = 16
NUMBERS = ("frames", "references")
MADE = "made_"
MERGED = 3
"""References of the warp that the mixer is compared with."""
PICTURES_SHOWN = 8
DETAIL_SIGMA = 1.0
QUALITY_OF_DISTANCE = 4.0
"""Decibels that count as much as a perceptual distance of one."""


class MixerTask:
    """Examples and loss of the reference mixer; see `Task`.

    Args:
        perceptual: file of weights for the perceptual loss; None takes the default place.
    """

    score = "quality"

    def __init__(self, model: ReferenceMixer, settings: MixerStage, perceptual: Path | None = None) -> None:
        self.model = model
        self.progress = 0.0
        """Share of the training that is done; the loop keeps it up to date."""
        self._settings = settings
        self.references = settings.references
        self.device = model.device
        distance = PerceptualDistance(perceptual or (Path(settings.perceptual) if settings.perceptual else None))
        self.distance = distance.to(self.device)
        self._adversary = Adversary(settings.loss.critic_learning_rate, self.device)
        self.triangles = torch.from_numpy(mesh()).to(self.device)
        self._geometry: WeakKeyDictionary[Clip, Geometry] = WeakKeyDictionary()
        self._kept: dict[str, _Kept] = {}
        self._store: FaceStore | None = None
        self._judged: _Judged | None = None
        self._compiled: tuple[Any, Any] | None = None

    def usable(self, clip: ClipInfo) -> bool:
        """Whether a clip has pictures, and other frames to be the references."""
        return clip.has_pictures and clip.frames > 2 * OWN_S[1] * clip.frame_rate

    def prepare(self, clips: Sequence[ClipInfo]) -> None:
        """Read the training clips onto the device: of each `every` pairs of neighbouring frames one."""
        kept = [_kept_frames(clip.frames, self._settings.every) for clip in clips]
        ends = np.cumsum([0, *(len(frames) for frames in kept)])
        self._kept = {
            clip.clip_id: _Kept(int(first), frames) for clip, first, frames in zip(clips, ends[:-1], kept, strict=True)
        }
        self._store = build_store(clips, self.model.config["window"], self.device, frames=kept)

    def begin(self, clips: Iterable[Clip]) -> dict[str, float]:
        """Nothing is fitted beforehand."""
        return {}

    def finish(self, clips: Iterable[Clip]) -> None:
        """Nothing is fitted afterwards."""

    def state(self) -> dict[str, Any]:
        """Of the critic, for checkpoints."""
        return self._adversary.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self._adversary.load_state(state)

    def example(self, clip: Clip, generator: np.random.Generator) -> Example:
        """The arrays of `Drawn` for two neighbouring frames, which have the same references: frames by their places
        in the store, `made_` ones those of `Made`, `errors` in pixels."""
        face, change, kept = self._face(clip), self._settings.augmentation, self._kept[clip.clip_id]
        pair = 2 * int(generator.integers(len(kept.frames) // 2))
        now = kept.frames[pair]
        shut = generator.random() < change.shut_share
        chosen = _drawn_references(face, int(now), kept.frames, self._settings.references, generator, shut)
        few = generator.random() < change.few_share
        count = int(generator.integers(1, self._settings.references)) if few else self._settings.references
        present = np.arange(len(chosen)) < count
        present[-1] = generator.random() < change.own_share
        made = bool(present[-1] and generator.random() < change.made_share)
        noise = generator.random((len(chosen), 1, 1)) * change.landmark_noise * clip.crop_size / 2.8
        same = {
            "present": present,
            "mirrored": np.array(generator.random() < change.flip),
            "colour": colour_matrix(generator, change.colour),
            "errors": (noise * generator.normal(size=(len(chosen), POINTS, 2))).astype(np.float32),
            "made_used": np.array(made),
        }
        other = int(generator.choice(kept.frames))
        both = [self._one(face, kept, pair + step, chosen, step, other if made else None) for step in (0, 1)]
        return {name: np.stack([{**same, **one}[name] for one in both]) for name in {**same, **both[0]}}

    def _one(
        self, face: Face, kept: "_Kept", place: int, chosen: NDArray[np.int64], step: int, other: int | None
    ) -> Example:
        """What differs between the two frames of an example; `other` is whose mouth the frame itself is given."""
        frame, window = int(kept.frames[place]), int(self.model.config["window"])
        references, distance = chosen.copy(), _distances(face, frame, chosen)
        # The frame's stand-in moves on with it.
        references[-1] = kept.frames[min(kept.place(int(chosen[-1])) + step, len(kept.frames) - 1)]
        if other is None:
            size, side = face.clip.crop_size, window
            picture, points = np.zeros((size, size, 3), np.uint8), np.zeros((VERTICES, 2), np.float32)
            image = np.zeros((side, side, 3), np.uint8)
        else:
            references[-1] = frame
            picture, landmarks = with_mouth_of(face, frame, other)
            points, image = vertices(landmarks)[:, :2], drawn_window(face, frame, landmarks, window)
            distance[-1] = np.linalg.norm(face.lips[other] - face.lips[frame])
        places = np.array([kept.place(int(number)) for number in references])
        return {
            "frames": np.array(kept.first + place),
            "references": kept.first + places,
            "distance": distance,
            "made_pictures": picture,
            "made_vertices": points,
            "made_drawn": image,
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Figures]:
        """What `mixer_losses` says of pixels, details, motion, what VGG sees, what the critic says; and their sum."""
        if self._store is None:
            raise RuntimeError("prepare comes before loss")
        encode, mix = self._calls()
        flat = {name: value.flatten(0, 1) for name, value in batch.items()}
        made = make_examples(encoded(encode, paired=True), self._store, self.triangles, _drawn(flat))
        mixture: Mixture = mix(made.moved, made.guides)
        picture = shown(mixture, _pixels_of(made))
        painted = made.target + made.mask * (picture - made.target)
        parts = self._parts(made, mixture, painted)
        if self.progress >= self._settings.loss.critic_from:
            parts |= self._criticised(made, painted)
        total = torch.stack(list(parts.values())).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def validate(self, clips: Sequence[Clip]) -> Judgement:
        """Of frames of clips that nothing is trained on, true landmarks, references at least two seconds away.

        `psnr` in dB, `distance` perceptual and `detail` as a share of the target's, of the mouth: of the mixer, of the
        nearest reference (`nearest_`), of the three nearest merged (`merged_`), and of the mixer that also has the
        frame itself at a moment nearby (`own_`).
        """
        if self._judged is None:
            self._judged = _Judged.of(clips, self, self.model.config["window"])
        return self._judged.judge(self.model)

    def _calls(self) -> tuple[Any, Any]:
        """The network's two methods, compiled where that is wanted."""
        if not self._settings.compile:
            return self.model.encode, self.model
        if self._compiled is None:
            self._compiled = torch.compile(self.model.encode), torch.compile(self.model)
        return self._compiled

    def _face(self, clip: Clip) -> Face:
        if clip not in self._geometry:
            self._geometry[clip] = geometry_of(clip)
        return Face(clip, self._geometry[clip])

    def _parts(self, made: Examples, mixture: Mixture, painted: Tensor) -> dict[str, Tensor]:
        weights = self._settings.loss
        weight = made.mask * (1 + MOUTH_WEIGHT * made.mouth)
        weight = weight / weight.mean().clamp_min(1e-6)
        alone = painted - made.mask * mixture.added
        # The dear networks look at one of each pair.
        seen = (made.mouth, painted, made.target, made.mask * (0.3 + made.mouth))
        ours, theirs, where = mouth_cut(*(part[::2] for part in seen))
        return {
            "pixel": weights.pixel * coarse_error(painted, made.target, weight),
            "mixed": weights.mixed * coarse_error(alone, made.target, weight),
            "added": weights.added * (mixture.added.abs() * weight).mean(),
            "detail": weights.detail * detail_error(painted, made.target, weight),
            "motion": weights.motion * motion_error(painted, made.target, weight),
            "steady": weights.steady * (mixture.fine[1::2] - mixture.fine[::2]).abs().sum(dim=1).mean(),
            "perceptual": weights.perceptual * self.distance(ours, theirs, where).float().mean(),
        }

    def _criticised(self, made: Examples, painted: Tensor) -> dict[str, Tensor]:
        weights = self._settings.loss
        pictures = mouth_cut(*(part[::2] for part in (made.mouth, painted, made.target, made.drawn)))
        fooled, matching = self._adversary.judge(*pictures)
        self._adversary.learn(*pictures)
        return {"adversary": weights.adversary * fooled, "matching": weights.matching * matching}


class _Kept(NamedTuple):
    """Which frames of a clip are in the store."""

    first: int
    """Place in the store of the first."""
    frames: NDArray[np.int64]
    """Ascending, two neighbours after each other."""

    def place(self, frame: int) -> int:
        """Where among them a frame is."""
        return int(np.searchsorted(self.frames, frame))


def _kept_frames(count: int, every: int) -> NDArray[np.int64]:
    """Of each `every` pairs of a clip's neighbouring frames the first."""
    firsts = np.arange(0, count - 1, 2 * every)
    return np.stack([firsts, firsts + 1], axis=1).ravel()


def _pixels_of(made: Examples) -> Tensor:
    if made.pixels is None:
        raise RuntimeError("moved without pixels")
    return made.pixels


class _Judged:
    """Frames that are judged again and again, with what doesn't change."""

    def __init__(self, store: FaceStore, drawn: Drawn, fixed: dict[str, float], task: MixerTask) -> None:
        self._store, self._drawn, self._fixed, self._task = store, drawn, fixed, task

    @classmethod
    def of(cls, clips: Sequence[Clip], task: MixerTask, window: int) -> "_Judged":
        """The judged frames of clips and what warps make of them."""
        rows: list[Example] = []
        warps, measured, first = [], [], 0
        for face in (Face(clip, geometry_of(clip)) for clip in clips):
            frames = np.linspace(0, len(face.landmarks) - 1, JUDGED_FRAMES).astype(int).tolist()
            chosen = [_judged_row(face, frame, task.references) for frame in frames]
            used = np.unique(np.concatenate([np.append(row["references"], row["frames"]) for row in chosen]))
            # Only the frames that are looked at are kept: their numbers are their places among these.
            rows += [{**row, **{key: first + np.searchsorted(used, row[key]) for key in NUMBERS}} for row in chosen]
            warps += [_warps(face, frame, task) for frame in frames]
            measured.append(measure_clip(face.clip, window, used))
            first += len(used)
        batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(task.device) for name in rows[0]}
        return cls(join(measured).to(task.device), _drawn(batch), _means(warps), task)

    def judge(self, model: ReferenceMixer) -> Judgement:
        """What `MixerTask.validate` gives."""
        found, sheets = [], []
        for start in range(0, len(self._drawn.frames), JUDGED_BATCH):
            for own in (False, True):
                part = _part(self._drawn, slice(start, start + JUDGED_BATCH), own)
                made = make_examples(encoded(model.encode), self._store, self._task.triangles, part)
                picture = shown(model(made.moved, made.guides), _pixels_of(made))
                painted = made.target + made.mask * (picture - made.target)
                name = "own_" if own else ""
                found += [
                    {name + key: value for key, value in row.items()} for row in _figures(painted, made, self._task)
                ]
                sheets += [] if own else _rows(made, painted)
        figures = {**_means(found), **self._fixed}
        figures["quality"] = figures["psnr"] - QUALITY_OF_DISTANCE * figures["distance"]
        chosen = np.linspace(0, len(sheets) - 1, min(PICTURES_SHOWN, len(sheets))).astype(int)
        return Judgement(
            figures=figures, pictures={"target, nearest, painted": np.concatenate([sheets[n] for n in chosen])}
        )


def colour_matrix(generator: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """(3, 3) a random change of gain, saturation and hue of red, green and blue."""
    gain, saturation = (1 + strength * (generator.uniform(*ends) - 1) for ends in ((0.75, 1.2), (0.7, 1.3)))
    angle = strength * generator.uniform(-0.25, 0.25)
    grey = np.full((3, 3), 1 / 3)
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    # Rodrigues' rotation about the axis of greys.
    hue = grey + np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * axis
    return np.asarray(gain * (grey + saturation * (np.eye(3) - grey)) @ hue, np.float32)


def _drawn_references(
    face: Face,
    frame: int,
    frames: NDArray[np.int64],
    count: int,
    generator: np.random.Generator,
    shut: bool = False,
) -> NDArray[np.int64]:
    """(count + 1,) of the clip's `frames`: the nearest mouths of some, then one nearby that stands in for the frame.

    Args:
        shut: draw from the most shut quarter only.
    """
    rate, apart = face.clip.frame_rate, np.abs(frames - frame)
    others = frames[apart >= min(APART_S * rate, apart.max())]
    if shut:
        others = others[np.argsort(_gaps(face)[others], kind="stable")][: max(1, len(others) // 4)]
    few = generator.choice(others, min(len(others), CANDIDATES), replace=False)
    chosen = nearest(face, frame, few)[:count]
    chosen = np.concatenate([chosen, np.repeat(chosen[:1], count - len(chosen))])
    near = frames[(apart >= max(2, OWN_S[0] * rate)) & (apart <= max(2, OWN_S[1] * rate))]
    return np.append(chosen, generator.choice(near) if len(near) else others[0]).astype(np.int64)


def _gaps(face: Face) -> NDArray[np.float32]:
    """(T,) between the lips' middles, pixels of the crop."""
    upper, lower = (face.landmarks[:, point, :2] for point in (topology.UPPER_LIP_MIDDLE, topology.LOWER_LIP_MIDDLE))
    return np.asarray(np.linalg.norm(lower - upper, axis=1), np.float32)


def _distances(face: Face, frame: int, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(face.lips[chosen] - face.lips[frame], axis=1), np.float32)


def _judged_row(face: Face, frame: int, count: int) -> Example:
    generator = np.random.default_rng(frame)
    chosen = nearest(face, frame, far_references(face, frame))[:count]
    own = _drawn_references(face, frame, np.arange(len(face.lips)), count, generator)[-1:]
    present = np.append(np.arange(count) < len(chosen), False)
    chosen = np.concatenate([chosen, np.repeat(chosen[:1], count - len(chosen)), own])
    return {
        "frames": np.array(frame),
        "references": chosen,
        "present": present,
        "distance": _distances(face, frame, chosen),
    }


def _drawn(batch: dict[str, Tensor]) -> Drawn:
    own = torch.zeros_like(batch["present"])
    own[:, -1] = True
    rest = {name: value for name, value in batch.items() if not name.startswith(MADE)}
    made = {name.removeprefix(MADE): value for name, value in batch.items() if name.startswith(MADE)}
    return Drawn(own=own, made=Made(**made) if made else None, **rest)


def _part(drawn: Drawn, some: slice, own: bool) -> Drawn:
    """Some of the judged examples, which have no errors and no made frames; with the frame itself or without."""
    present = drawn.present[some].clone()
    present[:, -1] = own
    return Drawn(
        frames=drawn.frames[some],
        references=drawn.references[some],
        present=present,
        own=drawn.own[some],
        distance=drawn.distance[some],
    )


def _warps(face: Face, frame: int, task: MixerTask) -> dict[str, float]:
    """Figures of the nearest reference moved, and of some merged, as the warp renderer does it."""
    truth = face.clip.crop(frame)
    chosen = nearest(face, frame, far_references(face, frame))[:MERGED]
    references = [Reference(face.clip.crop(number), face.landmarks[number]) for number in chosen]
    figures: dict[str, float] = {}
    for name, some in (("nearest_", references[:1]), ("merged_", references)):
        made = make_example(truth, some, face.landmarks[frame], face.mask(frame))
        rows = _compared(made.warped[None], truth[None], made.mouth[None], task)
        figures |= {name + key: value for key, value in rows[0].items()}
    return figures


def _figures(painted: Tensor, made: Examples, task: MixerTask) -> list[dict[str, float]]:
    mouth = made.mouth[:, 0].cpu().numpy()
    return _compared(to_pictures(painted), to_pictures(made.target), mouth, task)


def _compared(
    ours: NDArray[np.uint8], truth: NDArray[np.uint8], mouth: NDArray[np.float32], task: MixerTask
) -> list[dict[str, float]]:
    """Figures of (B, H, W, 3) pictures where (B, H, W) mouth is."""
    # Copied, since packed pictures can't be written to.
    both = [torch.tensor(part, device=task.device).permute(0, 3, 1, 2).float() / 127.5 - 1 for part in (ours, truth)]
    weight = torch.from_numpy(mouth).to(task.device)[:, None]
    distances = task.distance(*both, weight).tolist()
    return [
        {
            "psnr": weighted_psnr(ours[n], truth[n], mouth[n]),
            "distance": distances[n],
            "detail": _detail(ours[n], mouth[n]) / max(_detail(truth[n], mouth[n]), 1e-6),
        }
        for n in range(len(ours))
    ]


def _detail(picture: NDArray[np.uint8], weight: NDArray[np.float32]) -> float:
    """Weighted variance of what a small blur takes away from the brightness."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_SIGMA)
    return float((fine**2 * weight).sum() / weight.sum())


def _rows(made: Examples, painted: Tensor) -> list[NDArray[np.uint8]]:
    nearest_one = made.target + made.mask * (_pixels_of(made)[:, 0] - made.target)
    parts = [to_pictures(part) for part in (made.target, nearest_one, painted)]
    return list(np.concatenate(parts, axis=2))


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {name for row in rows for name in row}
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in sorted(names)}
