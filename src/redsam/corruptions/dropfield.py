"""Drops on glass: a height field of water, and where a camera behind it looks through every point (Snell's law).

Frames: the glass lies in the image plane, x right, y down, z away from the camera towards the scene, lengths in pixels;
the camera is a pinhole behind the image's centre at the focal length. A ray leaves the camera, enters the water through
the flat glass and leaves it through the drop's curved outer face, where it is refracted by the normal of the height
field. The scene is far away, so where a ray meets it depends on its direction alone. A convex drop then is a lens of a
very short focal length: the scene appears in it upside down, mirrored and small.
Sources: Roser, Kurz and Geiger 2010 (drop shapes and the refraction of their images), You, Tan, Kawakami, Mukaigawa and
Ikeuchi 2016 (adherent drops: wide view, dark rim by total reflection), von Bernuth, Volk and Bringmann 2018 (drops on
windscreens by ray tracing). Nothing is taken from their code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Refractive index of water; glass only shifts a ray sideways by less than its thickness and is left out.
WATER = 1.333
# Candidates drawn per image, of which as many are used as cover the wanted part of the glass.
CANDIDATES = 700
# Radius as a fraction of the shorter side: log-normal, cut off at both ends.
RADIUS_MEDIAN, RADIUS_SPREAD, RADIUS_RANGE = 0.014, 0.75, (0.004, 0.075)
# Contact angle of water on automotive glass in degrees; large drops sag and are flatter.
CONTACT = (42.0, 60.0)
# A shape is followed outside its contour so far (in radii), for gradients at the contour.
REACH = 1.12


class Drop(NamedTuple):
    """One drop. x, y, radius in pixels; aspect: height over width; contact: angle at the contour in radians; waves:
    amplitude and phase of the contour's second to fifth harmonic."""

    x: float
    y: float
    radius: float
    aspect: float
    contact: float
    waves: tuple[tuple[float, float], ...]


class Surface(NamedTuple):
    """height: HxW in pixels, 0 where the glass is dry. slope: 2xHxW, dh/dx and dh/dy. wet: bool HxW."""

    height: Tensor
    slope: Tensor
    wet: Tensor


def rain_on_glass(generator: torch.Generator, size: tuple[int, int], cover: float) -> list[Drop]:
    """Drops that do not touch and cover about this fraction of (height, width); fewer drops are the first of more."""
    height, width = size
    side = min(height, width)
    draws = torch.rand(CANDIDATES, 5 + 8, generator=generator, dtype=torch.float64)
    normal = torch.randn(CANDIDATES, generator=generator, dtype=torch.float64)
    drops: list[Drop] = []
    covered = 0.0
    for row, z in zip(draws.tolist(), normal.tolist(), strict=True):
        if covered >= cover:
            break
        radius = side * min(max(RADIUS_MEDIAN * math.exp(RADIUS_SPREAD * z), RADIUS_RANGE[0]), RADIUS_RANGE[1])
        flat = radius / side / RADIUS_RANGE[1]
        low, high = CONTACT
        drop = Drop(
            x=row[0] * width,
            y=row[1] * height,
            radius=radius,
            aspect=0.92 + (0.1 + 0.45 * flat) * row[2],
            contact=math.radians(low + (high - low) * row[3] * (1 - 0.5 * flat)),
            waves=tuple(
                (0.16 * (0.3 + flat) * row[5 + 2 * k] / (k + 2), 2 * math.pi * row[6 + 2 * k]) for k in range(4)
            ),
        )
        if all(math.hypot(drop.x - d.x, drop.y - d.y) > 1.1 * (drop.radius + d.radius) for d in drops):
            drops.append(drop)
            covered += math.pi * radius**2 * drop.aspect / (height * width)
    return drops


def surface(drops: list[Drop], size: tuple[int, int]) -> Surface:
    """The height field of all drops on (height, width), on the CPU; where two overlap, the higher water counts."""
    height, width = size
    water, slope = torch.zeros(height, width), torch.zeros(2, height, width)
    for drop in drops:
        reach = drop.radius * max(1.0, drop.aspect) * 1.4 + 2
        x0, x1 = max(int(drop.x - reach), 0), min(int(drop.x + reach) + 2, width)
        y0, y1 = max(int(drop.y - reach), 0), min(int(drop.y + reach) + 2, height)
        if x1 <= x0 or y1 <= y0:
            continue
        y, x = torch.meshgrid(torch.arange(y0, y1).double() + 0.5, torch.arange(x0, x1).double() + 0.5, indexing="ij")
        step = 0.25  # of a pixel: the contour's slope is that of the shape, not of the sampling
        shift = torch.tensor([[0, 0], [step, 0], [-step, 0], [0, step], [0, -step]])[:, :, None, None]
        level, right, left, below, above = cap(drop, x + shift[:, 0], y + shift[:, 1])
        gradient = torch.stack([right - left, below - above]).float() / (2 * step)
        level = level.float()
        patch = water[y0:y1, x0:x1]
        higher = level > patch
        water[y0:y1, x0:x1] = torch.where(higher, level, patch)
        slope[:, y0:y1, x0:x1] = torch.where(higher, gradient, slope[:, y0:y1, x0:x1])
    return Surface(height=water, slope=slope, wet=water > 0)


def cap(drop: Drop, x: Tensor, y: Tensor) -> Tensor:
    """Height of a drop at positions in pixels: a spherical cap over a wavy contour, fuller below; negative outside."""
    v = (y - drop.y) / (drop.radius * drop.aspect)
    u = (x - drop.x) / (drop.radius * (1 + 0.16 * (drop.aspect - 0.92) / 0.55 * v.clamp(-1.5, 1.5)))
    angle = torch.atan2(v, u)
    contour = torch.ones_like(u)
    for k, (amplitude, phase) in enumerate(drop.waves):
        contour = contour + amplitude * torch.cos((k + 2) * angle + phase)
    rho = torch.hypot(u, v) / contour
    sphere = 1 / math.sin(drop.contact)  # radius of the sphere over that of the contour
    top = (sphere**2 - rho.clamp_max(min(REACH, 0.995 * sphere)) ** 2).sqrt()
    # Beyond REACH the sphere has an end; a plane falls on from there, so that outside is always below zero.
    return drop.radius * (top - sphere * math.cos(drop.contact) - (rho - REACH).clamp_min(0))


def refract(incoming: Tensor, normal: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Snell's law in vectors: (outgoing unit 3x..., cosine of incidence, cosine of refraction).

    incoming, normal: unit vectors 3x... with a positive product. ratio: index on this side over index beyond. The
    cosine of refraction is 0, and the outgoing ray grazes the face, where all light is reflected (total reflection).
    """
    cos_in = dot(incoming, normal).clamp(0, 1)
    cos_out = (1 - ratio**2 * (1 - cos_in**2)).clamp_min(0).sqrt()
    outgoing = ratio * incoming + (cos_out - ratio * cos_in) * normal
    return unit(outgoing), cos_in, cos_out


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Product of vectors 3x...; written out, as a sum over the first dimension is many times slower."""
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def unit(vectors: Tensor) -> Tensor:
    """Vectors 3x... of length one."""
    return vectors / dot(vectors, vectors).sqrt().clamp_min(1e-6)


def transmitted(cos_in: Tensor, cos_out: Tensor, ratio: float) -> Tensor:
    """Fresnel: part of unpolarised light that passes; 0 at total reflection."""
    across = ((ratio * cos_in - cos_out) / (ratio * cos_in + cos_out).clamp_min(1e-6)) ** 2
    along = ((cos_in - ratio * cos_out) / (cos_in + ratio * cos_out).clamp_min(1e-6)) ** 2
    return torch.where(cos_out > 0, 1 - (across + along) / 2, torch.zeros_like(cos_in))


def look_through(slope: Tensor, focal: float) -> tuple[Tensor, Tensor]:
    """For 2xHxW slopes: the positions (x, y) in pixels at which the scene is seen (HxWx2), and what part of its light
    arrives (HxW). Where the water is flat, a pixel sees itself."""
    height, width = slope.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    view = torch.stack([(x - width / 2) / focal, (y - height / 2) / focal, torch.ones(height, width)])
    view = unit(view).to(slope)
    flat = torch.zeros_like(view)
    flat[2] = 1.0
    in_water, _, _ = refract(view, flat, 1 / WATER)
    normal = torch.stack([-slope[0], -slope[1], torch.ones_like(slope[0])])
    out, cos_in, cos_out = refract(in_water, unit(normal), WATER)
    ahead = out[2].clamp_min(0.05)
    at = torch.stack([out[0] / ahead * focal + width / 2, out[1] / ahead * focal + height / 2], dim=-1) - 0.5
    return at, transmitted(cos_in, cos_out, WATER)
