"""Defocus blur: every point of light becomes a disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.corruptions.base import Corruption, scale
from redsam.corruptions.filters import bell, convolve
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register

# Radius of the disk, and standard deviation of the blur that softens its edge, in pixels of a 224-pixel image.
DISKS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))


@register("corruption", "defocus-blur", group="blur", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class DefocusBlur(Corruption):
    """A lens out of focus.

    Deviation: at sizes other than 224 pixels a radius between two whole ones mixes their disks; the softening Gaussian
    is cut at 4 standard deviations where the authors' has 3 x 3 or 5 x 5 taps (less than 0.001 of its weight).
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        radius, soft = (length * scale(images) for length in DISKS[self.severity - 1])
        return convolve(images, kernel(radius, soft), "mirror")


def kernel(radius: float, soft: float) -> Tensor:
    """The softened disk, sum 1, float64."""
    edge = bell(soft)
    reach = math.ceil(radius) + len(edge) // 2
    share = radius - math.floor(radius)
    disk = (1 - share) * _disk(math.floor(radius), reach) + share * _disk(math.ceil(radius), reach)
    return F.conv2d(disk[None, None], torch.outer(edge, edge)[None, None], padding=len(edge) // 2)[0, 0]


def _disk(radius: int, reach: int) -> Tensor:
    at = torch.arange(-reach, reach + 1)
    inside = (at[:, None] ** 2 + at**2 <= radius**2).double()
    return inside / inside.sum()
