"""Bit depth: fewer levels for each colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.defenses.base import Purifier, within
from redsam.defenses.blurs import SQUEEZING
from redsam.registry import register


@register("defense", "bit-depth", group="purifier", random=False, differentiable=False, **SQUEEZING)
@dataclass(frozen=True, kw_only=True)
class BitDepth(Purifier):
    """Each value rounded to the nearest of 2^bits levels. bits: 1 to 7; published for photographs 5 (Guo et al. 3).

    Steps have no gradient, so attackers take the identity (BPDA).
    Deviation: none.
    """

    bits: int = 5

    def __post_init__(self) -> None:
        within("Bit depth", self.bits, 1, 7, whole=True)

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        steps = (1 << self.bits) - 1
        return (images * steps).round() / steps
