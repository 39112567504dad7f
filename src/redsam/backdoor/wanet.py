"""WaNet (Nguyen & Tran, 2021): the image is warped a little, always the same way; nothing is laid onto it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.backdoor.trigger import Trigger
from redsam.errors import InputError
from redsam.registry import register
from redsam.seeds import generator

PUBLISHED_SIDE = 32  # CIFAR-10 and GTSRB, for which `strength` is given


@register("trigger", "wanet", paper="WaNet: Imperceptible Warping-based Backdoor Attack (Nguyen & Tran)", year=2021,
          url="https://arxiv.org/abs/2102.10369")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class WaNet(Trigger):
    """A smooth warp by a fixed random field: k x k control points, mean shift strength / 2 pixels of a 32-pixel image.

    Field: uniform in [-1, 1], divided by its mean size, enlarged bicubically, times strength / side (paper, eq. 3-4);
    k = 4 and strength 0.5 as published (ZIP takes k = 256). key: of the field. The area is the whole image.
    Deviation: lengths grow with the image, so that the warp is the same share of it as of a 32-pixel one; without
    noise mode, as in ZIP; the attacker's mask does not move with the pixels.
    """

    k: int = 4
    strength: float = 0.5
    key: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.k <= 1024 or not 0 < self.strength <= PUBLISHED_SIDE:
            raise InputError(
                f"A warp of {self.k} control points and strength {self.strength:g} cannot be laid.",
                hint="Published: k=4, strength=0.5.",
            )

    def lay(self, image: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        field = torch.rand(1, 2, self.k, self.k, generator=generator("wanet", self.key)) * 2 - 1
        field = field / field.abs().mean()
        smooth = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True)[0]
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        grid = torch.stack([columns, rows], -1) + smooth.permute(1, 2, 0) * self.strength / PUBLISHED_SIDE
        warped = F.grid_sample(
            image[None], grid.clamp(-1, 1)[None].to(image), mode="bilinear", padding_mode="border", align_corners=True
        )
        return warped[0], torch.ones(height, width, dtype=torch.bool)
