"""Snow: blurred flakes before a whitened image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.corruptions.base import Corruption, scale
from redsam.corruptions.filters import convolve, streak
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.corruptions.motion_blur import angle
from redsam.registry import register

# Mean and standard deviation of the flakes' brightness, their size, the threshold below which there is none, radius and
# standard deviation of their streaks, and how much of the image's colour stays. Sizes in pixels of a 224-pixel image.
SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
ANGLES = (-135.0, -45.0)
GREY = (0.299, 0.587, 0.114)


@register("corruption", "snow", group="weather", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class Snow(Corruption):
    """Falling snow: a layer of streaked flakes and the same turned by 180 degrees, on an image that lost colour.

    Deviation: none beyond ImageMagick's arithmetic.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        mean, spread, size, threshold, radius, sigma, kept = SNOW[self.severity - 1]
        unit = scale(images)
        height, width = images.shape[-2:]
        cell = max(size * unit, 1.0)
        nodes = (max(math.ceil(height / cell), 2), max(math.ceil(width / cell), 2))
        drawn = torch.stack([torch.randn(1, *nodes, generator=g) for g in generators]).to(images) * spread + mean
        flakes = F.interpolate(drawn, (height, width), mode="bilinear", align_corners=True)
        flakes = flakes.where(flakes >= threshold, torch.zeros_like(flakes)).clamp(0, 1)
        kernels = [streak(radius * unit, sigma * unit, angle(g, ANGLES)) for g in generators]
        layer = convolve(flakes, kernels, "nearest")
        red, green, blue = (images[:, i : i + 1] * GREY[i] for i in range(3))
        pale = torch.maximum(images, (red + green + blue) * 1.5 + 0.5)
        return kept * images + (1 - kept) * pale + layer + layer.rot90(2, (2, 3))
