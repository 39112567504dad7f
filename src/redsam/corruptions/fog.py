"""Fog: a fractal cloud laid over the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register

# How much fog, and by what each finer level of the fractal is fainter.
FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))


@register("corruption", "fog", group="weather", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class Fog(Corruption):
    """A plasma fractal added, and the sum brought back to the image's own maximum. Knows no depth.

    The fractal is as large as the smallest power of two that covers the longer side (published: 256 for 224), so that
    clouds grow with the image.
    Deviation: none.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        amount, decay = FOG[self.severity - 1]
        height, width = images.shape[-2:]
        side = 1 << (max(height, width) - 1).bit_length()
        clouds = torch.stack([plasma(side, decay, g)[:height, :width] for g in generators])[:, None].to(images)
        brightest = images.amax((1, 2, 3), keepdim=True)
        return (images + amount * clouds) * (brightest / (brightest + amount))


def plasma(side: int, decay: float, random: torch.Generator) -> Tensor:
    """Diamond-square fractal (Fournier, Fussell, Carpenter 1982), side x side in [0, 1], float64; `side` is a power of
    two and the picture repeats without a seam. As published the noise of a level is uniform with amplitude 100^2 over
    decay^2 per level."""
    field = torch.zeros(side, side, dtype=torch.float64)
    step, strength = side, 100.0
    while step >= 2:
        half = step // 2
        count = side // step
        corners = field[::step, ::step]
        square = corners + corners.roll(-1, 0)
        centres = (square + square.roll(-1, 1)) / 4 + _noise(count, strength, random)
        field[half::step, half::step] = centres
        above = centres + centres.roll(1, 0) + corners + corners.roll(-1, 1)
        field[::step, half::step] = above / 4 + _noise(count, strength, random)
        beside = centres + centres.roll(1, 1) + corners + corners.roll(-1, 0)
        field[half::step, ::step] = beside / 4 + _noise(count, strength, random)
        step, strength = half, strength / decay
    field -= field.min()
    return field / field.max()


def _noise(count: int, strength: float, random: torch.Generator) -> Tensor:
    return strength**2 * (2 * torch.rand(count, count, generator=random, dtype=torch.float64) - 1)
