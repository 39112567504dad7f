"""Matched: any other corruption, only as strong as a given PSNR, so that two kinds of change can be compared fairly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from redsam import registry
from redsam.corruptions.base import SEVERITIES, Corruption
from redsam.corruptions.composition import PAPER, URL, part_seeds
from redsam.errors import InputError
from redsam.registry import register
from redsam.types import from_uint8, to_uint8

# What a severity means here: the PSNR in dB that the image is brought to.
LEVELS = (32.0, 28.0, 24.0, 20.0, 16.0)
# Halvings of a mixing weight: 2^-12 of the way between two severities is less than a grey level.
HALVINGS = 12


@register("corruption", "matched", paper=PAPER, year=2024, url=URL, group="composition", geometric=False)
@dataclass(frozen=True, kw_only=True)
class Matched(Corruption):
    """Another corruption at a given PSNR: 32, 28, 24, 20 or 16 dB for severities 1 to 5.

    of, options: the corruption and its other fields. Its severities 0 (the image itself) to 5, made with one seed, are
    the corners of a path, straight in the numbers of the file between one severity and the next; along it the image is
    the first that has the PSNR, measured on 8 bits and found by halving. An image whose severity 5 is nearer than that
    stays at severity 5: the PSNR that was measured says so.

    Deviation: the paper compares drops and night as they come, at whatever distance each has.
    """

    of: str = "night"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "severity" in self.options:
            raise InputError("The severity says the PSNR here; the other corruption's is searched.")
        if self.of == "matched" or registry.get("corruption", self.of).meta["geometric"]:
            raise InputError(f"'{self.of}' cannot be matched in PSNR.", hint="Name one that moves no pixels.")

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        goal = 255**2 * 10 ** (-LEVELS[self.severity - 1] / 10)  # the mean squared difference in grey levels
        made = [self._one(image, seed, goal) for image, seed in zip(images, part_seeds(generators), strict=True)]
        return torch.stack(made)

    def _one(self, image: Tensor, seed: int, goal: float) -> Tensor:
        before = after = image
        for severity in SEVERITIES:
            part: Corruption = registry.create("corruption", self.of, **self.options, severity=severity)
            before, after = after, part.run(image[None], seeds=[seed]).images[0]
            if distance(after, image) >= goal:
                return between(before, after, image, goal)
        return after


def between(before: Tensor, after: Tensor, image: Tensor, goal: float) -> Tensor:
    """The mix of two 3xHxW that is as far from the image as `goal`; the second one is at least as far."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if distance(mixed(before, after, middle), image) >= goal:
            high = middle
        else:
            low = middle
    return mixed(before, after, high)


def mixed(before: Tensor, after: Tensor, weight: float) -> Tensor:
    """On the 8-bit lattice."""
    return from_uint8(to_uint8(before + (after - before) * weight))


def distance(one: Tensor, other: Tensor) -> float:
    """Mean squared difference in grey levels, exact: a sum of whole numbers."""
    steps = to_uint8(one).to(torch.int64) - to_uint8(other).to(torch.int64)
    return int(steps.square().sum()) / steps.numel()


def decibels(severity: int) -> float:
    """The PSNR that a severity stands for."""
    return LEVELS[severity - 1]


def met(psnr: float | None, severity: int, *, slack: float = 0.1) -> bool:
    """Whether an image has the PSNR that was asked for, to a tenth of a dB."""
    return psnr is not None and math.isclose(psnr, decibels(severity), rel_tol=0, abs_tol=slack)
