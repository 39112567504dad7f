"""Frost: ice crystals on the glass before the lens, grown branch by branch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption, scale
from redsam.corruptions.filters import smooth
from redsam.corruptions.fog import plasma
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register

FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # weights of the image and of the frost

# The frost itself is ours. Lengths in pixels of a 224-pixel image; chosen by eye beside photographs of frosted windows.
AREA = 350.0  # one crystal for so many square pixels
STEMS = (8.0, 75.0)  # shortest and longest stem
APART, TURN = 3.0, math.pi / 3  # branches leave at ice's 60 degrees, so far from each other
BRANCH, TWIG = 0.5, 0.45  # longest length of what sprouts, of what is left of the stem or branch
UNEVEN = 0.15  # standard deviation of an angle, in radians
WIDTH, GLOW = 0.4, 3.0  # standard deviations of a needle and of the rime around it
NEEDLES, RIME, HAZE = 0.8, 0.1, 0.1  # how dense each is
# Where a fractal between 0 and 1 is below the first the glass is bare, above the second fully grown over: crystals all
# over, in patches, rather than one patch of them.
BARE = (0.15, 0.5)
STEP = 0.7  # of a real pixel between the points that draw a line
TINT = (0.84, 0.92, 1.0)


class Lines(NamedTuple):
    """n straight lines: start nx2 (x, y), angle n and length n, all float64."""

    start: Tensor
    angle: Tensor
    length: Tensor


@register("corruption", "frost", group="weather", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class Frost(Corruption):
    """A frosted window: the image darkened and a layer of ice added, weighted as published.

    Deviation: the authors crop six photographs of frost; here every image gets crystals of its own, grown from
    its seed (stems at random, branches and twigs at 60 degrees, rime around them), so that nothing is bundled and any
    size will do.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        kept, added = FROST[self.severity - 1]
        height, width = images.shape[-2:]
        layers = torch.stack([ice(height, width, scale(images), g) for g in generators]).to(images.device)
        return kept * images + added * layers * images.new_tensor(TINT)[:, None, None]


def ice(height: int, width: int, unit: float, random: torch.Generator) -> Tensor:
    """1xHxW float32 in [0, 1), how white the glass is. unit: real pixels to a published one."""
    count = max(round(height * width / (AREA * unit**2)), 1)
    u = torch.rand(4, count, generator=random, dtype=torch.float64)
    shortest, longest = STEMS
    stems = Lines(
        start=torch.stack([u[0] * width, u[1] * height], dim=1),
        angle=u[2] * 2 * math.pi,
        length=(shortest + (longest - shortest) * u[3] ** 2) * unit,
    )
    branches = sprouts(stems, APART * unit, BRANCH, random)
    twigs = sprouts(branches, APART * unit, TWIG, random)
    drawn = torch.stack([drawing(lines, height, width) for lines in (stems, branches, twigs)]).sum(0)
    # A line drawn at STEP and blurred has its ridge at 1 after this factor; the rime is measured by the same line.
    needles = smooth(drawn, WIDTH * unit, "nearest") * (STEP * WIDTH * unit * math.sqrt(2 * math.pi))
    rime = smooth(drawn, GLOW * unit, "nearest") * (STEP * unit * APART)
    side = 1 << (max(height, width) - 1).bit_length()
    patches = plasma(side, 2.0, random)[:height, :width].float()
    grown = ((patches - BARE[0]) / (BARE[1] - BARE[0])).clamp(0, 1)
    ice = (NEEDLES * needles + RIME * rime) * grown + HAZE * patches
    return (1 - torch.exp(-ice))[0]


def sprouts(lines: Lines, apart: float, share: float, random: torch.Generator) -> Lines:
    """What grows from the lines, to both sides, every `apart`; each up to `share` of what is left of its line there."""
    most = int(float(lines.length.max()) / apart) if len(lines.length) else 0
    at = apart * torch.arange(1, most + 1, dtype=torch.float64)
    rest = lines.length[:, None] - at
    which, where = (rest > 0).nonzero(as_tuple=True)
    which, where = which.repeat(2), where.repeat(2)
    side = torch.ones(len(which), dtype=torch.float64)
    side[: len(side) // 2] = -1
    angle, along = lines.angle[which], at[where]
    start = lines.start[which] + along[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    turn = TURN + UNEVEN * torch.randn(len(which), generator=random, dtype=torch.float64)
    grown = share * torch.rand(len(which), generator=random, dtype=torch.float64)
    return Lines(start, angle + side * turn, grown * rest[which, where])


def drawing(lines: Lines, height: int, width: int) -> Tensor:
    """1x1xHxW float32: how many points of the lines fall on each pixel."""
    counts = (lines.length / STEP).long() + 1
    which = torch.arange(len(counts)).repeat_interleave(counts)
    first = (counts.cumsum(0) - counts)[which]
    along = (torch.arange(len(which)) - first) * STEP
    angle = lines.angle[which]
    at = lines.start[which] + along[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    x, y = at.floor().long().unbind(1)
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return torch.bincount(y[seen] * width + x[seen], minlength=height * width).view(1, 1, height, width).float()
