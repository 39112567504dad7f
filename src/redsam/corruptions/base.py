"""Corruption: a natural change of images with a severity and a seed. Corrupted: what it made, masks moved alike.

`run` is final and owns the honesty: it validates, gives every image a generator of its own, samples pixels where they
come from, clamps and rounds to the 8-bit lattice. A corruption fills `corrupt` (what happens to colours), or `displace`
(where each pixel comes from), or both; pixels are displaced first.
Images are float32 Bx3xHxW, RGB, [0, 1], original pixels, on the 8-bit lattice; positions are (x, y) in pixels.

Same seed, same bytes, alone or in a batch, on one thread or four. For that: draw with `uniform` and `normal` (or from
`generators[i]` on the CPU), never reduce over the batch, and sum many values in float64, where another order of the
terms does not reach the eighth bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.corruptions import moving
from redsam.errors import InputError
from redsam.prompts import Prompt
from redsam.registry import name_of
from redsam.seeds import generator
from redsam.threat import require_lattice
from redsam.types import check_image, from_uint8, to_uint8

SEVERITIES = (1, 2, 3, 4, 5)
# Hendrycks & Dietterich 2019 give lengths for ImageNet crops of this side.
SIDE = 224


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrupted:
    """images: float32 Bx3xHxW in [0, 1] on the 8-bit lattice: what is saved is what is measured. grid: float32 BxHxWx2,
    where each output pixel comes from, (x, y) in input pixels, inside the image; None when nothing moved."""

    images: Tensor
    grid: Tensor | None = None

    def masks(self, i: int, masks: Tensor) -> Tensor:
        """Masks of image i, bool PxHxW, moved with its pixels (nearest neighbour)."""
        return masks if self.grid is None else moving.masks(masks, self.grid[i])

    def prompts(self, i: int, prompts: Sequence[Prompt]) -> tuple[Prompt | None, ...]:
        """Prompts of image i moved with its pixels, one for each; None for one that left the image."""
        if self.grid is None:
            return tuple(prompts)
        grid = self.grid[i].cpu()
        return tuple(moving.prompt(p, grid) for p in prompts)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """severity: 1 (slight) to 5 (strong). Raises InputError for any other."""

    severity: int = 3

    def __post_init__(self) -> None:
        if isinstance(self.severity, bool) or self.severity not in SEVERITIES:
            raise InputError(
                f"Severity {self.severity!r} is not one of 1, 2, 3, 4, 5.", hint="1 is slight, 5 strong: --severity 3"
            )

    @property
    def name(self) -> str:
        """The registered name; of an unregistered class its own."""
        return name_of(self)

    def displace(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor | None:
        """Where each output pixel comes from: BxHxWx2, (x, y) in input pixels; None when nothing moves. What lies
        outside is mirrored in at the border pixel's centre. Pixels are then sampled bilinearly by `run`."""
        return None

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Float Bx3xHxW (already displaced) to the same shape and device; `run` clamps and rounds. Never in place."""
        return images

    @final
    @torch.no_grad()
    def run(self, images: Tensor, *, seeds: Sequence[int] | None = None) -> Corrupted:
        """Corrupt B images of one size. seeds: one per image (default 0); severities share their draws, so that a
        severity is the same rain, stronger. Raises InputError for images or seeds that cannot be used."""
        chosen = [0] * len(images) if seeds is None else list(seeds)
        _validate(images, chosen)
        generators = [generator("corruption", self.name, seed) for seed in chosen]
        grid = self.displace(images, generators)
        if grid is not None:
            grid = moving.inside(grid.to(images))
        moved = images if grid is None else sample(images, grid)
        out = self.corrupt(moved, generators)
        # The extremes are finite where everything is: a tenth of the time of looking at each.
        if out.shape != images.shape or not all(v.isfinite() for v in out.aminmax()):
            raise InputError(f"Corruption '{self.name}' made {tuple(out.shape)} values, or not finite ones.")
        return Corrupted(images=from_uint8(to_uint8(out)), grid=grid)


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """Bx3xHxW at BxHxWx2 positions (x, y) in pixels, inside the image; bilinear."""
    height, width = images.shape[-2:]
    at = grid / grid.new_tensor([width - 1, height - 1]) * 2 - 1
    return F.grid_sample(images, at, mode="bilinear", padding_mode="border", align_corners=True)


def identity(images: Tensor) -> Tensor:
    """BxHxWx2, every pixel its own position (x, y), float32."""
    batch, (height, width) = len(images), images.shape[-2:]
    return moving.positions(height, width).to(images).expand(batch, height, width, 2)


def scale(images: Tensor) -> float:
    """How many pixels a published pixel is: shorter side / 224. The published images are centre crops, whose side is
    the photograph's shorter one. Lengths are multiplied by it; strengths of noise and colour are not."""
    return min(images.shape[-2:]) / SIDE


def uniform(generators: Sequence[torch.Generator], shape: Sequence[int], like: Tensor) -> Tensor:
    """Bx*shape float32 uniform in [0, 1), each image from its own generator; on the device of `like`."""
    return torch.stack([torch.rand(tuple(shape), generator=g) for g in generators]).to(like.device)


def normal(generators: Sequence[torch.Generator], shape: Sequence[int], like: Tensor) -> Tensor:
    """Bx*shape float32 standard normal, each image from its own generator; on the device of `like`."""
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators]).to(like.device)


def _validate(images: Tensor, seeds: Sequence[int]) -> None:
    if images.ndim != 4 or not len(images):
        raise InputError(f"A corruption takes images Bx3xHxW of one size, got {tuple(images.shape)}.")
    for i, image in enumerate(images):
        check_image(image, f"image {i}")
    require_lattice(images)
    if len(seeds) != len(images):
        raise InputError(f"{len(images)} images came with {len(seeds)} seeds.")
    if not all(isinstance(s, int) for s in seeds):
        raise InputError("A seed is a whole number.")
