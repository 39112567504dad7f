"""Noise of a sensor: Gaussian, shot and impulse noise, drawn for each value of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption, normal, uniform
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register

GAUSSIAN = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation
SHOT = (60, 25, 12, 5, 3)  # photons that make white
IMPULSE = (0.03, 0.06, 0.09, 0.17, 0.27)  # share of values lost


@register("corruption", "gaussian-noise", group="noise", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Corruption):
    """Normal noise on every value, as in low light.

    Deviation: none.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return images + GAUSSIAN[self.severity - 1] * normal(generators, images.shape[1:], images)


@register("corruption", "shot-noise", group="noise", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class ShotNoise(Corruption):
    """Poisson noise: light counted in few photons.

    Deviation: none.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        white = SHOT[self.severity - 1]
        expected = (images * white).cpu()
        counted = [torch.poisson(e, generator=g) for e, g in zip(expected, generators, strict=True)]
        return torch.stack(counted).to(images.device) / white


@register("corruption", "impulse-noise", group="noise", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class ImpulseNoise(Corruption):
    """Salt and pepper: values replaced by 0 or 1 with equal chance, each colour on its own.

    Deviation: none.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        chance, share = uniform(generators, images.shape[1:], images), IMPULSE[self.severity - 1]
        peppered = images.masked_fill(chance < share / 2, 0.0)
        return peppered.masked_fill(chance >= 1 - share / 2, 1.0)
