"""Denoisers that average a pixel with others that look alike: bilateral filter and non-local means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from redsam.corruptions.filters import indices
from redsam.defenses.base import Purifier, within
from redsam.defenses.blurs import SQUEEZING
from redsam.errors import InputError
from redsam.registry import register

# (differences BxCxHxW between each pixel and the one so far (down, right) from it) to weights Bx1xHxW.
Weigh = Callable[[Tensor, int, int], Tensor]


@register("defense", "bilateral", group="purifier", random=False, differentiable=True,
          paper="Unifying Bilateral Filtering and Adversarial Training for Robust Neural Networks (Ratzlaff & Fuxin)",
          year=2018, url="https://arxiv.org/abs/1804.01635")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Bilateral(Purifier):
    """Tomasi & Manduchi's filter (1998): neighbours count by distance and by likeness of colour, borders reflected.
    space: standard deviation in pixels; colour: of the Euclidean distance of RGB in [0, 1]. Cut at two deviations.

    Deviation: the paper lets a network choose the two numbers for each image; these are fixed and ours.
    """

    space: float = 1.5
    colour: float = 0.1

    def __post_init__(self) -> None:
        within("Deviation in space", self.space, 0.1, 10)
        within("Deviation in colour", self.colour, 1e-3, 10)

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        def weigh(difference: Tensor, down: int, right: int) -> Tensor:
            near = (down * down + right * right) / self.space**2
            return torch.exp(-0.5 * (near + difference.square().sum(1, keepdim=True) / self.colour**2))

        return _average(images, max(int(2 * self.space + 0.5), 1), weigh)


@register("defense", "nlm", group="purifier", random=False, differentiable=True, **SQUEEZING)
@dataclass(frozen=True, kw_only=True)
class NonLocalMeans(Purifier):
    """Non-local means (Buades et al. 2005): places count by the likeness of their patches. search, patch: odd sides of
    the windows; strength: in grey levels of 255. Published for photographs: 11, 3, 4.

    Deviation: in RGB with the mean squared difference over patch and colours, weight exp(-d / h^2); the paper calls
    OpenCV's, which works in Lab.
    """

    search: int = 11
    patch: int = 3
    strength: float = 4.0

    def __post_init__(self) -> None:
        within("Search window", self.search, 3, 41, whole=True)
        within("Patch", self.patch, 1, 15, whole=True)
        within("Strength", self.strength, 0.1, 255)
        if not (self.search % 2 and self.patch % 2):
            raise InputError(f"Windows of {self.search} and {self.patch} have no middle.", hint="Give odd numbers.")

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        beyond = self.patch // 2

        def weigh(difference: Tensor, down: int, right: int) -> Tensor:
            unlike = _wide(difference.square().mean(1, keepdim=True), beyond)
            return torch.exp(-F.avg_pool2d(unlike, self.patch, stride=1) / (self.strength / 255) ** 2)

        return _average(images, self.search // 2, weigh)


def _average(images: Tensor, reach: int, weigh: Weigh) -> Tensor:
    """Each pixel the weighted mean of those up to `reach` away. In a backward pass every shift is computed again, so
    memory does not grow with the window."""
    height, width = images.shape[-2:]
    wide = _wide(images, reach)

    def shifted(image: Tensor, wide: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
        other = wide[..., reach + down : reach + down + height, reach + right : reach + right + width]
        weight = weigh(other - image, down, right)
        return weight * other, weight

    total, mass = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if torch.is_grad_enabled() and images.requires_grad:
                made = checkpoint(shifted, images, wide, down, right, use_reentrant=False)
            else:
                made = shifted(images, wide, down, right)
            part, weight = cast(tuple[Tensor, Tensor], made)
            total, mass = total + part, mass + weight
    return total / mass


def _wide(images: Tensor, beyond: int) -> Tensor:
    """With `beyond` reflected pixels on each side."""
    for axis in (-2, -1):
        images = images.index_select(axis, indices(images.shape[axis], beyond, "reflect").to(images.device))
    return images
