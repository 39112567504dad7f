"""Raindrops: drops of water on the lens or the windscreen, through which the scene is seen inverted and small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.corruptions import moving
from redsam.corruptions.base import Corruption
from redsam.corruptions.dropfield import look_through, rain_on_glass, surface
from redsam.corruptions.light import blur, each, mean, short_side, to_linear, to_srgb
from redsam.registry import register

# Part of the glass under water by severity.
COVER = (0.03, 0.07, 0.12, 0.18, 0.26)
# Defocus of a drop (the camera focuses on the scene) as sigma over the shorter side.
DEFOCUS = 0.0022
# Focal length over the longer side: a camera that sees 53 degrees across.
FOCAL = 1.0
# Where all light is reflected inside a drop, it comes from the camera's own side, which is dark.
INNER = 0.06
LEVELS = 6


@register("corruption", "raindrops", paper="Realistic Modeling of Water Droplets for Monocular Adherent Raindrop "
          "Recognition using Bezier Curves (Roser et al.)", year=2010,
          url="https://doi.org/10.1007/978-3-642-22819-3_24", group="lens", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Raindrops(Corruption):
    """Drops on the glass as a height field: each pixel of a drop shows where Snell's law sends its ray, times what
    Fresnel's equations let through, antialiased (a drop shows much of the scene on few pixels) and out of focus.
    Masks do not move: a drop hides what is behind it.

    Deviation: contours are spherical caps over a wavy circle, fuller below, instead of Bezier curves; the scene is far
    away, so its depth does not matter, and beyond the image's edge it is its own mirror image.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        height, width = image.shape[-2:]
        water = surface(rain_on_glass(generator, (height, width), COVER[self.severity - 1]), (height, width))
        light = to_linear(image)
        seen = through(light, water.slope.to(light), FOCAL * max(height, width))
        return to_srgb(lay_over(light, seen, water.wet.to(light)[None], DEFOCUS * short_side(image)))


def through(light: Tensor, slope: Tensor, focal: float) -> Tensor:
    """What a camera sees of linear 3xHxW through water of 2xHxW slopes; the whole image, wet or not."""
    at, passed = look_through(slope, focal)
    return gather(light, at) * passed + mean(light) * INNER * (1 - passed)


def lay_over(light: Tensor, over: Tensor, cover: Tensor, sigma: float) -> Tensor:
    """`over` where cover (1xHxW in [0, 1]) is 1, both out of focus: the edge lets the background through."""
    return light * (1 - blur(cover, sigma)) + blur(over * cover, sigma)


def gather(light: Tensor, at: Tensor) -> Tensor:
    """3xHxW at HxWx2 positions (x, y) in pixels, mirrored in from outside; where neighbouring pixels look at places far
    apart, from an image as coarse as that distance (a pyramid of means, linear between its levels)."""
    height, width = light.shape[-2:]
    apart = _distance(at).clamp(1, 2 ** (LEVELS - 1)).log2()
    at = moving.inside(at)
    out, level = torch.zeros_like(light), light
    for k in range(LEVELS):
        weight = (1 - (apart - k).abs()).clamp_min(0)
        if bool(weight.any()):
            # Edges, not centres, agree between levels, so positions are given as fractions of the size.
            scaled = (at + 0.5) / at.new_tensor([width, height]) * 2 - 1
            found = F.grid_sample(
                level[None], scaled[None], mode="bilinear", padding_mode="border", align_corners=False
            )
            out = out + found[0] * weight
        level = (
            F.avg_pool2d(level[None], 2, ceil_mode=True, count_include_pad=False)[0]
            if min(level.shape[1:]) > 1
            else level
        )
    return out


def _distance(at: Tensor) -> Tensor:
    """HxW: how far apart in pixels neighbouring pixels look, the smaller of both neighbours' on each axis, so that a
    drop's contour does not count; the larger axis."""
    found = []
    for dim in (0, 1):
        across = at.narrow(dim, 1, at.shape[dim] - 1) - at.narrow(dim, 0, at.shape[dim] - 1)
        step = (across[..., 0].square() + across[..., 1].square()).sqrt()
        first, last = step.narrow(dim, 0, 1), step.narrow(dim, step.shape[dim] - 1, 1)
        found.append(torch.minimum(torch.cat([first, step], dim), torch.cat([step, last], dim)))
    return torch.maximum(*found)
