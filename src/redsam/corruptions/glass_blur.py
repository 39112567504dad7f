"""Glass blur: seen through frosted glass, pixels swapped with near ones between two slight blurs."""

from __future__ import annotations

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
    touch are swapped at once, the others in later turns. Each is swapped as often and as far.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        sigma, shift, rounds = GLASS[self.severity - 1]
        reach, sigma = max(round(shift * scale(images)), 1), sigma * scale(images)
        blurred = smooth(images, sigma, "nearest")
        order = shuffled(generators, images, reach, rounds)
        scattered = blurred.flatten(2).gather(2, order[:, None].expand(-1, 3, -1)).view_as(images)
        return smooth((scattered * 255).floor() / 255, sigma, "nearest")  # 8 bits between the two, as published


def shuffled(generators: Sequence[torch.Generator], images: Tensor, reach: int, rounds: int) -> Tensor:
    """B x (H W): which pixel stands where after `rounds` in which each pixel swaps with one -reach ... reach - 1 away
    in both directions. A permutation of each image's pixels."""
    batch, (height, width) = len(images), images.shape[-2:]
    order = torch.arange(height * width).repeat(batch, 1)
    lattice = 2 * reach  # neighbourhoods of pixels so far apart do not touch
    for _ in range(rounds):
        drawn = uniform(generators, (2, height, width), torch.empty(0))
        shift = (drawn * (2 * reach)).long().clamp(max=2 * reach - 1) - reach
        partner = (shift[:, 0] * width + shift[:, 1]).flatten(1) + torch.arange(height * width)
        for top in range(min(lattice, height - 2 * reach)):
            rows = torch.arange(reach + 1 + top, height - reach + 1, lattice)
            for left in range(min(lattice, width - 2 * reach)):
                columns = torch.arange(reach + 1 + left, width - reach + 1, lattice)
                _swap(order, (rows[:, None] * width + columns).flatten(), partner)
    return order.to(images.device)


def _swap(order: Tensor, here: Tensor, partner: Tensor) -> None:
    there = partner[:, here]
    mine, theirs = order[:, here], order.gather(1, there)
    order[:, here] = theirs
    order.scatter_(1, there, mine)
