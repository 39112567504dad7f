"""Motion blur: the camera moved in a straight line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption, scale
from redsam.corruptions.filters import convolve, streak
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register

# Radius and standard deviation in pixels of a 224-pixel image (ImageMagick's motion blur).
STREAKS = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
ANGLES = (-45.0, 45.0)


@register("corruption", "motion-blur", group="blur", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class MotionBlur(Corruption):
    """A moving camera, in a random direction within 45 degrees of the horizontal.

    The trail goes to one side and the sharp picture stays its strongest part, so masks stay where they were.
    Deviation: none beyond ImageMagick's arithmetic (whole image at once, in float64).
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        radius, sigma = (length * scale(images) for length in STREAKS[self.severity - 1])
        return convolve(images, [streak(radius, sigma, angle(g, ANGLES)) for g in generators], "nearest")


def angle(random: torch.Generator, between: tuple[float, float]) -> float:
    """A uniform angle in degrees."""
    low, high = between
    return low + (high - low) * float(torch.rand((), generator=random, dtype=torch.float64))
