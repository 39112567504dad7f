"""Copies of images for attacks that compare features across views: colour, noise and a small rotation.

Parameters are drawn on the CPU from each image's generator, so that a batch equals a loop; everything is
differentiable with regard to the images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def draw(generators: Sequence[torch.Generator], low: float, high: float, like: Tensor) -> Tensor:
    """n x 1 x 1 x 1, uniform in [low, high], on the device of `like`."""
    values = torch.stack([torch.rand((), generator=g) for g in generators])
    return (low + (high - low) * values).to(like)[:, None, None, None]


def noise(generators: Sequence[torch.Generator], size: float, like: Tensor) -> Tensor:
    """Uniform in [-size, size], of the shape of `like` (nx3xHxW)."""
    values = torch.stack([torch.rand(like.shape[1:], generator=g) for g in generators])
    return ((values * 2 - 1) * size).to(like)


def recolour(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Factors n x 1 x 1 x 1 around 1, applied in this order: brightness scales, contrast scales about the image's mean
    grey, saturation scales about each pixel's grey."""
    images = images * brightness
    images = images.mean((1, 2, 3), keepdim=True) * (1 - contrast) + images * contrast
    return images.mean(1, keepdim=True) * (1 - saturation) + images * saturation


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """nx3xHxW about their centres by n x 1 x 1 x 1 degrees, bilinear; beyond the border the border goes on."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees.flatten())
    cos, sin, nothing = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # In the grid's own units both sides run from -1 to 1, so the turn carries the aspect.
    across = torch.stack([cos, -sin * height / width, nothing], dim=1)
    down = torch.stack([sin * width / height, cos, nothing], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
