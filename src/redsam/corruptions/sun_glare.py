"""Sun glare: a low sun in the image, its light scattered in the eye of the camera, and its ghosts in the lens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.light import blur, each, luminance, short_side, smoothstep, to_linear, to_srgb
from redsam.registry import register

# By severity: stray light at one degree from the sun over white, and light in the ghosts.
STRAY = (2.0, 5.0, 10.0, 18.0, 30.0)
GHOST = (0.02, 0.04, 0.07, 0.1, 0.14)
RADIUS = 0.6  # of the overexposed disc in degrees; the sun's own is 0.27
ACROSS = 53.0  # degrees over the longer side
SUN = (1.0, 0.93, 0.78)
# Ghosts lie on the line through the sun and the middle: place (1 is the sun, -1 its opposite), radius, colour.
GHOSTS = (
    (0.45, 0.025, (0.5, 1.0, 0.6)),
    (-0.25, 0.045, (1.0, 0.7, 0.4)),
    (-0.55, 0.02, (0.5, 0.7, 1.0)),
    (-0.9, 0.09, (0.8, 0.6, 1.0)),
    (-1.35, 0.05, (1.0, 0.8, 0.5)),
)
RAYS = 8
PLACES = 12


@register("corruption", "sun-glare", paper="Physically-Based Glare Effects for Digital Images (Spencer et al.)",
          year=1995, url="https://doi.org/10.1145/218380.218466", group="lens", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class SunGlare(Corruption):
    """Linear light plus a veil that falls with the angle t to the sun as 10 / t^3 + 5 / t^2 (CIE 1999, disability
    glare, young eye), an overexposed disc, the star of an aperture's blades and ghosts mirrored about the middle. The
    sun stands in the brightest of a few places in the upper part.

    Deviation: the veil is that of an eye, as lenses differ by more than from it; it levels off inside one degree.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        s, light = self.severity - 1, to_linear(image)
        height, width = image.shape[-2:]
        sun = place_of_sun(light, generator)
        turn = float(torch.rand((), generator=generator))
        dx, dy = _offsets(image, sun)
        degrees = (dx.square() + dy.square()).sqrt() * (ACROSS / max(height, width))
        around = torch.atan2(dy.double(), dx.double())
        blades = torch.cos(RAYS / 2 * around + math.pi * turn).pow(2).pow(24).to(light.dtype)
        star = 1 + 1.5 * blades * torch.exp(-degrees / 5)
        glow = veil(degrees) * star * STRAY[s] + smoothstep(-degrees, -1.6 * RADIUS, -RADIUS)
        out = light + glow * light.new_tensor(SUN)[:, None, None]
        for place, size, colour in GHOSTS:
            centre = (width / 2 + (sun[0] - width / 2) * place, height / 2 + (sun[1] - height / 2) * place)
            gx, gy = _offsets(image, centre)
            rho = (gx.square() + gy.square()).sqrt() / (size * short_side(image))
            disc = smoothstep(-rho, -1.1, -0.9) * (0.5 + 0.5 * rho.clamp_max(1) ** 2)
            out = out + disc * GHOST[s] * light.new_tensor(colour)[:, None, None]
        return to_srgb(out)


def place_of_sun(light: Tensor, generator: torch.Generator) -> tuple[float, float]:
    """(x, y) in pixels: the brightest of a few random places in the upper part, as the sun seldom stands in a wall."""
    height, width = light.shape[-2:]
    u = torch.rand(PLACES, 2, generator=generator)
    x, y = (0.1 + 0.8 * u[:, 0]) * width, (0.06 + 0.34 * u[:, 1]) * height
    around = blur(luminance(light)[None], 0.03 * short_side(light))[0].cpu()
    best = int((around[y.long(), x.long()] * 64).floor().argmax())  # coarse: the first of those about equally bright
    return float(x[best]), float(y[best])


def veil(degrees: Tensor) -> Tensor:
    """Stray light at an angle to the source, 1 at one degree and nearer: (10 / t^3 + 5 / t^2) / 15."""
    t = degrees.clamp_min(1.0)
    return (10 / t**3 + 5 / t**2) / 15


def _offsets(image: Tensor, centre: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """1xW and Hx1: how far each pixel lies right of and below a position."""
    height, width = image.shape[-2:]
    x = torch.arange(width, device=image.device) + 0.5 - centre[0]
    y = torch.arange(height, device=image.device) + 0.5 - centre[1]
    return x[None], y[:, None]
