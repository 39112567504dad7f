"""Blended noise (Chen et al., 2017): one fixed noise pattern over the whole image, faintly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.backdoor.trigger import Trigger
from redsam.errors import InputError
from redsam.registry import register
from redsam.seeds import generator


@register("trigger", "noise", paper="Targeted Backdoor Attacks using Data Poisoning (Chen et al.), as in ZIP",
          year=2017, url="https://arxiv.org/abs/1712.05526")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Noise(Trigger):
    """A full-image pattern of uniform noise, blended in with weight 0.2 (ZIP's setting). The area is the whole image.

    key: of the pattern. cells: grid of the pattern; published patterns have the images' own size (32 to 224), ours is
    one pattern for images of all sizes. Deviation: for that it is drawn on 64 x 64 cells and enlarged (nearest).
    """

    weight: float = 0.2
    cells: int = 64
    key: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1 or not 1 <= self.cells <= 4096:
            raise InputError(
                f"Noise of weight {self.weight:g} in {self.cells} cells cannot be laid.", hint="Published weight: 0.2."
            )

    def lay(self, image: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        size = (int(image.shape[-2]), int(image.shape[-1]))
        pattern = torch.rand(1, 3, self.cells, self.cells, generator=generator("noise", self.key))
        full = F.interpolate(pattern, size=size, mode="nearest-exact")[0].to(image)
        return (1 - self.weight) * image + self.weight * full, torch.ones(size, dtype=torch.bool)
