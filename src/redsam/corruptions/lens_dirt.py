"""Dirt on the lens: dust, specks of mud and smears, out of focus, that take light away and scatter other light in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.light import blur, each, field, mean, short_side, smoothstep, to_linear, to_srgb
from redsam.registry import register

# By severity: specks drawn, their opacity, part of the glass under a smear and its opacity.
SPECKS = (60, 120, 200, 290, 400)
OPACITY = (0.55, 0.65, 0.75, 0.82, 0.9)
SMEARED = (0.08, 0.13, 0.19, 0.26, 0.34)
FILM = (0.25, 0.32, 0.4, 0.48, 0.55)
RADII = (0.007, 0.05)  # of a speck over the shorter side
DEFOCUS = 0.006
MUD = (0.55, 0.45, 0.32)  # colour of the light that dirt scatters


@register("corruption", "lens-dirt", paper="Removing Image Artifacts Due to Dirty Camera Lenses and Thin Occluders "
          "(Gu et al.)", year=2009, url="https://doi.org/10.1145/1618452.1618490", group="lens",
          geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class LensDirt(Corruption):
    """Gu et al. 2009, eq. 3, in linear light: I = I0 (1 - a) + a c; a is how much of the aperture dirt covers, seen
    out of focus, and c the light of the whole scene that it scatters, in the colour of mud.

    Deviation: attenuation and scattering share one map, made of random specks and smears instead of calibrated.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        s, light = self.severity - 1, to_linear(image)
        dirt = specks(generator, image, SPECKS[s]) * OPACITY[s]
        smear, grain = field(generator, image, 2, octaves=4, aspect=2.0), field(generator, image, 40, octaves=2)
        cut = float(torch.special.ndtri(torch.tensor(1 - SMEARED[s])))
        film = smoothstep(smear + 0.15 * grain, cut - 0.5, cut + 0.7) * FILM[s]
        cover = blur((1 - (1 - dirt) * (1 - film))[None], DEFOCUS * short_side(image))
        scattered = mean(light) * light.new_tensor(MUD)[:, None, None]
        return to_srgb(light * (1 - cover) + scattered * cover)


def specks(generator: torch.Generator, image: Tensor, count: int) -> Tensor:
    """HxW in [0, 1]: `count` lumps of dirt with a ragged edge, the first of the same endless rain of them."""
    height, width = image.shape[-2:]
    u = torch.rand(SPECKS[-1], 5, generator=generator)
    ragged = field(generator, image, 30, octaves=2).cpu()
    side, clean = short_side(image), torch.ones(height, width)
    for x, y, size, strength, shape in u[:count].tolist():
        radius = side * (RADII[0] + (RADII[1] - RADII[0]) * size**3)
        cx, cy, reach = x * width, y * height, radius * 2 + 1
        x0, x1, y0, y1 = max(int(cx - reach), 0), int(cx + reach) + 1, max(int(cy - reach), 0), int(cy + reach) + 1
        part = clean[y0:y1, x0:x1]
        dy = (torch.arange(y0, y0 + part.shape[0]) + 0.5 - cy)[:, None] * (0.8 + 0.4 * shape)
        dx = (torch.arange(x0, x0 + part.shape[1]) + 0.5 - cx)[None]
        rho = (dx.square() + dy.square()).sqrt() / radius + 0.18 * ragged[y0:y1, x0:x1]
        clean[y0:y1, x0:x1] = part * (1 - (0.5 + 0.5 * strength) * smoothstep(-rho, -1.15, -0.75))
    return (1 - clean).to(image.device)
