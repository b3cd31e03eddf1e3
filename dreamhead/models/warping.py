"""Move pictures and features along the face's mesh, on any device: what `faces.warp` does one by one, in batches.

Shapes: B examples, K pictures to be moved for each, V vertices, P pixels of the target's window.
"""

import torch
from torch import Tensor, nn

STRETCH_LIMIT = 3.0


def barycentric(corners: Tensor, triangles: Tensor, index: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Where pixels lie in their triangles.

    Args:
        corners: (B, V, 2) of the target, pixels.
        triangles: (F, 3) long.
        index: (B, P) long; -1 outside the mesh.
        points: (B, P, 2) x, y of the pixels.

    Returns:
        (B, P, 3) vertices, and (B, P, 3) their weights, which sum to one; outside the mesh all weights are zero.
    """
    chosen = triangles[index.clamp_min(0)]
    a, b, c = _corners(corners, chosen).unbind(dim=2)
    first, second, offset = b - a, c - a, points - a
    area = _cross(first, second)
    area = torch.where(area.abs() < 1e-3, torch.ones_like(area), area)
    v, w = _cross(offset, second) / area, _cross(first, offset) / area
    weights = torch.stack([1 - v - w, v, w], dim=-1)
    return chosen, weights * (index >= 0).unsqueeze(-1)


def sources(corners: Tensor, vertices: Tensor, weights: Tensor, points: Tensor) -> Tensor:
    """(B, K, P, 2) where each pixel comes from in pictures whose vertices are (B, K, V, 2) `corners`.

    Args:
        corners: of the pictures that are moved, pixels.
        vertices: (B, P, 3) of `barycentric`.
        weights: (B, P, 3) of `barycentric`.
        points: (B, P, 2) the pixels themselves, which stay where they are outside the mesh.
    """
    count, pixels = corners.shape[1], vertices.shape[1]
    flat = vertices.flatten(1)[:, None, :, None].expand(-1, count, -1, 2)
    found = corners.gather(2, flat).view(*corners.shape[:2], pixels, 3, 2)
    moved = (found * weights[:, None, :, :, None]).sum(dim=3)
    outside = weights.abs().sum(dim=-1) == 0
    return torch.where(outside[:, None, :, None], points[:, None], moved)


def stretch(target: Tensor, corners: Tensor, triangles: Tensor, index: Tensor) -> Tensor:
    """(B, K, P) log2 of how much larger the pixel's triangle becomes, limited to +-STRETCH_LIMIT.

    Args:
        target: (B, V, 2) vertices of the target.
        corners: (B, K, V, 2) vertices of the pictures that are moved.
        triangles: (F, 3) long.
        index: (B, P) long; 0 stretch where it is -1.
    """
    here, there = _areas(target, triangles)[:, None], _areas(corners, triangles)
    growth = torch.log2(here.abs().clamp_min(1e-3) / there.abs().clamp_min(1e-3))
    # A triangle that turned its back shows what can't be seen: distrust it like the furthest stretch.
    growth = torch.where(here.sign() == there.sign(), growth, torch.full_like(growth, STRETCH_LIMIT))
    growth = growth.clamp(-STRETCH_LIMIT, STRETCH_LIMIT)
    chosen = index.clamp_min(0)[:, None].expand(-1, growth.shape[1], -1)
    return growth.gather(2, chosen) * (index >= 0)[:, None]


def sample(pictures: Tensor, places: Tensor, mode: str = "bicubic") -> Tensor:
    """(N, C, H, W) pictures at (N, h, w, 2) places x, y in their pixels: (N, C, h, w). Beyond the edge is the edge."""
    size = torch.tensor([pictures.shape[-1], pictures.shape[-2]], device=places.device, dtype=places.dtype)
    grid = (2 * places + 1) / size - 1
    return nn.functional.grid_sample(
        pictures, grid.to(pictures.dtype), mode=mode, padding_mode="border", align_corners=False
    )


def pixel_grid(height: int, width: int, device: torch.device, every: int = 1) -> Tensor:
    """(h, w, 2) x, y of the middles of squares of `every` pixels."""
    middle = (every - 1) / 2
    y = torch.arange(0, height, every, device=device, dtype=torch.float32) + middle
    x = torch.arange(0, width, every, device=device, dtype=torch.float32) + middle
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """(N, C, H, W) pictures after a Gaussian of `sigma` pixels."""
    reach = max(1, round(3 * sigma))
    place = torch.arange(-reach, reach + 1, device=pictures.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (place / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(pictures.dtype)
    channels = pictures.shape[1]
    padded = nn.functional.pad(pictures, (reach, reach, reach, reach), mode="replicate")
    # In bfloat16, what is left beside the blur would be coarser than a picture's 256 levels.
    with torch.autocast(pictures.device.type, enabled=False):
        across = nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return nn.functional.conv2d(across, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def _corners(corners: Tensor, chosen: Tensor) -> Tensor:
    """(B, P, 3, 2) places of (B, P, 3) vertices."""
    flat = chosen.flatten(1).unsqueeze(-1).expand(-1, -1, 2)
    return corners.gather(1, flat).view(*chosen.shape, 2)


def _areas(corners: Tensor, triangles: Tensor) -> Tensor:
    """(..., F) signed areas of triangles of (..., V, 2) vertices."""
    a, b, c = corners[..., triangles, :].unbind(dim=-2)
    return _cross(b - a, c - a) / 2


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
