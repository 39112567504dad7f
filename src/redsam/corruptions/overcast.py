"""Overcast: a closed cover of cloud instead of the sun: soft shadows, little colour, a grey sky, less light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.depth import dark_channel, guided
from redsam.corruptions.light import (
    blur,
    each,
    field,
    luminance,
    mean,
    power,
    rows,
    short_side,
    smoothstep,
    to_linear,
    to_srgb,
    widest,
)
from redsam.registry import register

# By severity: how much of the contrast between lit and shaded parts goes, of colour, and of all light.
FLATTEN = (0.15, 0.25, 0.35, 0.45, 0.55)
FADE = (0.15, 0.25, 0.35, 0.45, 0.55)
DIM = (0.06, 0.14, 0.22, 0.32, 0.42)
CLOUD = (0.72, 0.76, 0.80)  # sky under a cover, linear, before it is dimmed
COOL = (0.96, 1.0, 1.06)  # daylight without the sun, over daylight with it


@register("corruption", "overcast", paper="Red-Teaming Segment Anything Model (Jankowski et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02067", group="weather", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Overcast(Corruption):
    """Illumination, taken as the widely blurred luminance (Land and McCann's Retinex, 1971), is compressed towards its
    mean; colour fades towards a cool grey; what looks like sky becomes cloud.

    Deviation: the paper's condition is the output of a CycleGAN; this one is a model without training.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        s, light = self.severity - 1, to_linear(image)
        bright = luminance(light)
        lit = blur(bright[None], 0.03 * short_side(image))[0] + 0.02
        flat = light * power(lit / mean(lit), -FLATTEN[s])
        grey = luminance(flat)[None] * light.new_tensor(COOL)[:, None, None]
        flat = flat + (grey - flat) * FADE[s]
        clouds = 1 + 0.08 * field(generator, image, 3, aspect=3.0)
        sky = sky_likeness(image) * (0.4 + 0.12 * self.severity)
        flat = flat * (1 - sky) + light.new_tensor(CLOUD)[:, None, None] * clouds * sky
        return to_srgb(flat * (1 - DIM[s]))


def sky_likeness(image: Tensor) -> Tensor:
    """HxW in [0, 1]: bright in every colour all around, in the upper part, along the image's edges; and whatever is
    bright close to that, which is sky between branches."""
    light, side = to_linear(image), short_side(image)
    found = smoothstep(guided(image, dark_channel(light, max(side // 40, 1))), 0.2, 0.5)
    near = blur(widest(found, round(0.05 * side))[None], 0.02 * side)[0] * smoothstep(luminance(light), 0.25, 0.5)
    return torch.maximum(found, near) * (1 - smoothstep(rows(image), 0.45, 0.65))
