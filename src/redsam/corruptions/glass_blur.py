"""Glass blur: seen through frosted glass, pixels swapped with near ones between two slight blurs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption, scale, uniform
from redsam.corruptions.filters import smooth
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register

# Standard deviation and largest shift in pixels of a 224-pixel image, and how often every pixel is swapped.
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))


@register("corruption", "glass-blur", group="blur", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class GlassBlur(Corruption):
    """Frosted glass. Pixels scatter about their own places, so masks stay.

    Deviation: the authors swap pixels one after another from the bottom right; here those whose neighbourhoods do not
    touch are swapped at once, the others in later turns. Each is swapped as often and as far. At sizes other than 224
    pixels a reach between two whole ones is a draw between them; below 224 pixels shifts of less than a pixel get
    coarse, and severities 1 and 2 may change places in PSNR.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        sigma, shift, rounds = GLASS[self.severity - 1]
        reach, sigma = shift * scale(images), sigma * scale(images)
        blurred = smooth(images, sigma, "nearest")
        order = shuffled(generators, images, reach, rounds)
        scattered = blurred.flatten(2).gather(2, order[:, None].expand(-1, 3, -1)).view_as(images)
        return smooth((scattered * 255).floor() / 255, sigma, "nearest")  # 8 bits between the two, as published


def shuffled(generators: Sequence[torch.Generator], images: Tensor, reach: float, rounds: int) -> Tensor:
    """B x (H W): which pixel stands where after `rounds` in which each pixel swaps with one -reach ... reach - 1 away
    in both directions (the next whole reach with the chance of the fraction). A permutation of each image's pixels."""
    batch, (height, width) = len(images), images.shape[-2:]
    order = torch.arange(height * width).repeat(batch, 1)
    low, high = math.floor(reach), math.ceil(reach)
    lattice = 2 * high  # neighbourhoods of pixels so far apart do not touch
    for _ in range(rounds):
        across, down, choice = uniform(generators, (3, height, width), torch.empty(0)).unbind(1)
        own = torch.where(choice < reach - low, high, low)
        shift = [(u * 2 * own).floor().clamp(max=2 * high - 1).long() - own for u in (down, across)]
        partner = (shift[0] * width + shift[1]).flatten(1) + torch.arange(height * width)
        for top in range(min(lattice, height - 2 * high)):
            rows = torch.arange(high + 1 + top, height - high + 1, lattice)
            for left in range(min(lattice, width - 2 * high)):
                columns = torch.arange(high + 1 + left, width - high + 1, lattice)
                _swap(order, (rows[:, None] * width + columns).flatten(), partner)
    return order.to(images.device)


def _swap(order: Tensor, here: Tensor, partner: Tensor) -> None:
    there = partner[:, here]
    mine, theirs = order[:, here], order.gather(1, there)
    order[:, here] = theirs
    order.scatter_(1, there, mine)
