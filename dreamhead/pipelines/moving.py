"""Batches of the mixer's examples from a store of faces, on its device: pictures moved, matched in colour, changed."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamhead.faces.landmark_image import draw
from dreamhead.faces.mesh_index import POINTS, triangle_index, vertices
from dreamhead.faces.mouth_window import window_corner
from dreamhead.models.reference_mixer import Moved, enlarged
from dreamhead.models.warping import blurred, pixel_grid, sample, sources, stretch
from dreamhead.pipelines.example import mouth_region

COARSE = 4
"""Slow changes of colour are measured in pictures so many times smaller."""
EDGE = 0.9
"""Below this opacity a mask's edge shows enough of the frame to match colours to."""
MATCH_SIGMA = 1 / 12
"""Width, as a share of the crop's side, within which a difference of colour at the mask's edge spreads."""
UNSURE = 0.05


Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`ReferenceMixer.encode`."""


@dataclass(frozen=True)
class FaceStore:
    """N frames of clips joined end to end. S is the side of a crop, W that of the mouth's window, V = VERTICES."""

    pictures: Tensor
    """(N, S, S, 3) uint8."""
    corners: Tensor
    """(N, 2) int64 x, y of the window in the crop."""
    vertices: Tensor
    """(N, V, 2) float32 pixels of the crop."""
    index: Tensor
    """(N, W, W) int16 triangle of each pixel of the window."""
    coarse_index: Tensor
    """(N, S / 4, S / 4) int16 the same of the whole crop, coarsely."""
    ring: Tensor
    """(N, S / 4, S / 4) uint8 the mask's edge, where colours are matched."""
    drawn: Tensor
    """(N, W, W, 3) uint8 landmark image."""
    mask: Tensor
    """(N, W, W) uint8 opacity of the dubbed region, 0 to 255."""
    mouth: Tensor
    """(N, W, W) uint8 lips and what is between them, 0 to 255."""

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> "FaceStore":
        """The same on a device."""
        return FaceStore(*(getattr(self, field.name).to(device) for field in fields(self)))


Measured = dict[str, NDArray[np.generic]]
"""The arrays of `FaceStore` for one frame."""


def measure_frame(
    picture: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    resting: NDArray[np.float32],
    mask: NDArray[np.float32],
    window: int,
    index: NDArray[np.int16] | None = None,
) -> Measured:
    """What is known of one frame.

    Args:
        picture: (S, S, 3) crop.
        landmarks: (478, 3) pixels of the crop.
        resting: (478, 3) the speaker's resting face in this frame's pose, pixels of the crop.
        mask: (S, S) opacity of the dubbed region.
        window: W.
        index: (S, S) the landmarks' `triangle_index`, if it is known.
    """
    size = len(picture)
    source = measure_source(picture, landmarks, resting, window)
    cut = _cut(source, window)
    if index is None:
        index = triangle_index(vertices(landmarks), size)
    ring = ((mask > 0) & (mask < EDGE)).astype(np.float32) * 255
    small = (size // COARSE, size // COARSE)
    middle = slice(COARSE // 2, None, COARSE)
    return source | {
        "index": index[cut],
        "coarse_index": index[middle, middle],
        "ring": cv2.resize(ring, small, interpolation=cv2.INTER_AREA).astype(np.uint8),
        "mask": np.round(mask[cut] * 255).astype(np.uint8),
        "mouth": np.round(mouth_region(landmarks, size)[cut] * 255).astype(np.uint8),
    }


def measure_source(
    picture: NDArray[np.uint8], landmarks: NDArray[np.float32], resting: NDArray[np.float32], window: int
) -> Measured:
    """As `measure_frame`, of a frame that is only moved, never a target: the target's arrays are zero."""
    size = len(picture)
    corner = window_corner(resting, size, window)
    found: Measured = {
        "pictures": picture,
        "corners": np.array(corner, np.int64),
        "vertices": vertices(landmarks)[:, :2],
    }
    side = size // COARSE
    nothing = {name: np.zeros((window, window), np.uint8) for name in ("mask", "mouth")}
    return found | {
        "index": np.zeros((window, window), np.int16),
        "coarse_index": np.zeros((side, side), np.int16),
        "ring": np.zeros((side, side), np.uint8),
        "drawn": draw(landmarks, size)[_cut(found, window)],
        **nothing,
    }


def _cut(measured: Measured, window: int) -> tuple[slice, slice]:
    x, y = measured["corners"].tolist()
    return slice(y, y + window), slice(x, x + window)


class Made(NamedTuple):
    """Frames that stand in for themselves with another mouth, moved there by the warp; of B examples."""

    pictures: Tensor
    """(B, S, S, 3) uint8."""
    vertices: Tensor
    """(B, V, 2) pixels of the crop."""
    drawn: Tensor
    """(B, W, W, 3) uint8 landmark image."""
    used: Tensor
    """(B,) bool: the others have a real frame."""


class Drawn(NamedTuple):
    """What is drawn at random for B examples, K references each; on the store's device."""

    frames: Tensor
    """(B,) long, of the store."""
    references: Tensor
    """(B, K) long, nearest mouth first; the last is the frame itself at another moment, or with another mouth."""
    present: Tensor
    """(B, K) bool."""
    own: Tensor
    """(B, K) bool."""
    distance: Tensor
    """(B, K) between mouths."""
    mirrored: Tensor | None = None
    """(B,) bool."""
    colour: Tensor | None = None
    """(B, 3, 3) from red, green, blue in 0..1 to the same."""
    errors: Tensor | None = None
    """(B, K, 478, 2) errors of the references' landmarks, pixels."""
    made: Made | None = None
    """In place of the last references."""


class Examples(NamedTuple):
    """B examples. h = W / 2."""

    moved: Moved
    guides: Tensor
    """(B, 8, W, W) in -1..1."""
    target: Tensor
    """(B, 3, W, W) in -1..1."""
    mask: Tensor
    """(B, 1, W, W) in 0..1."""
    mouth: Tensor
    """(B, 1, W, W) in 0..1."""
    drawn: Tensor
    """(B, 3, W, W) in -1..1, the target's landmark image."""
    sources: Tensor
    """(B, K, W, W, 2) where each pixel of the references comes from, pixels of their crops."""
    matching: Tensor
    """(B, K, 3, h, h) slow changes of colour that are part of `moved.pictures`."""
    pixels: Tensor | None
    """(B, K, 3, W, W) the references moved at full resolution, with these changes; None where nobody asked."""


Features = Callable[[FaceStore, Drawn], tuple[Tensor, Tensor]]
"""(B K, C0, h, h) and (B K, C1, h / 2, h / 2) of the references drawn, before they are moved."""


def make_examples(
    features: Features, store: FaceStore, triangles: Tensor, drawn: Drawn, halves: Tensor | None = None
) -> Examples:
    """Move the references of each example to its frame's landmarks, and their features along.

    Args:
        features: of the references; gradients flow into it. See `encoded` and `looked_up`.
        triangles: (F, 3) long, of the mesh.
        halves: (N, 3, S / 2, S / 2) all pictures of the store at half resolution, where these are known: then nothing
            is moved at full resolution.
    """
    with torch.no_grad():
        places = _places(store, triangles, drawn)
        crops = None
        if halves is not None:
            small = _Small(halves[drawn.references.flatten()], halves[drawn.frames])
        else:
            crops, frames = _crops(store, drawn), _mirror(to_pixels(store.pictures[drawn.frames]), drawn)
            small = _Small(halved(crops), halved(frames))
        matching = _colour_change(store, triangles, drawn, places, small)
        moved_halves = _moved_halves(small, places, matching, drawn)
        whole = None if crops is None else _whole(crops, places, matching, drawn)
    fine, coarse = _moved_features(features(store, drawn), places)
    stretched = nn.functional.avg_pool2d(places.stretch, 2)[:, :, None]
    moved = Moved(moved_halves, fine, coarse, stretched, drawn.distance, drawn.own, drawn.present)
    with torch.no_grad():
        return _examples(store, drawn, moved, places.crop, matching, whole)


def halved(pictures: Tensor) -> Tensor:
    """(N, C, H / 2, W / 2) of (N, C, H, W)."""
    return nn.functional.avg_pool2d(pictures, 2)


def encoded(encode: Encode, paired: bool = False) -> Features:
    """Features of the references, found anew for each example, as they are mirrored and coloured there.

    Args:
        encode: `ReferenceMixer.encode`.
        paired: each second example has the references of the one before it, but for the last.
    """

    def found(store: FaceStore, drawn: Drawn) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            windows, images = _windows(store, drawn)
        if not paired:
            return encode(windows.flatten(0, 1), images.flatten(0, 1))
        levels = encode(*(torch.cat([part[::2].flatten(0, 1), part[1::2, -1]]) for part in (windows, images)))
        return _paired(levels[0], windows.shape[1]), _paired(levels[1], windows.shape[1])

    return found


def _paired(features: Tensor, count: int) -> Tensor:
    """(B K, ...) of (B / 2 K + B / 2, ...): first examples' references, then the last ones of the second examples."""
    pairs = len(features) // (count + 1)
    first, last = _split(features[: pairs * count], count), features[pairs * count :, None]
    second = torch.cat([first[:, :-1], last], dim=1)
    return torch.stack([first, second], dim=1).flatten(0, 2)


def looked_up(fine: Tensor, coarse: Tensor) -> Features:
    """Features of the store's first frames that are known already: (N, C0, h, h) and (N, C1, h / 2, h / 2)."""

    def found(store: FaceStore, drawn: Drawn) -> tuple[Tensor, Tensor]:
        numbers = drawn.references.flatten()
        return fine[numbers], coarse[numbers]

    return found


class _Small(NamedTuple):
    """At half resolution, s = S / 2, mirrored where the example is."""

    references: Tensor
    """(B K, 3, s, s)."""
    frames: Tensor
    """(B, 3, s, s)."""


class _Places(NamedTuple):
    crop: Tensor
    """(B, K, W, W, 2) where each pixel comes from, pixels of the references' crops."""
    window: Tensor
    """(B, K, W, W, 2) the same in pixels of the references' windows."""
    stretch: Tensor
    """(B, K, W, W)."""
    corners: Tensor
    """(B, K, V, 2) of the references, with noise."""


def _places(store: FaceStore, triangles: Tensor, drawn: Drawn) -> _Places:
    batch, count = drawn.references.shape
    side = store.index.shape[-1]
    target, corners = store.vertices[drawn.frames], store.vertices[drawn.references].clone()
    if drawn.made is not None:
        used = drawn.made.used[:, None, None]
        corners[:, -1] = torch.where(used, drawn.made.vertices, corners[:, -1])
    if drawn.errors is not None:
        corners[:, :, :POINTS] += drawn.errors
    # The target's rim stays where it is: what moves fades to nothing towards it.
    corners[:, :, POINTS:] = target[:, None, POINTS:]
    index = store.index[drawn.frames].flatten(1).long()
    points = pixel_grid(side, side, corners.device).flatten(0, 1) + store.corners[drawn.frames][:, None]
    found = sources(target, corners, triangles, index, points)
    crop = found.view(batch, count, side, side, 2)
    stretched = stretch(target, corners, triangles, index).view(batch, count, side, side)
    window = crop - store.corners[drawn.references][:, :, None, None]
    # A mirrored example is made of mirrored pictures: both ends of the map turn round.
    size = store.pictures.shape[1]
    window = _mirrored_map(window, side, drawn)
    return _Places(_mirrored_map(crop, size, drawn), window, _mirror(stretched, drawn), corners)


def _mirrored_map(places: Tensor, size: int, drawn: Drawn) -> Tensor:
    if drawn.mirrored is None:
        return places
    turned = places.flip(-2).clone()
    turned[..., 0] = size - 1 - turned[..., 0]
    return torch.where(drawn.mirrored[:, None, None, None, None], turned, places)


def _crops(store: FaceStore, drawn: Drawn) -> Tensor:
    """(B K, 3, S, S) the references before they are moved, mirrored where the example is."""
    count = drawn.references.shape[1]
    pictures = store.pictures[drawn.references]
    if drawn.made is not None:
        pictures[:, -1] = torch.where(drawn.made.used[:, None, None, None], drawn.made.pictures, pictures[:, -1])
    return _mirror(_split(to_pixels(pictures.flatten(0, 1)), count), drawn).flatten(0, 1)


def _moved_halves(small: _Small, places: _Places, matching: Tensor, drawn: Drawn) -> Tensor:
    """(B, K, 3, h, h) moved at half resolution, matched to the frame's colours, and changed."""
    moved = sample(small.references, _shrunk_map(places.crop.flatten(0, 1), 2), "bilinear")
    return _coloured(_split(moved, drawn.references.shape[1]) + matching, drawn)


def _whole(crops: Tensor, places: _Places, matching: Tensor, drawn: Drawn) -> Tensor:
    """(B, K, 3, W, W) the same at full resolution."""
    moved = sample(crops, places.crop.flatten(0, 1)) + enlarged(matching.flatten(0, 1))
    return _coloured(_split(moved, drawn.references.shape[1]), drawn)


def _colour_change(store: FaceStore, triangles: Tensor, drawn: Drawn, places: _Places, small: _Small) -> Tensor:
    """(B, K, 3, h, h) slow changes that make references meet the frame along the mask's edge; see `match_colour`."""
    batch, count = drawn.references.shape
    size = store.pictures.shape[1]
    points = pixel_grid(size, size, store.vertices.device, COARSE)
    side = len(points)
    points = points.flatten(0, 1).expand(batch, -1, -1)
    index = store.coarse_index[drawn.frames].flatten(1).long()
    target = store.vertices[drawn.frames]
    crop = sources(target, places.corners, triangles, index, points)
    crop = _mirrored_map(crop.view(batch, count, side, side, 2), size, drawn)
    wanted = nn.functional.avg_pool2d(small.frames, COARSE // 2)[:, None]
    ring = _mirror(store.ring[drawn.frames][:, None].float() / 255, drawn)[:, None].expand(-1, count, -1, -1, -1)
    there = _split(sample(small.references, (crop.flatten(0, 1) + 0.5) / 2 - 0.5, "bilinear"), count)
    known = torch.cat([ring * (wanted - there), ring], dim=2).flatten(0, 1)
    known = blurred(known, size * MATCH_SIGMA / COARSE)
    change = known[:, :3] / (known[:, 3:] + UNSURE)
    change = change * ~drawn.own.flatten()[:, None, None, None]
    return _split(sample(change, _window_grid(store, drawn, count), "bilinear"), count)


def _window_grid(store: FaceStore, drawn: Drawn, count: int) -> Tensor:
    """(B K, h, h, 2) every second of the window's pixels in the coarse picture, mirrored where the example is."""
    side, size = store.index.shape[-1], store.pictures.shape[1]
    grid = pixel_grid(side, side, store.corners.device, 2) + store.corners[drawn.frames][:, None, None]
    grid = _mirrored_map(grid[:, None], size, drawn)
    return ((grid + 0.5) / COARSE - 0.5).expand(-1, count, -1, -1, -1).flatten(0, 1)


def _windows(store: FaceStore, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """(B, K, 3, W, W) pictures of the references' windows and their landmark images, in -1..1."""
    count = drawn.references.shape[1]
    pictures, images = _split(_window(store, drawn.references.flatten()), count), store.drawn[drawn.references]
    if drawn.made is not None:
        used = drawn.made.used[:, None, None, None]
        own = _cut_out(drawn.made.pictures, store.corners[drawn.references[:, -1]], images.shape[2])
        pictures[:, -1] = torch.where(used, own, pictures[:, -1])
        images[:, -1] = torch.where(used, drawn.made.drawn, images[:, -1])
    shown = _coloured(_mirror(pictures, drawn), drawn)
    return shown, _mirror(_split(to_pixels(images.flatten(0, 1)), count), drawn)


def _window(store: FaceStore, frames: Tensor) -> Tensor:
    """(N, 3, W, W) in -1..1."""
    return _cut_out(store.pictures[frames], store.corners[frames], store.index.shape[-1])


def _cut_out(pictures: Tensor, corners: Tensor, window: int) -> Tensor:
    """(N, 3, W, W) in -1..1 of (N, S, S, 3) pictures, each from its own x, y on."""
    side = torch.arange(window, device=pictures.device)
    x, y = (corners[:, axis, None] + side for axis in (0, 1))
    number = torch.arange(len(pictures), device=pictures.device)[:, None, None]
    return to_pixels(pictures[number, y[:, :, None], x[:, None, :]])


def _moved_features(levels: tuple[Tensor, Tensor], places: _Places) -> list[Tensor]:
    count = places.window.shape[1]
    grid = places.window.flatten(0, 1)
    maps = (_shrunk_map(grid, 2 ** (level + 1)) for level in range(len(levels)))
    return [_split(sample(its.float(), way, "bilinear"), count) for its, way in zip(levels, maps, strict=True)]


def _shrunk_map(places: Tensor, factor: int) -> Tensor:
    """(N, H / f, W / f, 2) where pixels come from in pictures that are `factor` times smaller, and so are they."""
    small = nn.functional.avg_pool2d(places.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    shrunk: Tensor = (small + 0.5) / factor - 0.5
    return shrunk


def _examples(
    store: FaceStore, drawn: Drawn, moved: Moved, sources: Tensor, matching: Tensor, pixels: Tensor | None
) -> Examples:
    frames = drawn.frames
    target = _coloured(_mirror(_window(store, frames), drawn), drawn)
    mask = _mirror(store.mask[frames][:, None].float() / 255, drawn)
    mouth = _mirror(store.mouth[frames][:, None].float() / 255, drawn)
    image = _mirror(to_pixels(store.drawn[frames]), drawn)
    guides = torch.cat([image, target * (mask <= 0), mask * 2 - 1, mouth * 2 - 1], dim=1)
    return Examples(moved, guides, target, mask, mouth, image, sources, matching, pixels)


def _split(pictures: Tensor, count: int) -> Tensor:
    """(B K, C, H, W) -> (B, K, C, H, W)."""
    return pictures.reshape(-1, count, *pictures.shape[1:])


def to_pixels(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in -1..1, channels last in memory."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def _mirror(pictures: Tensor, drawn: Drawn) -> Tensor:
    """(B, ..., H, W), mirrored where the example is."""
    if drawn.mirrored is None:
        return pictures
    flip = drawn.mirrored.view(-1, *[1] * (pictures.ndim - 1))
    return torch.where(flip, pictures.flip(-1), pictures)


def _coloured(pictures: Tensor, drawn: Drawn) -> Tensor:
    """(B, ..., 3, H, W) in -1..1, with red, green and blue changed as the example's are."""
    if drawn.colour is None:
        return pictures
    matrix = drawn.colour if pictures.ndim == 4 else drawn.colour[:, None]
    whole = matrix.expand(*pictures.shape[:-3], 3, 3)
    # bfloat16 holds fewer than a picture's 256 levels.
    with torch.autocast(pictures.device.type, enabled=False):
        return torch.einsum("...ij,...jhw->...ihw", whole, (pictures + 1) / 2) * 2 - 1
