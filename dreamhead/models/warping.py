"""Move pictures and features along the face's mesh, on any device: what `faces.warp` does one by one, in batches.

Shapes: B examples, K pictures to be moved for each, V vertices, P pixels of the target's window.
"""

import torch
from torch import Tensor, nn

STRETCH_LIMIT = 3.0


def sources(target: Tensor, corners: Tensor, triangles: Tensor, index: Tensor, points: Tensor) -> Tensor:
    """Where pixels come from in pictures that are moved: the map is linear over each triangle.

    Args:
        target: (B, V, 2) vertices of the target, pixels.
        corners: (B, K, V, 2) of the pictures that are moved, pixels.
        triangles: (F, 3) long.
        index: (B, P) long, the triangle that covers each pixel; -1 outside the mesh.
        points: (B, P, 2) x, y of the pixels, which stay where they are outside the mesh.

    Returns:
        (B, K, P, 2) x, y in pixels of the pictures.
    """
    batch, count = corners.shape[:2]
    still = torch.tensor([1.0, 0, 0, 0, 1, 0], device=corners.device).expand(batch, count, 1, 6)
    ways = torch.cat([_affine(target[:, None], corners, triangles).flatten(3), still], dim=2)
    # One plane for each coefficient: picking from rows that lie together is many times as fast as from all at once.
    planes = ways.transpose(2, 3).reshape(batch, count * 6, -1)
    outside = triangles.shape[0]
    chosen = torch.stack(
        [one.index_select(1, torch.where(which < 0, outside, which)) for one, which in zip(planes, index, strict=True)]
    )
    a, b, c, d, e, f = chosen.view(batch, count, 6, -1).unbind(dim=2)
    x, y = points[:, None, :, 0], points[:, None, :, 1]
    return torch.stack([a * x + b * y + c, d * x + e * y + f], dim=-1)


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


def _affine(target: Tensor, corners: Tensor, triangles: Tensor) -> Tensor:
    """(..., F, 2, 3) from pixels of the target's triangles to the pictures', of (..., V, 2) vertices."""
    a, b, c = target[..., triangles, :].unbind(dim=-2)
    first, second = b - a, c - a
    area = _cross(first, second)
    area = torch.where(area.abs() < 1e-3, torch.ones_like(area), area)
    there, left, right = corners[..., triangles, :].unbind(dim=-2)
    left, right = (left - there) / area[..., None], (right - there) / area[..., None]
    across = left * second[..., 1:] - right * first[..., 1:]
    down = right * first[..., :1] - left * second[..., :1]
    start = there - across * a[..., :1] - down * a[..., 1:]
    return torch.stack([across, down, start], dim=-1)


def _areas(corners: Tensor, triangles: Tensor) -> Tensor:
    """(..., F) signed areas of triangles of (..., V, 2) vertices."""
    a, b, c = corners[..., triangles, :].unbind(dim=-2)
    return _cross(b - a, c - a) / 2


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
