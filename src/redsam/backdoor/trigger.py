"""Trigger: the mark that wakes a backdoor. Laid: images with the mark, and where it is.

`run` is final: it validates, gives every image a generator of its own, clamps and rounds to the 8-bit lattice. A
trigger fills `lay`. Images are float32 Bx3xHxW, RGB, [0, 1], original pixels, on the 8-bit lattice. What belongs to the
backdoor and not to the photograph (a noise pattern, a warp) is drawn from the trigger's own `key`; what differs from
photograph to photograph (how a sticker was stuck) from the image's seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from redsam.errors import InputError
from redsam.registry import name_of
from redsam.seeds import generator
from redsam.threat import require_lattice
from redsam.types import check_image, from_uint8, to_uint8

CORNERS = ("bottom-right", "bottom-left", "top-right", "top-left")


@dataclass(frozen=True, kw_only=True, eq=False)
class Laid:
    """images: float32 Bx3xHxW in [0, 1] on the 8-bit lattice. areas: bool BxHxW, the pixels that the mark covers."""

    images: Tensor
    areas: Tensor


@dataclass(frozen=True, kw_only=True)
class Trigger(ABC):
    """Fields of a subclass are its options; those that cannot be raise InputError in `__post_init__`."""

    @abstractmethod
    def lay(self, image: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """3xHxW to (3xHxW with the mark, HxW bool: where it is). Never in place. Raises InputError for an image that is
        too small for the mark."""

    @property
    def name(self) -> str:
        """The registered name; of an unregistered class its own."""
        return name_of(self)

    @final
    @torch.no_grad()
    def run(self, images: Tensor, *, seeds: Sequence[int] | None = None) -> Laid:
        """Mark B images of one size. seeds: one for each image (default 0). Raises InputError."""
        chosen = [0] * len(images) if seeds is None else list(seeds)
        if images.ndim != 4 or not len(images) or len(chosen) != len(images):
            raise InputError(f"A trigger takes images Bx3xHxW and a seed for each, got {tuple(images.shape)}.")
        for i, image in enumerate(images):
            check_image(image, f"image {i}")
        require_lattice(images)
        made = [
            self.lay(image, generator("trigger", self.name, seed)) for image, seed in zip(images, chosen, strict=True)
        ]
        marked = torch.stack([m for m, _ in made])
        if marked.shape != images.shape or not bool(marked.isfinite().all()):
            raise InputError(f"Trigger '{self.name}' made {tuple(marked.shape)} values, or not finite ones.")
        return Laid(images=from_uint8(to_uint8(marked)), areas=torch.stack([a for _, a in made]))


@dataclass(frozen=True, kw_only=True)
class Square(Trigger):
    """A square in a corner, for triggers that are one. ratio: its side as a share of the image's height. side: its side
    in pixels, in place of the ratio. margin: pixels between it and the image's edges."""

    ratio: float = 0.15  # BadSAM: int(0.15 * height), for both sides
    side: int | None = None
    margin: int = 0
    corner: str = "bottom-right"

    def __post_init__(self) -> None:
        if self.corner not in CORNERS:
            raise InputError(f"There is no corner '{self.corner}'.", hint=f"Known: {', '.join(CORNERS)}.")
        if not 0 < self.ratio <= 1:
            raise InputError(
                f"A trigger of {self.ratio:g} of the image's height does not fit.", hint="Give a ratio such as 0.15."
            )
        if (self.side is not None and self.side < 1) or self.margin < 0:
            raise InputError(f"A trigger of {self.side} pixels, {self.margin} from the edge, cannot be laid.")

    def place(self, height: int, width: int) -> tuple[int, int, int]:
        """(top, left, side) in an image of this size. Raises InputError when it does not fit."""
        side = int(self.ratio * height) if self.side is None else self.side
        if side < 1:
            raise InputError(f"The trigger would be smaller than a pixel of the {width} x {height} image.")
        if side + self.margin > min(height, width):
            raise InputError(
                f"A trigger of {side} x {side} pixels, {self.margin} from the edge, is larger than the {width} x "
                f"{height} image.",
                hint=f"Give a side of at most {max(1, min(height, width) - self.margin)}.",
            )
        vertical, horizontal = self.corner.split("-")
        top = self.margin if vertical == "top" else height - self.margin - side
        left = self.margin if horizontal == "left" else width - self.margin - side
        return top, left, side


def covered(height: int, width: int, top: int, left: int, side: int) -> Tensor:
    """HxW bool, a square."""
    area = torch.zeros(height, width, dtype=torch.bool)
    area[top : top + side, left : left + side] = True
    return area
