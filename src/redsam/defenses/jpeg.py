"""JPEG: stored lossily and opened again, the purifier that nearly every service has without knowing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.digital import compressed
from redsam.defenses.base import Purifier, within
from redsam.registry import register
from redsam.types import to_uint8


@register("defense", "jpeg", group="purifier", random=False, differentiable=False,
          paper="Countering Adversarial Images using Input Transformations (Guo et al.)", year=2018,
          url="https://arxiv.org/abs/1711.00117")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Jpeg(Purifier):
    """JPEG by Pillow, 4:2:0 chroma. quality: 1 to 95; published 75.

    First measured by Dziugaite et al. 2016 (arXiv 1608.00853). An attacker's image is rounded to 8 bits first, as any
    encoder does. Its rounding of coefficients has no gradient, so attackers take the identity (BPDA).
    Deviation: none.
    """

    quality: int = 75

    def __post_init__(self) -> None:
        within("JPEG quality", self.quality, 1, 95, whole=True)

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        stored = [compressed(image, self.quality) for image in to_uint8(images).cpu()]
        return torch.stack(stored).to(images.device, images.dtype)
