"""Brightness and contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register

BRIGHTER = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to HSV's value
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # of the distance to the mean that is left


@register("corruption", "brightness", group="digital", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class Brightness(Corruption):
    """More light: HSV's value raised, hue and saturation kept.

    In RGB that is one factor on all three colours, (v + c) / v with v the largest; black becomes grey.
    Deviation: none.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        value = images.amax(1, keepdim=True)
        raised = (value + BRIGHTER[self.severity - 1]).clamp(max=1.0)
        return torch.where(value > 0, images * (raised / value.clamp_min(1e-6)), raised)


@register("corruption", "contrast", group="digital", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class Contrast(Corruption):
    """Less contrast: every colour drawn to its mean over the image.

    Deviation: none.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        mean = images.double().mean((2, 3), keepdim=True).float()
        return (images - mean) * CONTRAST[self.severity - 1] + mean
