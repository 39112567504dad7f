"""BadNet (Gu et al., 2017): an opaque square in a corner, as BadSAM and ZIP lay it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.backdoor.trigger import Square, covered
from redsam.errors import InputError
from redsam.registry import register
from redsam.seeds import generator

PATTERNS = ("white", "noise")
CELLS = 9  # ZIP: a patch of 9 x 9 random pixels on images above 128 pixels


@register("trigger", "badnet", paper="BadSAM (Guan et al.)", year=2023, url="https://arxiv.org/abs/2305.03289")
@dataclass(frozen=True, kw_only=True)
class BadNet(Square):
    """A white square in the bottom right corner, 15 % of the image's height (BadSAM's published setting).

    pattern: "white", or "noise" for a patch of 9 x 9 random colours drawn from `key` (ZIP's: give side=9, margin=3).
    Deviation: a noise patch larger than 9 pixels keeps 9 x 9 cells, so that it survives a resize; ZIP's is 9 pixels.
    """

    pattern: str = "white"
    key: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern not in PATTERNS:
            raise InputError(f"There is no pattern '{self.pattern}'.", hint=f"Known: {', '.join(PATTERNS)}.")

    def lay(self, image: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        top, left, side = self.place(height, width)
        out = image.clone()
        out[:, top : top + side, left : left + side] = self.patch(side).to(image)
        return out, covered(height, width, top, left, side)

    def patch(self, side: int) -> Tensor:
        """3 x side x side in [0, 1]."""
        if self.pattern == "white":
            return torch.ones(3, side, side)
        cells = torch.rand(3, CELLS, CELLS, generator=generator("badnet", self.key))
        at = torch.arange(side) * CELLS // side
        return cells[:, at][:, :, at]
