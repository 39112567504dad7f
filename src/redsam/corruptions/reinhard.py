"""Reinhard: the colours' means and deviations of a reference photograph, in a space whose axes are independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.light import each
from redsam.corruptions.reference import STRENGTH, match_moments, reference_for
from redsam.registry import register

# Reinhard et al. 2001, eq. 4: RGB to the cones' responses; the way back is its exact inverse, not eq. 9's rounded one.
LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
# Eq. 6: l, alpha, beta of the cones' logarithms (Ruderman et al. 1998).
LAB = tuple(
    tuple(v / math.sqrt(n) for v in row) for row, n in zip(((1, 1, 1), (1, 1, -2), (1, -1, 0)), (3, 6, 2), strict=True)
)
DARK = 1 / 255  # logarithms need a smallest value: the first of 8 bits


@register("corruption", "reinhard", paper="Color Transfer Between Images (Reinhard et al.)", year=2001,
          url="https://doi.org/10.1109/38.946629", group="style", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Reinhard(Corruption):
    """Mean and standard deviation of l, alpha and beta become those of the reference (eq. 10 and 11); severity is the
    part of the way, 5 all of it. reference: path of a photograph, None: a bundled one, never the image itself.

    Deviation: values below 1/255 count as 1/255; severities 1 to 4 go 20 to 80% of the way.
    """

    reference: str | None = None

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        style = to_lab(reference_for(image, self.reference))
        found = match_moments(to_lab(image), style, STRENGTH[self.severity - 1])
        return from_lab(found).reshape(image.shape).to(image.dtype)


def to_lab(image: Tensor) -> Tensor:
    """3xHxW in [0, 1] to l, alpha, beta: 3xN, float64."""
    rgb = image.to(torch.float64).clamp_min(DARK).reshape(3, -1)
    return rgb.new_tensor(LAB) @ (rgb.new_tensor(LMS) @ rgb).log10()


def from_lab(lab: Tensor) -> Tensor:
    """Inverse of `to_lab`, 3xN; may lie outside [0, 1]."""
    cones = torch.pow(10.0, lab.new_tensor(LAB).T @ lab)  # an orthonormal matrix: its transpose is its inverse
    rgb: Tensor = torch.linalg.inv(lab.new_tensor(LMS)) @ cones
    return rgb
