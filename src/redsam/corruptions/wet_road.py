"""Wet road: the ground darkens, mirrors what stands on it, in puddles sharply, elsewhere smeared, and glints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.depth import FOCAL
from redsam.corruptions.depth import check as check_depth
from redsam.corruptions.light import (
    blur,
    each,
    enlarge,
    field,
    luminance,
    rows,
    short_side,
    smoothstep,
    to_linear,
    to_srgb,
)
from redsam.registry import register

# By severity: how wet (share of the mirror image outside puddles), part of the ground in puddles, darkening.
FILM = (0.25, 0.4, 0.55, 0.7, 0.85)
PUDDLES = (0.06, 0.14, 0.24, 0.36, 0.5)
# Wet asphalt reflects 0.5 to 0.8 of what dry asphalt does (Lekner and Dorf 1988 give the mechanism).
DARKEN = (0.15, 0.25, 0.33, 0.4, 0.46)
WATER = 1.333
# Humps of the puddles' field over the shorter side: one puddle is a few car widths across, not a lake.
PUDDLE_CELLS = 10
# A film on rough ground smears the mirror image downwards: sigma over the shorter side.
SMEAR, RIPPLE = 0.05, 0.004
# Half of the shore, in deviations of the field: shallow water thins out into the film.
SHORE = 0.3


@register("corruption", "wet-road", paper="Rendering of Wet Materials (Jensen et al.)", year=1999,
          url="https://doi.org/10.1007/978-3-7091-6809-7_24", group="weather", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class WetRoad(Corruption):
    """Below the horizon: what looks like the ground in front of the camera is darkened by the water's internal
    reflection (Lekner and Dorf 1988) and gets the scene mirrored at the horizon on top, times Fresnel's reflectance of
    water at the angle of each row; highlights stretch towards the camera. horizon: fraction of the height from the top.

    Deviation: the mirror plane is that of a far scene over level ground, and the ground is known by its row and colour.
    """

    horizon: float = 0.45

    def __post_init__(self) -> None:
        super().__post_init__()
        check_depth("both", self.horizon)

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        s, light = self.severity - 1, to_linear(image)
        height, width = image.shape[-2:]
        road = ground_likeness(image, self.horizon)
        # Puddles lie flat, so they are seen many times wider than deep.
        level = smoothstep(field(generator, image, PUDDLE_CELLS, aspect=4.0), *_between(PUDDLES[s]))
        side = short_side(image)
        sharp = mirrored(light, self.horizon)
        smeared = blur_down(sharp, SMEAR * side)
        reflected = level * blur(sharp, RIPPLE * side) + (1 - level) * smeared * FILM[s]
        fresnel = reflectance(rows(image), self.horizon, height / (FOCAL * max(height, width)))
        share = road * fresnel
        wet = light * (1 - DARKEN[s] * road * (0.7 + 0.3 * level))
        return to_srgb(wet * (1 - share * level) + reflected * share)


def mirrored(light: Tensor, horizon: float) -> Tensor:
    """3xHxW upside down about the horizon: row 2 h - y; what lies above the image is mirrored in again."""
    height = light.shape[-2]
    at = (2 * horizon * height - torch.arange(height, device=light.device) - 1).round().long().abs()
    return light[:, at.clamp(0, height - 1)]


def reflectance(row: Tensor, horizon: float, view: float) -> Tensor:
    """Hx1: Fresnel's reflectance of level water for the angle at which each row looks down. view: height over focal
    length. Above the horizon 1."""
    down = ((row - horizon) * view).clamp_min(0)
    cos_in = down / (1 + down**2).sqrt()  # to the vertical
    cos_out = (1 - (1 - cos_in**2) / WATER**2).sqrt()
    across = ((cos_in - WATER * cos_out) / (cos_in + WATER * cos_out)) ** 2
    along = ((WATER * cos_in - cos_out) / (WATER * cos_in + cos_out)) ** 2
    return (across + along) / 2


def ground_likeness(image: Tensor, horizon: float) -> Tensor:
    """HxW in [0, 1]: below the horizon, and of a colour like that in the middle of the lowest part."""
    height, width = image.shape[-2:]
    patch = image[:, int(height * (0.5 + 0.5 * max(horizon, 0.3))) - 1 :, width // 4 : max(width - width // 4, 1)]
    typical = patch.reshape(3, -1).median(1).values[:, None, None]
    smooth = blur(image, 0.006 * short_side(image))
    tint = ((smooth - luminance(smooth)) - (typical - luminance(typical))).abs().amax(0)
    shade = (luminance(smooth) - luminance(typical)).abs()
    alike = torch.exp(-((tint / 0.08) ** 2) - (shade / 0.3) ** 2)
    below = smoothstep(rows(image), horizon, horizon + 0.12)
    return below * (0.15 + 0.85 * blur(alike[None], 0.006 * short_side(image))[0])


def blur_down(light: Tensor, sigma: float) -> Tensor:
    """Smeared along columns four times as far as across."""
    height, width = light.shape[-2:]
    squeezed = torch.nn.functional.interpolate(
        light[None], size=(max(round(height / 4), 1), width), mode="bilinear", antialias=True
    )[0]
    soft = blur(squeezed, sigma / 4)
    return enlarge(soft, (height, width))


def _between(part: float) -> tuple[float, float]:
    """Where a field of unit variance is cut so that about this part of it lies above."""
    cut = float(torch.special.ndtri(torch.tensor(1 - part)))
    return cut - SHORE, cut + SHORE
