"""Random resizing and padding, laid back onto the photograph's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.defenses.base import Purifier, within
from redsam.errors import InputError
from redsam.registry import register

PUBLISHED = 331 / 299  # the canvas of a 299 x 299 photograph


@register("defense", "resize-pad", group="purifier", random=True, differentiable=True,
          paper="Mitigating Adversarial Effects Through Randomization (Xie et al.)", year=2018,
          url="https://arxiv.org/abs/1711.01991")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class ResizePad(Purifier):
    """Resized by a random factor, laid at a random place, and sampled back. least, most: of the factor, uniform;
    published 1 to 331/299.

    Deviation: published, the padded canvas itself goes to a classifier. A prompt and a mask mean pixels, so here the
    canvas is laid back onto them: of the random place there stays a shift of up to half a pixel on each axis, and the
    border pixel stands where the padding would show. What is defended is less than published, since a patch of the
    encoder sees what it saw before; factors below 1 (least=0.5) are what makes it bite.
    """

    least: float = 1.0
    most: float = PUBLISHED

    def __post_init__(self) -> None:
        within("The least factor", self.least, 0.05, 4)
        within("The largest factor", self.most, 0.05, 4)
        if self.least > self.most:
            raise InputError(f"Factors from {self.least:g} to {self.most:g} are none.", hint="Give least <= most.")

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.cat([self._one(image[None], g) for image, g in zip(images, generators, strict=True)])

    def _one(self, image: Tensor, random: torch.Generator) -> Tensor:
        height, width = image.shape[-2:]
        factor, down, right = torch.rand(3, generator=random, dtype=torch.float64).tolist()
        scale = self.least + factor * (self.most - self.least)
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        resized = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=scale < 1)
        # Pixel centres in [-1, 1] of the resized picture, moved by up to half a pixel of the photograph.
        rows, columns = (
            (2 * torch.arange(n, dtype=image.dtype, device=image.device) + 1 + (2 * move - 1)) / n - 1
            for n, move in ((height, down), (width, right))
        )
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)[None]
        return F.grid_sample(resized, grid, mode="bilinear", padding_mode="border", align_corners=False)
