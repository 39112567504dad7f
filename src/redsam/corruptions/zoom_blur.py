"""Zoom blur: the camera came nearer while the shutter was open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from redsam.corruptions.base import Corruption, identity, sample
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register

# First, stop and step of the enlargements that are averaged.
ZOOMS = ((1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02), (1, 1.31, 0.03))


@register("corruption", "zoom-blur", group="blur", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class ZoomBlur(Corruption):
    """The mean of the image and of its enlargements about the middle.

    Not geometric: a pixel of the result comes from a whole ray and the sharp image is one of its equal parts, so there
    is no one place it moved from; masks stay, as labels do in the published benchmarks built on these corruptions.
    Deviation: enlarged about the exact middle; the authors crop to whole pixels first.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        factors = [float(f) for f in np.arange(*ZOOMS[self.severity - 1])]  # as published, with arange's rounding
        total = images.clone()
        for factor in factors:
            total += enlarged(images, factor)
        return total / (len(factors) + 1)


def enlarged(images: Tensor, factor: float) -> Tensor:
    """The middle of Bx3xHxW images, `factor` (at least 1) times as large, bilinear."""
    height, width = images.shape[-2:]
    middle = images.new_tensor([(width - 1) / 2, (height - 1) / 2])
    return sample(images, (identity(images) - middle) / factor + middle)
