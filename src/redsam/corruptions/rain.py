"""Rain: falling drops as streaks in layers of depth, and the veil of all the drops too far away to be seen singly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.depth import depth
from redsam.corruptions.haze import airlight, koschmieder
from redsam.corruptions.light import blur, each, mean, quantile, to_linear, to_srgb
from redsam.errors import InputError
from redsam.registry import register

# Rain in mm/h by severity; from 50 on heavy, 200 is the most that Halder et al. 2019 render.
RATE = (10.0, 25.0, 50.0, 100.0, 200.0)
# Marshall and Palmer 1948: N(D) = N0 exp(-4.1 R^-0.21 D) drops per m^3 and mm of diameter; below D0 they are mist.
N0, D0 = 8000.0, 1.0
# Extinction of light by rain, 1/km: 0.312 R^0.67 (Halder et al. 2019).
EXTINCTION, EXPONENT = 0.312, 0.67
# Layers in metres from the camera; a streak is longer and wider the nearer its drop.
LAYERS = ((0.5, 1.2), (1.2, 3.0), (3.0, 8.0))
MOST = 12000  # streaks drawn in a layer; where there are more, each stands for several
EXPOSURE = 1 / 100  # seconds
FOCAL = 1.0  # over the longer side
# A drop on a screen would be seen by its sparkle and its movement; in one still frame the opacity D / (v T) is hard to
# see even in heavy rain, and photographs of rain are chosen for showing it.
VISIBLE = 3.0


@register("corruption", "rain", paper="Photorealistic Rendering of Rain Streaks (Garg, Nayar); Physics-Based Rendering "
          "for Improving Robustness to Rain (Halder et al.)", year=2006,
          url="https://doi.org/10.1145/1141911.1141985", group="weather", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Rain(Corruption):
    """Drops of Marshall and Palmer's sizes fall at Atlas and Ulbrich's speed through the camera's view. Each draws a
    streak of length f v T / z, width f D / z and opacity D / (v T) (Garg and Nayar 2007), in the light of the whole
    scene, since a drop shows 165 degrees of it; the rest is a veil by extinction over the depth prior.
    wind: mean slant in degrees, None: drawn. speed: of the camera in m/s; the rain then comes out of the middle.

    Deviation: opacity is 3 times the physical one; the sparkle of oscillating drops is a smooth random factor.
    """

    wind: float | None = None
    speed: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.speed <= 100 or (self.wind is not None and not abs(self.wind) <= 80):
            raise InputError("Rain: wind is -80 to 80 degrees, speed 0 to 100 m/s.")

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        rate, light = RATE[self.severity - 1], to_linear(image)
        drawn = float(torch.randn((), generator=generator)) * 9
        slant = math.radians(drawn if self.wind is None else self.wind)
        sky = scene_light(light)
        veiled = koschmieder(light, depth(image), EXTINCTION * rate**EXPONENT / 1000, airlight(light))
        for near, far in LAYERS:
            cover, width = self._layer(image, generator, rate, slant, near, far)
            opacity = blur(cover.to(light)[None], max(0.4 * width, 0.35)).clamp(0, 0.9)
            veiled = veiled * (1 - opacity) + sky * opacity
        return to_srgb(veiled)

    def _layer(
        self, image: Tensor, generator: torch.Generator, rate: float, slant: float, near: float, far: float
    ) -> tuple[Tensor, float]:
        """Opacity HxW of a layer's streaks before they are widened, and their mean width in pixels; on the CPU."""
        height, width = image.shape[-2:]
        focal, decay = FOCAL * max(height, width), 4.1 * rate**-0.21
        u = torch.rand(MOST, 6, generator=generator)
        volume = (far**3 - near**3) / 3 * (width / focal) * (height / focal)
        number = N0 / decay * math.exp(-decay * D0) * volume
        count = max(min(round(number), MOST), 1)
        each_means = number / count
        u = u[:count]
        z = (near**3 + (far**3 - near**3) * u[:, 0]).pow(1 / 3)
        size = D0 - (1 - u[:, 1]).clamp_min(1e-4).log() / decay  # mm
        fall = 9.65 - 10.3 * torch.exp(-0.6 * size)  # m/s, Atlas and Ulbrich 1977
        tilt = slant + (u[:, 2] - 0.5) * 0.12
        x, y = (u[:, 3] * 1.4 - 0.2) * width, (u[:, 4] * 1.4 - 0.2) * height
        dx = (focal * fall * tilt.tan() + (x - width / 2) * self.speed) * EXPOSURE / z
        dy = (focal * fall + (y - height / 2) * self.speed) * EXPOSURE / z
        wide = focal * size / 1000 / z
        opacity = size / 1000 / (fall * EXPOSURE) * VISIBLE * (0.5 + u[:, 5]) * wide * each_means * 1.4**2
        return streaks(x, y, dx, dy, opacity, (height, width)), float(wide.double().mean())


def scene_light(light: Tensor) -> Tensor:
    """3x1x1: what a drop shows, most of the scene and mostly its sky: a grey near the bright end of the image."""
    bright = quantile(blur(light, 2.0).mean(0), 0.85)
    return 0.3 * mean(light) + 0.7 * bright.clamp_min(0.05)


def streaks(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """HxW: lines from (x, y) by (dx, dy) in pixels, fading in and out, of this weight per pixel of length, as
    antialiased lines one pixel wide. One thread writes, in the order of the lines."""
    height, width = size
    length = torch.maximum(dx.abs(), dy.abs()).ceil().clamp(1, max(size)).long()
    line = torch.repeat_interleave(torch.arange(len(x)), length)
    first = torch.cumsum(length, 0) - length
    t = (torch.arange(len(line)) - first[line] + 0.5) / length[line]
    px, py = x[line] + t * dx[line] - 0.5, y[line] + t * dy[line] - 0.5
    strength = weight[line] * (math.pi / 2 * torch.sin(math.pi * t))
    left, top = px.floor(), py.floor()
    out = torch.zeros(height * width)
    for i in (0, 1):
        for j in (0, 1):
            part = (1 - (px - left - i).abs()) * (1 - (py - top - j).abs()) * strength
            column, row = (left + i).long(), (top + j).long()
            shown = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            out.index_add_(0, (row * width + column)[shown], part[shown])
    return out.reshape(height, width)
