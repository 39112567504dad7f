"""Light: what the physical corruptions share: linear intensity, wide blurs, smooth random fields, all for one image.

Light adds up in linear intensity, not in the numbers of a file, so scattering, noise and refraction are computed there
(transfer function of IEC 61966-2-1, sRGB). Sums over pixels, powers and bilinear enlarging are done in float64: in
float32 their last bit depends on how many threads share the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Luminance of linear RGB, ITU-R BT.709.
LUMA = (0.2126, 0.7152, 0.0722)
# A Gaussian is summed directly up to this sigma in pixels; a wider one on an image shrunk by a whole factor.
DIRECT = 2.0


def to_linear(image: Tensor) -> Tensor:
    """sRGB in [0, 1] to linear intensity in [0, 1]."""
    return torch.where(image <= 0.04045, image / 12.92, power((image + 0.055) / 1.055, 2.4))


def to_srgb(light: Tensor) -> Tensor:
    """Linear intensity to sRGB in [0, 1]; what is brighter than white is white."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * power(light.clamp_min(1e-8), 1 / 2.4) - 0.055)


def power(values: Tensor, exponent: float) -> Tensor:
    """values ** exponent, rounded from float64, so that it is the same bits on any number of threads."""
    return values.to(torch.float64).pow(exponent).to(values.dtype)


def enlarge(image: Tensor, size: tuple[int, int]) -> Tensor:
    """CxHxW to Cxhxw, bilinear between pixel centres, rounded from float64 for the same reason."""
    wide = F.interpolate(image[None].to(torch.float64), size=size, mode="bilinear", align_corners=False)
    return wide[0].to(image.dtype)


def luminance(light: Tensor) -> Tensor:
    """Linear 3xHxW to HxW."""
    return light[0] * LUMA[0] + light[1] * LUMA[1] + light[2] * LUMA[2]


def each(
    images: Tensor, generators: Sequence[torch.Generator], change: Callable[[Tensor, torch.Generator], Tensor]
) -> Tensor:
    """`change` on every 3xHxW of a batch with its own generator; one at a time, so a batch equals a loop."""
    return torch.stack([change(image, g) for image, g in zip(images, generators, strict=True)])


def short_side(image: Tensor) -> int:
    """The shorter side in pixels; lengths of this room's weather are fractions of it, so they scale with the image."""
    return int(min(image.shape[-2:]))


def rows(image: Tensor) -> Tensor:
    """Hx1: centre of every row as a fraction of the height, 0 at the top."""
    height = image.shape[-2]
    return ((torch.arange(height, device=image.device) + 0.5) / height)[:, None]


def mean(values: Tensor, dims: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Mean over the pixels, summed in float64, kept as dimensions of one."""
    return values.double().mean(dims, keepdim=True).to(values.dtype)


def quantile(values: Tensor, q: float) -> Tensor:
    """The q-quantile of a tensor's values, a scalar: the nearest order statistic, of any size of tensor."""
    flat = values.reshape(-1)
    place = min(max(round(q * (flat.numel() - 1)), 0), flat.numel() - 1)
    return flat.kthvalue(place + 1).values


def blur(image: Tensor, sigma: float, *, edge: Literal["replicate", "zero"] = "replicate") -> Tensor:
    """Gaussian of CxHxW, sigma in pixels; beyond the edge the border is continued, or there is nothing.

    Wide ones are computed on the image shrunk by a whole factor f, whose averaging and bilinear enlarging already blur
    by f^2 (1/12 + 1/6) in variance.
    """
    if sigma < 0.2:
        return image
    height, width = image.shape[-2:]
    factor = max(1, min(int(sigma / DIRECT), min(height, width) // 2))
    if factor == 1:
        return _gauss(image, sigma, edge)
    small = F.avg_pool2d(pad(image, (0, -width % factor, 0, -height % factor), edge)[None], factor)[0]
    rest = math.sqrt(max((sigma / factor) ** 2 - 0.25, 0.01))
    wide = _gauss(small, rest, edge)
    size = (wide.shape[-2] * factor, wide.shape[-1] * factor)
    return enlarge(wide, size)[:, :height, :width]


def pad(image: Tensor, by: tuple[int, int, int, int], edge: str) -> Tensor:
    """CxHxW padded by (left, right, top, bottom) with the border's values or with zeros."""
    return F.pad(image[None], by, mode="replicate")[0] if edge == "replicate" else F.pad(image, by)


def _gauss(image: Tensor, sigma: float, edge: str) -> Tensor:
    """Sums of shifted copies, which unlike a convolution always add in the same order."""
    for axis in (-2, -1):
        image = stretch(image, sigma, axis, edge)
    return image


def stretch(image: Tensor, sigma: float, axis: int, edge: str = "replicate") -> Tensor:
    """Gaussian of CxHxW along one axis only (-2 down, -1 across), sigma in pixels, summed directly."""
    radius = max(math.ceil(3 * sigma), 1)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    total, length = sum(weights), image.shape[axis]
    wide = pad(image, (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius), edge)
    out = torch.zeros_like(image)
    for k, weight in enumerate(weights):
        out = out.add(wide.narrow(axis, k, length), alpha=weight / total)
    return out


def widest(values: Tensor, radius: int) -> Tensor:
    """HxW: the largest value within a square of 2 radius + 1 pixels. Windows of two, four, ... pixels are joined, which
    for a large one takes a tenth of the time of `max_pool2d`."""
    size = 2 * radius + 1
    out = pad(values[None], (radius, radius, radius, radius), "replicate")[0]
    for dim in (0, 1):
        length, joined = out.shape[dim] - size + 1, 1
        while 2 * joined <= size:
            rest = out.shape[dim] - joined
            out = torch.maximum(out.narrow(dim, 0, rest), out.narrow(dim, joined, rest))
            joined *= 2
        out = torch.maximum(out.narrow(dim, 0, length), out.narrow(dim, size - joined, length))
    return out


def field(generator: torch.Generator, image: Tensor, cells: int, *, octaves: int = 3, aspect: float = 1.0) -> Tensor:
    """HxW smooth random field of about zero mean and unit variance: octaves of Gaussian noise, enlarged bicubically.

    cells: how many humps of the first octave fit into the shorter side; aspect: how much longer than high they are.
    """
    height, width = image.shape[-2:]
    side = min(height, width)
    total, weight = torch.zeros(height, width, device=image.device), 0.0
    for octave in range(octaves):
        n = cells * 2**octave
        down, across = max(round(n * height / side), 2), max(round(n * width / side / aspect), 2)
        noise = torch.randn(1, 1, down, across, generator=generator).to(image.device)
        total = (
            total + F.interpolate(noise, size=(height, width), mode="bicubic", align_corners=True)[0, 0] * 0.5**octave
        )
        weight += 0.25**octave
    return total / math.sqrt(weight) * 1.4  # enlarging averages neighbours, which takes about half of the variance


def smoothstep(values: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
