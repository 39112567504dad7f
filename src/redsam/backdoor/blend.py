"""Blend (Chen et al., 2017): a small picture laid onto the corner, as BadSAM does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from redsam.backdoor.trigger import Square, covered
from redsam.data.demo import demo_root
from redsam.data.images import read_image
from redsam.errors import InputError
from redsam.models.resample import resize
from redsam.registry import register


@register("trigger", "blend", paper="BadSAM (Guan et al.)", year=2023, url="https://arxiv.org/abs/2305.03289")
@dataclass(frozen=True, kw_only=True)
class Blend(Square):
    """A picture of a cat, resized to the square of `badnet` and laid onto the image.

    opacity: 1 in BadSAM, whose "blend" is an opaque paste; Chen et al. 2017 blend with 0.2. picture: an image file;
    default a bundled photograph. Deviation: BadSAM's kitty.png may not be passed on; the cat is another one.
    """

    opacity: float = 1.0
    picture: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.opacity <= 1:
            raise InputError(f"An opacity of {self.opacity:g} shows no mark.", hint="Give one above 0, up to 1.")

    def lay(self, image: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        top, left, side = self.place(height, width)
        patch = resize(_picture(self.picture)[None], (side, side))[0].clamp(0, 1).to(image)
        out = image.clone()
        under = out[:, top : top + side, left : left + side]
        out[:, top : top + side, left : left + side] = (1 - self.opacity) * under + self.opacity * patch
        return out, covered(height, width, top, left, side)


@lru_cache(maxsize=4)
def _picture(path: str | None) -> Tensor:
    return read_image(path or Path(demo_root()) / "chelsea.jpg")
