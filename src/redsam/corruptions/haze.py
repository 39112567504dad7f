"""Haze: light from far away is scattered out of its way, and daylight into it (Koschmieder's law), by a depth prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.depth import WINDOW, Prior, check, dark_channel, depth
from redsam.corruptions.light import each, short_side, to_linear, to_srgb
from redsam.registry import register

# Meteorological optical range in metres by severity: the distance at which a black thing keeps 5% contrast.
VISIBILITY = (800.0, 450.0, 270.0, 160.0, 95.0)
CONTRAST_LEFT = 2.996  # -ln 0.05 (ICAO; Sakaridis et al. 2018 use the same)
# Airlight is so bright (linear) and this grey: haze in daylight, exposed so that it is not white.
LEAST_LIGHT, MOST_LIGHT, GREY = 0.45, 0.72, 0.7


@register("corruption", "haze", paper="Single Image Haze Removal Using Dark Channel Prior (He et al.)", year=2009,
          url="https://doi.org/10.1109/CVPR.2009.5206515", group="weather", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Haze(Corruption):
    """Koschmieder's law (1924) in linear light: I = J t + A (1 - t), t = exp(-beta d), beta = 2.996 / visibility; the
    airlight A as He et al. 2009 (section 4.4) estimate it. depth: the prior ("both", "vertical", "dark-channel");
    horizon: its height as a fraction from the top.

    Deviation: the depth is a prior, not a measurement; the airlight is moved towards grey and kept within 0.45 to 0.72.
    """

    depth: Prior = "both"
    horizon: float = 0.45

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.depth, self.horizon)

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        light = to_linear(image)
        far = depth(image, prior=self.depth, horizon=self.horizon)
        beta = CONTRAST_LEFT / VISIBILITY[self.severity - 1]
        return to_srgb(koschmieder(light, far, beta, airlight(light)))


def koschmieder(light: Tensor, far: Tensor, beta: float, air: Tensor) -> Tensor:
    """Linear 3xHxW seen through haze. far: HxW metres; beta: 1/metre; air: 3x1x1 linear."""
    passed = torch.exp(-beta * far)
    return light * passed + air * (1 - passed)


def airlight(light: Tensor) -> Tensor:
    """3x1x1: mean colour of the 0.1% of pixels with the brightest dark channel, made greyer and not too dark."""
    dark = dark_channel(light, max(int(WINDOW * short_side(light)), 1)).reshape(-1)
    count = max(dark.numel() // 1000, 1)
    # Equal values would be picked in no fixed order, so all that reach the last one's value are taken.
    chosen = dark >= dark.topk(count).values[-1]
    colour = light.reshape(3, -1)[:, chosen].double().mean(1).to(light.dtype)
    grey = colour.mean().clamp_min(1e-3)
    return (grey.clamp(LEAST_LIGHT, MOST_LIGHT) * (GREY + (1 - GREY) * colour / grey))[:, None, None]
