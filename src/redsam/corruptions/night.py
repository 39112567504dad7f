"""Night: less light, less colour and a blue one, lamps that stay lit and bloom, and the sensor's noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.light import blur, each, luminance, rows, short_side, smoothstep, to_linear, to_srgb, widest
from redsam.corruptions.overcast import sky_likeness
from redsam.registry import register

# By severity: stops of exposure lost, and photons that a white pixel of the darkened image is worth.
STOPS = (1.2, 1.7, 2.2, 2.8, 3.4)
PHOTONS = (900.0, 500.0, 280.0, 160.0, 90.0)
# The sky has no light of its own at night: stops that it loses besides.
SKY_STOPS = (1.0, 1.6, 2.2, 2.8, 3.4)
READ_NOISE = (0.0012, 0.0018, 0.0026, 0.0036, 0.005)
# Colour of rod vision (Jensen et al. 2000), and how much of it.
MOON, BLUE = (0.75, 0.95, 1.45), (0.3, 0.38, 0.46, 0.53, 0.6)
# The lens spreads this part of a lamp's light over Gaussians of these sigmas (over the shorter side) and shares.
SPREAD = 0.45
HALO = ((0.006, 0.55), (0.02, 0.3), (0.07, 0.15))
# Times the light that a lamp's pixels have by day, where the sensor clips it: a lamp that looks no brighter than white
# has no halo that an eye would see.
LAMP = 4.0
# Where more than this part of the surroundings (a Gaussian of 0.06 of the shorter side) is bright by day, nothing is a
# lamp: a white car, the sky between branches. And white below these rows is paint on the road, not a headlamp.
CROWD, PAINT = (0.08, 0.16), (0.5, 0.65)


@register("corruption", "night", paper="Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image "
          "Raw-Data (Foi et al.)", year=2008, url="https://doi.org/10.1109/TIP.2008.2001399", group="weather",
          geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Night(Corruption):
    """In linear light: exposure falls, the sky's most; colour moves towards rod vision (Jensen et al. 2000, "Night
    Rendering"); pixels brighter than all around them, or of a signal's colour, count as lamps, keep their light and
    bloom (sums of Gaussians after Spencer et al. 1995); then photons and electronics make noise of variance a y + b
    (Foi et al. 2008).

    Deviation: what is a lamp and what the sky is guessed from one image by day; noise is the same for the three colours
    and white (no Bayer pattern).
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        s, light = self.severity - 1, to_linear(image)
        side = short_side(image)
        # The sky's ragged border is dark as well, and no lamp.
        sky = blur(widest(sky_likeness(image), round(0.008 * side))[None], 0.004 * side)[0]
        exposed = light * 2.0 ** (-STOPS[s] - SKY_STOPS[s] * sky)
        rods = luminance(exposed)[None] * light.new_tensor(MOON)[:, None, None]
        scene = exposed + (rods - exposed) * BLUE[s]
        lit = lamps(light) * (1 - widest(sky, round(0.012 * side)))
        scene = scene * (1 - lit) + bloom(light * lit * LAMP, side)
        noise = torch.randn(image.shape, generator=generator).to(light)
        return to_srgb(poisson_gaussian(scene, noise, 1 / PHOTONS[s], READ_NOISE[s] ** 2))


def lamps(light: Tensor) -> Tensor:
    """HxW in [0, 1]: small and much brighter than the surroundings and not on the road, or strongly red, amber or green
    and bright; alone, in both cases."""
    side = short_side(light)
    top = light.amax(0)
    around = blur(luminance(light)[None], 0.03 * side)[0]
    small = smoothstep(top - 1.6 * around, 0.3, 0.6) * (1 - smoothstep(rows(light), *PAINT))
    vivid = smoothstep(top - light.amin(0) - 1.2 * around, 0.25, 0.5)
    found = torch.maximum(small, vivid)
    bright = smoothstep(luminance(light), 0.3, 0.6)
    return found * (1 - smoothstep(blur(bright[None], 0.06 * side, edge="zero")[0], *CROWD))


def bloom(light: Tensor, side: int) -> Tensor:
    """Linear 3xHxW with part of its light spread by the lens; none is lost but what leaves the image."""
    halo = torch.zeros_like(light)
    for sigma, share in HALO:
        halo = halo + blur(light, sigma * side, edge="zero") * share
    return light * (1 - SPREAD) + halo * SPREAD


def poisson_gaussian(light: Tensor, noise: Tensor, a: float, b: float) -> Tensor:
    """y + sqrt(a y + b) n for standard normal n: photons as the Gaussian of their variance (Foi et al. 2008, eq. 3)."""
    return light + (a * light.clamp_min(0) + b).sqrt() * noise
