"""Elastic: a random affine map and a smooth wobble; the one classic corruption that moves pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.corruptions.base import Corruption, identity, scale, uniform
from redsam.corruptions.filters import smooth
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.corruptions.moving import inside
from redsam.registry import register

# Amplitude and standard deviation of the wobble, and how far the affine map's three points move, in pixels of a
# 224-pixel image. ("244 should have been 224, but ultimately nothing is incorrect": the authors.)
ELASTIC = (
    (244 * 2, 244 * 0.7, 244 * 0.1),
    (244 * 2, 244 * 0.08, 244 * 0.2),
    (244 * 0.05, 244 * 0.01, 244 * 0.02),
    (244 * 0.07, 244 * 0.01, 244 * 0.02),
    (244 * 0.12, 244 * 0.01, 244 * 0.02),
)


@register("corruption", "elastic", group="digital", geometric=True, monotone=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class Elastic(Corruption):
    """Stretched rubber. Masks and prompts move with it.

    Severities are as published and not ordered by PSNR: 1 and 2 move the picture far and smoothly, 3 to 5 little and
    locally, and only within each of the two groups does PSNR fall.
    Deviation: affine map and wobble are one sampling instead of two; the wobble is made at the published size and
    stretched over the image; what lies outside is mirrored at the border pixel's centre both times.
    """

    def displace(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        amplitude, sigma, jitter = ELASTIC[self.severity - 1]
        unit, (height, width) = scale(images), images.shape[-2:]
        corners = uniform(generators, (3, 2), images).double() * 2 - 1
        nodes = max(round(height / unit), 2), max(round(width / unit), 2)
        noise = uniform(generators, (2, *nodes), images) * 2 - 1
        field = smooth(noise, sigma, "reflect", truncate=3.0) * (amplitude * unit)
        field = F.interpolate(field, (height, width), mode="bilinear", align_corners=True)
        wobbled = inside(identity(images) + field.movedim(1, -1)).double()
        inverse = _affine(height, width, corners * jitter * unit)
        one = torch.ones_like(wobbled[..., :1])
        x, y = (
            (torch.cat([wobbled, one], -1) * inverse[:, None, None, :, i]).sum(-1) for i in range(2)
        )  # three exact products a pixel, so that no library's order of summing shows
        return torch.stack([x, y], -1).float()


def _affine(height: int, width: int, moved: Tensor) -> Tensor:
    """Bx3x2: (x, y, 1) after the map, times this, is (x, y) before. moved: Bx3x2, by how much the map moves three
    corners of a square about the middle whose half side is a third of the shorter one."""
    middle, half = moved.new_tensor([width // 2, height // 2]), min(height, width) // 3 or 1
    before = middle + half * moved.new_tensor([[1, 1], [1, -1], [-1, -1]])
    after = before + moved
    ones = torch.ones_like(after[..., :1])
    inverse: Tensor = torch.linalg.solve(torch.cat([after, ones], -1), before.expand_as(after))
    return inverse
